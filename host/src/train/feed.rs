//! The input of the training: the data, and the batches of the training split.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tch::Tensor;

use super::error::TrainError;
use super::limits::Limits;
use crate::data::{Batch, Data, LoadedBatch, Loader, LoaderOptions, Order, TRAIN};
use crate::distributed::Share;
use crate::history::Position;

/// A seed other than the run's, so that steps outside the run do not repeat the batches that come next.
const APART: u64 = 0x9e37_79b9_7f4a_7c15;

/// How the training split becomes batches, and these become updates. No part of it depends on how many ranks there are.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    /// Samples of a batch, of all ranks together.
    pub size: usize,
    /// Batches of one update.
    pub accumulate: u64,
    /// The samples' order in an epoch.
    pub order: Order,
    /// Whether an epoch ends without a last batch that is smaller than the others.
    pub drop_last: bool,
}

/// The data and its batches.
pub(super) struct Feed {
    /// Shared with what answers callbacks in the background.
    pub(super) data: Arc<Data>,
    /// The batches of the training; none for a job that does not train.
    loader: Option<Loader>,
    pub(super) batches: Batches,
    pub(super) limits: Limits,
    /// The slice of each batch that this rank trains on.
    share: Share,
    /// The batches of steps outside the run, until its next epoch.
    apart: Option<Apart>,
    /// How long the loop had waited for data when the epoch began.
    waited_before: Duration,
}

/// Training batches outside the run's own order: those of one call of a service, and of the next one that goes on. They are
/// whole on each rank.
pub(super) struct Apart {
    epoch: u64,
    /// The number of the next batch.
    next: u64,
    loader: Loader,
}

impl Apart {
    pub(super) fn next_batch(&mut self) -> Result<Batch, TrainError> {
        self.next += 1;
        Ok(self.loader.next_batch()?.batch)
    }
}

/// This rank's samples of one update, on the CPU; maybe none.
pub(super) struct StepBatch {
    pub(super) inputs: Tensor,
    /// The inputs beside the samples.
    pub(super) others: Vec<Tensor>,
    pub(super) targets: Tensor,
}

/// How many samples the batches of one update have.
#[derive(Debug, Default)]
pub(super) struct StepSizes {
    /// Those of this rank's share of each batch, in the order of [`StepBatch`]; maybe 0.
    pub(super) own: Vec<i64>,
    /// Those of all ranks, of each batch; at least 1. The run's position counts by them.
    pub(super) global: Vec<i64>,
}

impl StepSizes {
    /// Batches of the update.
    pub(super) fn batches(&self) -> usize {
        self.own.len()
    }

    fn clear(&mut self) {
        self.own.clear();
        self.global.clear();
    }

    fn push(&mut self, loaded: &LoadedBatch) {
        self.own.push(loaded.batch.size as i64);
        self.global.push(loaded.global_size as i64);
    }
}

impl Feed {
    /// This rank's `share` of the batches from `position` on.
    pub(super) fn new(
        data: Data,
        batches: Batches,
        limits: Limits,
        position: Position,
        share: Share,
    ) -> Result<Self, TrainError> {
        let mut feed = Self { limits, share, ..Self::idle(data, batches) };
        feed.restart(position)?;
        Ok(feed)
    }

    /// For a job that does not train: the data may lack the split `train`.
    pub(super) fn idle(data: Data, batches: Batches) -> Self {
        Self {
            data: Arc::new(data),
            loader: None,
            batches,
            limits: Limits::default(),
            share: Share::whole(),
            apart: None,
            waited_before: Duration::ZERO,
        }
    }

    /// Updates of one epoch.
    pub(super) fn steps_per_epoch(&self) -> u64 {
        let batches = self.loader.as_ref().map_or(0, Loader::batches_per_epoch);
        (batches as u64).div_ceil(self.batches.accumulate)
    }

    /// Samples that an epoch trains on, of all ranks together.
    pub(super) fn samples_per_epoch(&self) -> u64 {
        let (all, size) = (self.training_samples(), self.batches.size.max(1) as u64);
        let all = if self.batches.drop_last { all / size * size } else { all };
        self.limits.of_epoch().map_or(all, |batches| all.min(batches.saturating_mul(size)))
    }

    /// Samples of the training split.
    pub(super) fn training_samples(&self) -> u64 {
        self.data.splits.get(TRAIN).map_or(0, |split| split.len() as u64)
    }

    /// How long the loop waited for data in all.
    pub(super) fn waited(&self) -> Duration {
        self.loader.as_ref().map_or(Duration::ZERO, Loader::waited)
    }

