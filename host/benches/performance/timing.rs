//! Rounds of measurements that take turns.

use std::time::{Duration, Instant};

use crate::Result;

/// The times of one contestant, in seconds, one per round.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<f64>);

impl Times {
    pub fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64());
    }

    /// The shortest: other work of the machine only adds time.
    pub fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn median(&self) -> f64 {
        median(self.0.clone())
    }

    /// The median over the rounds of `self / other`, which compares measurements that are close in time.
    pub fn median_ratio(&self, other: &Self) -> f64 {
        median(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

/// The time of `body`.
pub fn time(body: impl FnOnce()) -> Duration {
    let start = Instant::now();
    body();
    start.elapsed()
}

/// Lets the contestants take turns for `rounds` rounds, after one that does not count; each returns its time.
pub fn take_turns<const N: usize>(
    rounds: usize,
    contestants: [&mut dyn FnMut() -> Result<Duration>; N],
) -> Result<[Times; N]> {
    let mut times: [Times; N] = std::array::from_fn(|_| Times::default());
    for round in 0..=rounds {
        for turn in 0..N {
            // Another one starts each round, so that none is always first after a pause.
            let index = (turn + round) % N;
            let time = contestants[index]()?;
            if round > 0 {
                times[index].push(time);
            }
        }
    }
    Ok(times)
}
