//! Where a training is: position, length, clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::control::Controls;
use crate::history::Position;

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Passes over the training split.
    Epochs(u64),
    /// Optimizer updates.
    Steps(u64),
}

/// When the run began, counting the time of the processes before this one.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    at: Instant,
    before: Duration,
}

impl Started {
    /// The run's time over all its processes.
    pub fn elapsed(&self) -> Duration {
        self.before + self.at.elapsed()
    }
}

/// Where the run is, for other threads.
#[derive(Debug, Default)]
pub struct LiveProgress {
    epoch: AtomicU64,
    step: AtomicU64,
    global_step: AtomicU64,
    samples: AtomicU64,
    /// The bits of an f64.
    fraction: AtomicU64,
}

impl LiveProgress {
    /// The position, and the progress from 0 to 1. Between two steps the parts may be of both.
    pub fn read(&self) -> (Position, f64) {
        let [epoch, step, global_step, samples] =
            [&self.epoch, &self.step, &self.global_step, &self.samples].map(|number| number.load(Ordering::Relaxed));
        let fraction = f64::from_bits(self.fraction.load(Ordering::Relaxed));
        (Position { epoch, step, global_step, samples }, fraction)
    }
}

/// The place from which the run's steps are counted in epochs of their present length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CountedFrom {
    epochs: u64,
    steps: u64,
}

impl CountedFrom {
    pub(super) fn is_start(&self) -> bool {
        *self == Self::default()
    }
}

/// Where the run is.
pub(super) struct Progress {
    pub(super) position: Position,
    pub(super) live: Arc<LiveProgress>,
    length: Length,
    pub(super) steps_per_epoch: u64,
    pub(super) total_steps: u64,
    /// How many epochs and steps were done before epochs got `steps_per_epoch`.
    counted_from: CountedFrom,
    /// Whether the epoch at `position` is over, including its evaluation and `epoch_end`.
    pub(super) epoch_is_over: bool,
    started: Started,
    epoch_began: Instant,
    /// Steps of the epoch in this process.
    pub(super) steps_in_process: u64,
    /// While a step is in progress whose update is not done: where the run was before it.
    before_step: Option<Position>,
}

impl Progress {
    /// At `position`, whose epoch is over.
    pub(super) fn new(position: Position, length: Length, steps_per_epoch: u64) -> Self {
        let now = Instant::now();
        let mut progress = Self {
            position,
            live: Arc::default(),
            length,
            steps_per_epoch,
            total_steps: 0,
            counted_from: CountedFrom::default(),
            epoch_is_over: true,
            started: Started { at: now, before: Duration::ZERO },
            epoch_began: now,
            steps_in_process: 0,
            before_step: None,
        };
        progress.count_from(CountedFrom::default());
        progress
    }

    /// Epochs have so many steps from the next one on.
    pub(super) fn set_steps_per_epoch(&mut self, steps: u64) {
        self.steps_per_epoch = steps;
        self.count_from(CountedFrom { epochs: self.position.epoch, steps: self.position.global_step });
    }

    pub(super) fn counted_from(&self) -> CountedFrom {
        self.counted_from
    }

    /// Counts the steps of the whole run: those of before, and whole epochs from there on.
    pub(super) fn count_from(&mut self, from: CountedFrom) {
        self.counted_from = from;
        self.total_steps = match self.length {
            Length::Steps(steps) => steps,
            // So many epochs that their steps cannot be counted never end anyway.
            Length::Epochs(epochs) => {
                let left = epochs.saturating_sub(from.epochs).saturating_mul(self.steps_per_epoch);
                from.steps.saturating_add(left)
            }
        };
    }

    /// The next epoch is `epoch`, as if those before it had been trained, on `samples` each.
    pub(super) fn start_at(&mut self, epoch: u64, samples: u64) {
        let before = epoch.saturating_sub(1);
        let (global_step, samples) = (before.saturating_mul(self.steps_per_epoch), before.saturating_mul(samples));
        self.position = Position { epoch: before, step: 0, global_step, samples };
    }

    /// Tells other threads where the run is.
    #[inline]
    pub(super) fn tell(&self) {
        let Position { epoch, step, global_step, samples } = self.position;
        let live = &*self.live;
        for (told, number) in
            [(&live.epoch, epoch), (&live.step, step), (&live.global_step, global_step), (&live.samples, samples)]
        {
            told.store(number, Ordering::Relaxed);
        }
        live.fraction.store(self.fraction().to_bits(), Ordering::Relaxed);
    }

