//! `throughput`: how fast a run trains and how long it will still take, as metrics at the end of an epoch; as tensorpack's
//! `ThroughputTracker` and `EstimatedTimeLeft`.
//!
//! The speed is that of the steps, with the wait for their data but without the time of callbacks between them. The time left is
//! that of everything: of steps, callbacks, evaluations and checkpoints. Both are of this process, since a resumed run may be on
//! another machine; so nothing is saved.

use std::collections::VecDeque;
use std::time::Instant;

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Error, EventKind, Result, Run, plugin};

/// The hooks that are part of a step's time.
const OF_A_STEP: [EventKind; 3] = [EventKind::STEP_START, EventKind::GRADIENTS, EventKind::STEP_END];

/// Options of `throughput`.
#[plugin]
pub(crate) struct Options {
    /// The number of last epochs whose median time per step says how long the rest takes.
    #[schemars(range(min = 1, max = 10_000))]
    last_epochs: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { last_epochs: 5 }
    }
}

/// Where an interval began: the steps and samples of the run, and the time.
struct Mark {
    steps: u64,
    samples: u64,
    time: Instant,
}

pub(crate) struct Throughput {
    options: Options,
    /// The steps planned in all; 0 if the plan does not say how many.
    total_steps: u64,
    /// The end of the epoch before, or the start of this process.
    last: Option<Mark>,
    /// The seconds of all callbacks in steps up to `last`.
    callbacks: f64,
    /// Seconds per step of the last epochs, oldest first.
    paces: VecDeque<f64>,
}

#[plugin]
impl Callback for Throughput {
    const KIND: &'static str = "throughput";
    const SUMMARY: &'static str = "Puts samples and steps per second and the time left";
    const BY_DEFAULT: bool = false;
    const PRODUCES: &'static [&'static str] = &["samples_per_second", "steps_per_second", "time_left_seconds"];
    const READS: &'static [&'static str] = &["step_seconds"];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.last_epochs == 0 {
            return Err(Error::new("`last_epochs` is 0: set it to 1 epoch or more"));
        }
        Ok(Self { options, total_steps: 0, last: None, callbacks: 0.0, paces: VecDeque::new() })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.total_steps = run.info()?.total_steps;
        self.last = Some(Mark { steps: event.global_step, samples: event.samples, time: Instant::now() });
        Ok(())
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let now = Mark { steps: event.global_step, samples: event.samples, time: Instant::now() };
        let of_steps = run
            .hook_times()?
            .into_iter()
            .filter(|time| !time.background && OF_A_STEP.iter().any(|hook| hook.name() == time.hook));
        let callbacks = of_steps.map(|time| time.seconds).sum();
        let in_epoch = callbacks - std::mem::replace(&mut self.callbacks, callbacks);
        let Some(last) = &self.last else {
            self.last = Some(now);
            return Ok(());
        };
        let (steps, samples) = (now.steps.saturating_sub(last.steps), now.samples.saturating_sub(last.samples));
        let elapsed = now.time.duration_since(last.time).as_secs_f64();
        self.last = Some(now);
        if steps == 0 {
            return Ok(());
        }
        // The host's own measure: it begins with the wait for the data and ends after the step's last hook.
        let training = run.metric("step_seconds")? * steps as f64 - in_epoch;
        // The times of short hooks are estimates, which can be too long.
        if training > 0.0 {
            run.put_metric("samples_per_second", samples as f64 / training)?;
            run.put_metric("steps_per_second", steps as f64 / training)?;
        }
        self.paces.push_back(elapsed / steps as f64);
        while self.paces.len() > self.options.last_epochs {
            self.paces.pop_front();
        }
        match self.total_steps.checked_sub(event.global_step) {
            Some(left) => run.put_metric("time_left_seconds", median(&self.paces) * left as f64),
            None => Ok(()),
        }
    }
}

/// The median of the seconds per step: one epoch in which the machine was busy, or the run paused, does not count.
fn median(paces: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = paces.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get((sorted.len().max(1) - 1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(&below), Some(&above)) => f64::midpoint(below, above),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plugin_api::protocol::HookTime;
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    fn time(hook: &str, background: bool, seconds: f64) -> HookTime {
        let (instance, hook) = ("slow".to_owned(), hook.to_owned());
        HookTime { instance, hook, background, calls: 10, seconds, longest_seconds: seconds }
    }

    #[test]
    fn the_speed_is_without_the_time_of_callbacks() {
        let mut host = FakeHost::new::<Throughput>(json!({})).unwrap();
        host.train_start().unwrap();
        host.put_metric("step_seconds", 0.3);
        host.set_hook_times(vec![
            time("step_end", false, 0.5),
            time("gradients", false, 0.25),
            time("step_start", false, 0.25),
            time("step_end", true, 100.0),
            time("epoch_end", false, 100.0),
            time("trigger", false, 100.0),
        ]);
        host.epoch_end(1).unwrap();
        // 10 steps of 32 samples in 3 seconds, 1 of which callbacks took.
        let rates =
            |host: &FakeHost| ["samples_per_second", "steps_per_second"].map(|name| host.metric(name).unwrap().round());
        assert_eq!(rates(&host), [160.0, 5.0]);
        host.set_hook_times(vec![time("step_end", false, 1.0)]);
        host.epoch_end(2).unwrap();
        assert_eq!(rates(&host), [107.0, 3.0], "the times of hooks count from the start of the process");
    }

    #[test]
    fn the_time_left_shrinks_to_nothing() {
        let mut host = FakeHost::new::<Throughput>(json!({})).unwrap();
        host.train_start().unwrap();
        host.put_metric("step_seconds", 0.1);
        let left: Vec<f64> = (1..=3)
            .map(|epoch| {
                std::thread::sleep(Duration::from_millis(20));
                host.epoch_end(epoch).unwrap();
                host.metric("time_left_seconds").unwrap()
            })
            .collect();
        assert!(left[0] >= 0.04 && left[1] >= 0.02 && left[2] == 0.0, "{left:?}");
    }

    #[test]
    fn a_run_without_a_known_end_has_no_time_left() {
        let mut host = FakeHost::new::<Throughput>(json!({})).unwrap().with_info(|info| info.total_steps = 0);
        host.train_start().unwrap();
        host.put_metric("step_seconds", 0.1);
        host.epoch_end(1).unwrap();
        assert_eq!((host.metric("time_left_seconds"), host.metric("steps_per_second").is_some()), (None, true));
    }

    #[test]
    fn a_resumed_run_counts_its_own_steps() {
        let mut host = FakeHost::new::<Throughput>(json!({})).unwrap();
        host.set_position(2, 15);
        host.train_start().unwrap();
        host.put_metric("step_seconds", 0.5);
        host.epoch_end(2).unwrap();
        assert_eq!(host.metric("samples_per_second"), Some(64.0));
    }

    #[test]
    fn one_slow_epoch_does_not_count() {
        assert_eq!(median(&VecDeque::from([1.0, 90.0, 1.5])), 1.5);
        assert_eq!(median(&VecDeque::from([1.0, 2.0])), 1.5);
        assert_eq!(median(&VecDeque::from([3.0])), 3.0);
        let error = FakeHost::new::<Throughput>(json!({ "last_epochs": 0 })).err().unwrap();
        assert_eq!(error.message(), "`last_epochs` is 0: set it to 1 epoch or more");
    }
}