    pub(super) fn begin_epoch(&mut self) {
        self.apart = None;
        self.waited_before = self.waited();
    }

    /// How long the loop waited for data since the epoch began.
    pub(super) fn waited_in_epoch(&self) -> Duration {
        self.waited().saturating_sub(self.waited_before)
    }

    /// This rank's share of the batches of the next update, joined; `sizes` gets how many samples of each it is.
    pub(super) fn next_step(&mut self, sizes: &mut StepSizes) -> Result<StepBatch, TrainError> {
        let Some(loader) = &mut self.loader else { return Err(no_training()) };
        let first = loader.next_batch()?;
        sizes.clear();
        sizes.push(&first);
        let Batch { inputs, others, targets, .. } = first.batch;
        if self.batches.accumulate == 1 {
            return Ok(StepBatch { inputs, others, targets });
        }
        let mut others: Vec<Vec<Tensor>> = others.into_iter().map(|other| vec![other]).collect();
        let (mut is_last, mut parts) = (first.is_last, (vec![inputs], vec![targets]));
        while !is_last && sizes.batches() < self.batches.accumulate as usize {
            let next = loader.next_batch()?;
            is_last = next.is_last;
            sizes.push(&next);
            parts.0.push(next.batch.inputs);
            parts.1.push(next.batch.targets);
            others.iter_mut().zip(next.batch.others).for_each(|(parts, next)| parts.push(next));
        }
        let others = others.iter().map(|parts| Tensor::f_cat(parts, 0)).collect::<Result<_, _>>()?;
        Ok(StepBatch { inputs: Tensor::f_cat(&parts.0, 0)?, others, targets: Tensor::f_cat(&parts.1, 0)? })
    }

    /// Begins again at `position`: the prefetched batches belong to an epoch that was cut short.
    pub(super) fn restart(&mut self, position: Position) -> Result<(), TrainError> {
        let batches = self.batches;
        let split = self.data.split(TRAIN)?;
        let options = LoaderOptions {
            batch_size: batches.size,
            drop_last: batches.drop_last,
            most_batches: self.limits.of_epoch(),
            order: batches.order,
            first_epoch: position.epoch.max(1),
            // Before the first epoch, its first batch; the loader continues into the next epoch by itself.
            // There may be fewer than when the checkpoint was taken, where the command accepts that.
            first_batch: (position.step.saturating_mul(batches.accumulate) as usize)
                .min(split.len().div_ceil(batches.size.max(1))),
            last_epoch: None,
            share: self.share,
            augmentation: self.data.augmentation.clone(),
        };
        self.loader = Some(Loader::start(Arc::clone(split), options)?);
        Ok(())
    }

    /// Training batches outside the run's own order, from the batch `first` of those of `epoch` on.
    pub(super) fn apart(&mut self, epoch: u64, first: u64) -> Result<&mut Apart, TrainError> {
        let apart = match self.apart.take().filter(|apart| (apart.epoch, apart.next) == (epoch, first)) {
            Some(apart) => apart,
            None => Apart { epoch, next: first, loader: self.loader_apart(epoch, first)? },
        };
        Ok(self.apart.insert(apart))
    }

    fn loader_apart(&self, epoch: u64, first: u64) -> Result<Loader, TrainError> {
        let order = match self.batches.order {
            Order::Shuffled { seed } => Order::Shuffled { seed: seed ^ APART },
            Order::Sequential => Order::Sequential,
        };
        let (split, size) = (self.data.split(TRAIN)?, self.batches.size.max(1));
        let batches = if self.batches.drop_last { split.len() / size } else { split.len().div_ceil(size) };
        let batches = batches.max(1) as u64;
        let options = LoaderOptions {
            batch_size: self.batches.size,
            drop_last: self.batches.drop_last,
            most_batches: None,
            order,
            first_epoch: epoch.max(1).saturating_add(first / batches),
            first_batch: (first % batches) as usize,
            last_epoch: None,
            share: Share::whole(),
            augmentation: self.data.augmentation.clone(),
        };
        Ok(Loader::start(Arc::clone(split), options)?)
    }
}

/// The whole batches of a split in its own order, once, whichever rank this is.
pub(super) fn in_order(data: &Data, split: &str, batch_size: usize) -> Result<Loader, TrainError> {
    run_of_batches(data, split, batch_size, 0..usize::MAX)
}

/// Those of these numbers, from 0.
pub(super) fn run_of_batches(
    data: &Data,
    split: &str,
    batch_size: usize,
    numbers: Range<usize>,
) -> Result<Loader, TrainError> {
    let options = LoaderOptions {
        batch_size,
        drop_last: false,
        most_batches: Some(numbers.end as u64),
        order: Order::Sequential,
        first_epoch: 1,
        first_batch: numbers.start,
        last_epoch: Some(1),
        share: Share::whole(),
        augmentation: None,
    };
    Ok(Loader::start(Arc::clone(data.split(split)?), options)?)
}