    pub(super) fn started(&self) -> Started {
        self.started
    }

    /// Counts the time of the processes before this one.
    pub(super) fn set_time_before(&mut self, before: Duration) {
        self.started.before = before;
    }

    /// Epochs planned; 0 when the run is planned in steps.
    pub(super) fn planned_epochs(&self) -> u64 {
        match self.length {
            Length::Epochs(epochs) => epochs,
            Length::Steps(_) => 0,
        }
    }

    /// From 0 to 1.
    pub(super) fn fraction(&self) -> f64 {
        match self.length {
            Length::Steps(steps) => self.position.global_step as f64 / steps.max(1) as f64,
            // An epoch that was cut short counts as one.
            Length::Epochs(epochs) => {
                let done =
                    if self.epoch_is_over { 1.0 } else { self.position.step as f64 / self.steps_per_epoch as f64 };
                (self.position.epoch.saturating_sub(1) as f64 + if self.position.epoch == 0 { 0.0 } else { done })
                    / epochs.max(1) as f64
            }
        }
    }

    /// Whether everything planned is done. An epoch that was cut short counts as one.
    pub(super) fn plan_is_done(&self) -> bool {
        match self.length {
            Length::Epochs(epochs) => self.position.epoch >= epochs,
            Length::Steps(steps) => self.position.global_step >= steps,
        }
    }

    /// Whether no step of the epoch was done, so that `epoch_start` is due.
    pub(super) fn is_at_epoch_start(&self) -> bool {
        self.position.step == 0
    }

    /// Whether the epoch at the present position has no further step.
    pub(super) fn epoch_is_trained(&self) -> bool {
        self.epoch_is_over || self.position.step >= self.steps_per_epoch
    }

    /// Whether the epoch has another step, and no request to end it.
    pub(super) fn has_next_step(&self, controls: &Controls) -> bool {
        !controls.end_epoch
            && !controls.is_stopping()
            && self.position.step < self.steps_per_epoch
            && (matches!(self.length, Length::Epochs(_)) || self.position.global_step < self.total_steps)
    }

    /// Continues to the next epoch if the current one is over. Returns whether it did.
    pub(super) fn begin_epoch(&mut self) -> bool {
        let is_new = self.epoch_is_over;
        if is_new {
            self.position.epoch += 1;
            self.position.step = 0;
            self.epoch_is_over = false;
        }
        self.epoch_began = Instant::now();
        self.steps_in_process = 0;
        is_new
    }

    pub(super) fn begin_step(&mut self) {
        self.before_step = Some(self.position);
        self.position.step += 1;
        self.position.global_step += 1;
    }

    /// The update of the step is done.
    #[inline]
    pub(super) fn is_updated(&mut self) {
        self.before_step = None;
    }

    /// Goes back to before a step whose update is not done; the weights are those of that moment.
    pub(super) fn leave_step(&mut self) {
        if let Some(before) = self.before_step.take() {
            self.position = before;
        }
    }

    /// Seconds of the epoch in this process.
    pub(super) fn epoch_seconds(&self) -> f64 {
        self.epoch_began.elapsed().as_secs_f64()
    }

    /// The beginning of the epoch after this one.
    pub(super) fn next_epoch(&self) -> Position {
        Position { epoch: self.position.epoch + 1, step: 0, ..self.position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_another_length_count_from_where_they_begin() {
        let mut progress = Progress::new(Position::default(), Length::Epochs(5), 10);
        assert_eq!(progress.total_steps, 50);
        progress.position = Position { epoch: 2, step: 10, global_step: 20, samples: 0 };
        progress.set_steps_per_epoch(4);
        assert_eq!(progress.total_steps, 20 + 3 * 4);

        // A longer run that resumes two epochs later.
        let position = Position { epoch: 4, step: 4, global_step: 28, samples: 0 };
        let mut resumed = Progress::new(position, Length::Epochs(6), 4);
        resumed.count_from(progress.counted_from());
        assert_eq!(resumed.total_steps, 20 + 4 * 4);

        let mut in_steps = Progress::new(Position::default(), Length::Steps(7), 10);
        in_steps.set_steps_per_epoch(4);
        assert_eq!(in_steps.total_steps, 7);
    }
}
