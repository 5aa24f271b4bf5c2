//! The progress of a run.

use std::time::Duration;

use plugin_api::event::{Failed, Position};
use serde::Serialize;

/// The progress of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// `running`, or the outcome: `finished`, `stopped`, `failed`, `interrupted`.
    pub state: String,
    /// The current activity of a running one: `training`, `evaluating val`.
    pub doing: String,
    /// The epoch in progress.
    pub epoch: u64,
    /// The global step.
    pub step: u64,
    /// Seconds since the run started; the page decides whether those of earlier processes count.
    pub elapsed: f64,
    /// Seconds, estimated from the average speed.
    pub time_left: Option<f64>,
    /// Steps per second.
    pub rate: Option<f64>,
    /// Why it ended, and what failed.
    pub reason: String,
}

impl Progress {
    /// A run that starts at `position`.
    pub fn running(position: &Position) -> Self {
        let (epoch, step) = (position.epoch, position.global_step);
        Self { state: "running".to_owned(), doing: "training".to_owned(), epoch, step, ..Self::default() }
    }

    /// Updates the position.
    pub fn at(&mut self, position: &Position) {
        (self.epoch, self.step) = (position.epoch, position.global_step);
    }

    /// The time left for `total_steps`, by the average of the steps since `first_step`, which took `time`. Evaluations
    /// are included, since they happen again.
    pub fn estimate(&mut self, first_step: u64, total_steps: u64, time: Duration) {
        let done = self.step.saturating_sub(first_step);
        let each = (done > 0).then(|| time.as_secs_f64() / done as f64);
        self.time_left =
            each.filter(|_| total_steps > 0).map(|each| each * total_steps.saturating_sub(self.step) as f64);
    }

    /// Records a failure.
    pub fn failed(&mut self, event: &Failed<'_>) {
        self.because(&format!("`{}` failed in `{}`: {}", event.by, event.hook, event.message));
    }

    /// Adds a reason.
    pub fn because(&mut self, reason: &str) {
        if reason.is_empty() || self.reason.contains(reason) {
            return;
        }
        if !self.reason.is_empty() {
            self.reason.push_str("; ");
        }
        self.reason.push_str(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_counts_what_this_process_did() {
        let mut progress = Progress { step: 600, ..Progress::default() };
        progress.estimate(500, 1000, Duration::from_secs(10));
        assert_eq!(progress.time_left, Some(40.0));
        progress.estimate(600, 1000, Duration::from_secs(10));
        assert_eq!(progress.time_left, None, "no step is done yet");
        progress.estimate(500, 0, Duration::from_secs(10));
        assert_eq!(progress.time_left, None, "the end is unknown");
        progress.estimate(500, 550, Duration::from_secs(10));
        assert_eq!(progress.time_left, Some(0.0));
    }

    #[test]
    fn each_reason_is_told_once() {
        let mut progress = Progress::default();
        for reason in ["the loss is NaN", "", "the loss is NaN", "the disk is full"] {
            progress.because(reason);
        }
        assert_eq!(progress.reason, "the loss is NaN; the disk is full");
    }
}
