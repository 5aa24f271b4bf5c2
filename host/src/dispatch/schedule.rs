//! When an instance's `trigger` comes; only the host decides it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{At, Every, When};
use crate::history::Position;

/// A moment at which triggers may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After all `epoch_end` hooks.
    EpochEnd,
    /// After all `step_end` hooks.
    StepEnd,
    /// After an evaluation that interrupted an epoch.
    Evaluated,
    /// Before `train_end`, unless the run has failed.
    End,
    /// When a failure has ended the run.
    Failure,
}

/// What a schedule must remember across a resume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// The best value so far, by metric.
    #[serde(default)]
    pub best: BTreeMap<String, f64>,
    /// Run time of the last trigger by time, in seconds.
    #[serde(default)]
    pub last_time: f64,
    /// How many intervals have passed, including those of `skip_first`.
    #[serde(default)]
    pub intervals: u64,
}

/// One instance's schedule.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    when: When,
    pub(super) state: ScheduleState,
}

impl Schedule {
    pub(super) fn new(when: When) -> Self {
        Self { when, state: ScheduleState::default() }
    }

    /// Whether it must be checked after each step.
    pub(super) fn by_step(&self) -> bool {
        matches!(self.when.every, Some(Every::Steps(_) | Every::Time(_)))
            || self.when.at.iter().any(|at| matches!(at, At::Step(_)))
    }

    /// The cause of a trigger at `moment`, if there is one. Several causes at one moment are one trigger.
    ///
    /// `elapsed` is the run's time over all its processes.
    pub(super) fn due(
        &mut self,
        moment: Moment,
        position: Position,
        elapsed: Duration,
        mut metric: impl FnMut(&str) -> Option<f64>,
    ) -> Option<String> {
        let mut cause = None;
        match (moment, self.when.every) {
            (Moment::EpochEnd, Some(Every::Epochs(every)))
                if is_multiple(position.epoch, every.get(), self.when.skip_first) =>
            {
                cause = Some("epoch".to_owned());
            }
            (Moment::StepEnd, Some(Every::Steps(every)))
                if is_multiple(position.global_step, every.get(), self.when.skip_first) =>
            {
                cause = Some("step".to_owned());
            }
            (Moment::StepEnd, Some(Every::Time(every))) => {
                let elapsed = elapsed.as_secs_f64();
                if elapsed - self.state.last_time >= every.as_secs_f64() {
                    self.state.last_time = elapsed;
                    self.state.intervals += 1;
                    if self.state.intervals > self.when.skip_first {
                        cause = Some("time".to_owned());
                    }
                }
            }
            _ => {}
        }
        let at = self.when.at.iter().any(|at| match (moment, at) {
            (Moment::EpochEnd, At::Epoch(epoch)) => epoch.get() == position.epoch,
            (Moment::StepEnd, At::Step(step)) => step.get() == position.global_step,
            (Moment::End, At::End) | (Moment::Failure, At::Failure) => true,
            _ => false,
        });
        if at {
            let name = match moment {
                Moment::End => "end",
                Moment::Failure => "failure",
                _ => "at",
            };
            cause = Some(name.to_owned());
        }
        if matches!(moment, Moment::EpochEnd | Moment::Evaluated) {
            for (name, mode) in &self.when.best {
                let Some(value) = metric(name) else { continue };
                let best = self.state.best.get(name).copied();
                // A first NaN is not a best value; `better` handles a later one.
                if !value.is_nan() && best.is_none_or(|best| mode.better(value, best)) {
                    self.state.best.insert(name.clone(), value);
                    cause = Some(format!("best {name}"));
                }
            }
        }
        cause
    }
}

fn is_multiple(number: u64, every: u64, skip_first: u64) -> bool {
    number > skip_first && number.is_multiple_of(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(when: &str) -> Schedule {
        Schedule::new(serde_json::from_value(toml::from_str(when).unwrap()).unwrap())
    }

    fn epochs(when: &str, count: u64) -> Vec<u64> {
        let mut schedule = schedule(when);
        (1..=count)
            .filter(|&epoch| {
                let position = Position { epoch, ..Position::default() };
                schedule.due(Moment::EpochEnd, position, Duration::ZERO, |_| None).is_some()
            })
            .collect()
    }

    #[test]
    fn every_counts_multiples_later_than_skip_first() {
        assert_eq!(epochs("every = '1 epoch'", 4), [1, 2, 3, 4]);
        assert_eq!(epochs("every = '5 epochs'", 16), [5, 10, 15]);
        assert_eq!(epochs("every = '2 epochs'\nskip_first = 4", 9), [6, 8]);
        assert_eq!(epochs("at = ['epoch 3', 'epoch 5']", 9), [3, 5]);
        assert_eq!(epochs("at = ['epoch 3']\nevery = '3 epochs'", 6), [3, 6]);
    }

    #[test]
    fn best_ignores_nan_and_needs_to_be_better() {
        let mut schedule = schedule("best = { val_loss = 'min' }");
        let mut due =
            |value: f64| schedule.due(Moment::EpochEnd, Position::default(), Duration::ZERO, |_| Some(value)).is_some();
        assert_eq!([f64::NAN, 2.0, 2.0, f64::NAN, 1.0, 1.5].map(&mut due), [false, true, false, false, true, false]);
    }

    #[test]
    fn time_counts_intervals() {
        let mut schedule = schedule("every = '10 s'\nskip_first = 1");
        let mut due = |seconds| {
            schedule.due(Moment::StepEnd, Position::default(), Duration::from_secs(seconds), |_| None).is_some()
        };
        assert_eq!([5, 10, 15, 20, 29, 31].map(&mut due), [false, false, false, true, false, true]);
    }

    #[test]
    fn the_end_comes_once() {
        let mut schedule = schedule("at = ['end']");
        let mut due = |moment| schedule.due(moment, Position::default(), Duration::ZERO, |_| None);
        assert_eq!(due(Moment::EpochEnd), None);
        assert_eq!(due(Moment::End).as_deref(), Some("end"));
    }
}