/// The error of a job that does not train and is asked to.
fn no_training() -> TrainError {
    let source = std::io::Error::other("this job does not train");
    TrainError::System { action: "cannot load a batch of the training split", source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataOptions, Source};

    /// Ten samples, the numbers from 1 on.
    fn data() -> Data {
        let options: DataOptions =
            toml::from_str("format = \"csv\"\npath = \"a.csv\"\ntarget = [1]\nnormalize = \"none\"").unwrap();
        let rows: String = (1..=10).map(|number| format!("{number},0\n")).collect();
        Data::load(&options, Source::Bytes(rows.as_bytes()), 1).unwrap()
    }

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.reshape([-1])).unwrap()
    }

    fn feed(share: Share, position: Position) -> Feed {
        let batches = Batches { size: 4, accumulate: 2, order: Order::Sequential, drop_last: false };
        Feed::new(data(), batches, Limits::default(), position, share).unwrap()
    }

    #[test]
    fn each_rank_trains_on_its_slice_of_each_batch_of_an_update() {
        let steps = |share| {
            let (mut feed, mut sizes) = (feed(share, Position::default()), StepSizes::default());
            assert_eq!((feed.steps_per_epoch(), feed.samples_per_epoch()), (2, 10));
            [(); 3].map(|()| {
                let step = feed.next_step(&mut sizes).unwrap();
                assert_eq!(step.targets.size()[0], step.inputs.size()[0]);
                (numbers(&step.inputs), sizes.own.clone(), sizes.global.clone())
            })
        };
        let first = |numbers: &[f32], own: [i64; 2]| (numbers.to_vec(), own.to_vec(), vec![4, 4]);
        let last = |numbers: &[f32], own: i64| (numbers.to_vec(), vec![own], vec![2]);
        let whole = steps(Share::whole());
        assert_eq!(whole[0], first(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [4, 4]));
        assert_eq!(whole[1], last(&[9.0, 10.0], 2));
        assert_eq!(whole[2], whole[0]);
        let ranks = [0, 1, 2].map(|rank| steps(Share::new(rank, 3)));
        assert_eq!(ranks[0][0], first(&[1.0, 2.0, 5.0, 6.0], [2, 2]));
        assert_eq!(ranks[1][0], first(&[3.0, 7.0], [1, 1]));
        assert_eq!(ranks[2][0], first(&[4.0, 8.0], [1, 1]));
        let lasts = [last(&[9.0], 1), last(&[10.0], 1), last(&[], 0)];
        assert_eq!(ranks.clone().map(|steps| steps[1].clone()), lasts);
        assert_eq!(ranks.clone().map(|steps| steps[2].clone()), ranks.map(|steps| steps[0].clone()));
    }

    #[test]
    fn a_rank_goes_on_in_the_middle_of_an_epoch_and_after_a_restart() {
        let position = Position { epoch: 1, step: 1, ..Position::default() };
        let mut feed = feed(Share::new(1, 2), position);
        let next = |feed: &mut Feed| numbers(&feed.next_step(&mut StepSizes::default()).unwrap().inputs);
        assert_eq!(next(&mut feed), [10.0]);
        assert_eq!(next(&mut feed), [3.0, 4.0, 7.0, 8.0]);
        feed.restart(position).unwrap();
        assert_eq!(next(&mut feed), [10.0]);
    }

    #[test]
    fn batches_outside_the_run_are_whole_on_each_rank() {
        let mut feed = feed(Share::new(1, 2), Position::default());
        let apart = feed.apart(1, 0).unwrap();
        assert_eq!(numbers(&apart.next_batch().unwrap().inputs), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(in_order(&data(), TRAIN, 8).unwrap().next_batch().unwrap().batch.size, 8);
    }

    #[test]
    fn a_run_of_batches_has_those_of_the_whole_and_nothing_after_it() {
        let of = |share: Share| {
            let own = share.range(3);
            let mut loader = run_of_batches(&data(), TRAIN, 4, own.clone()).unwrap();
            let batches: Vec<_> = own.map(|_| numbers(&loader.next_batch().unwrap().batch.inputs)).collect();
            assert!(loader.next_batch().is_err());
            batches
        };
        let whole = of(Share::whole());
        assert_eq!(whole.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!([0, 1].map(|rank| of(Share::new(rank, 2))).concat(), whole);
    }
}
