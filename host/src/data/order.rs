//! Orders of samples: pure functions of a seed, so that a run can resume at any position.

use rand_pcg::{Pcg64, rand_core::Rng};
use serde::{Deserialize, Serialize};

/// The order of the samples in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Order {
    /// As the samples are stored.
    Sequential,
    /// Shuffled again in every epoch.
    Shuffled {
        /// The seed of the run.
        seed: u64,
    },
}

/// The order of the samples `0..length` in an epoch: a pure function of its arguments.
pub fn epoch_order(order: Order, epoch: u64, length: u32) -> Vec<u32> {
    let mut indices: Vec<u32> = (0..length).collect();
    if let Order::Shuffled { seed } = order {
        shuffle(&mut indices, &mut generator(seed, Purpose::Epoch, epoch));
    }
    indices
}

/// What random numbers are drawn for; each purpose has its own streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Epoch,
    Split,
    Augment,
}

/// PCG64 (XSL-RR 128/64; O'Neill 2014) in the stream of a purpose and a number. The paper fixes its output.
pub(super) fn generator(seed: u64, purpose: Purpose, number: u64) -> Pcg64 {
    let purpose = match purpose {
        Purpose::Epoch => 0,
        Purpose::Split => 1,
        Purpose::Augment => 2,
    };
    Pcg64::new(u128::from(seed), (purpose << 64) | u128::from(number))
}

/// Fisher and Yates' shuffle, from the last position down. Written out because a checkpoint depends on the order, and
/// a library's shuffle may change.
pub(super) fn shuffle(indices: &mut [u32], generator: &mut Pcg64) {
    for last in (1..indices.len()).rev() {
        // The high half of a 128-bit product maps 64 random bits to 0..=last; the bias is below length / 2^64.
        let chosen = (u128::from(generator.next_u64()) * (last as u128 + 1)) >> 64;
        indices.swap(last, chosen as usize);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_epoch_is_a_permutation_and_repeats(seed: u64, epoch: u64, length in 0u32..500) {
            let order = epoch_order(Order::Shuffled { seed }, epoch, length);
            prop_assert_eq!(&order, &epoch_order(Order::Shuffled { seed }, epoch, length));
            let mut sorted = order;
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..length).collect::<Vec<_>>());
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let order = |seed, epoch| epoch_order(Order::Shuffled { seed }, epoch, 100);
        assert_ne!(order(1, 1), order(1, 2));
        assert_ne!(order(1, 1), order(2, 1));
        assert_eq!(epoch_order(Order::Sequential, 3, 4), [0, 1, 2, 3]);
    }

    /// A checkpoint resumes in the order of its run, so this must never change.
    #[test]
    fn the_order_is_fixed_for_good() {
        assert_eq!(epoch_order(Order::Shuffled { seed: 42 }, 1, 12), [9, 6, 5, 10, 7, 11, 2, 1, 0, 4, 3, 8]);
    }

    #[test]
    fn every_position_gets_every_sample_about_equally_often() {
        let mut counts = [[0u32; 5]; 5];
        for epoch in 0..10_000 {
            for (position, sample) in epoch_order(Order::Shuffled { seed: 1 }, epoch, 5).iter().enumerate() {
                counts[position][*sample as usize] += 1;
            }
        }
        // 2000 expected, with a standard deviation of 40.
        assert!(counts.iter().flatten().all(|count| (1800..2200).contains(count)), "{counts:?}");
    }
}
