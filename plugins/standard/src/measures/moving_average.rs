//! `moving-average`: moving averages of metrics, as tensorpack's `MovingAverageSummary`.
//!
//! An exponential average is `Σ decayᵏ·vₖ / Σ decayᵏ` over the values, newest first: the division corrects it for the values that
//! there were not yet (Kingma and Ba 2015, section 3), so that it does not begin at 0.

use std::collections::{BTreeMap, VecDeque};

use monitor::selected;
use plugin_api::event::At;
use plugin_api::protocol::Point;
use plugin_api::{Callback, Creation, Error, Result, Run, decode_state, encode_state, plugin};
use serde::{Deserialize, Serialize};

use crate::metric_patterns::{refuse_empty, refuse_unknown};

/// What follows the name of a metric in that of its average.
const SUFFIX: &str = "_average";

/// The metric that is the loss of the present step.
const STEP_LOSS: &str = "step_loss";

/// Options of `moving-average`.
#[plugin]
pub(crate) struct Options {
    /// The metrics to average; `*` stands for any characters. Averages themselves are left out.
    metrics: Vec<String>,
    /// The weight of the average so far when a value joins it: the nearer to 1, the smoother.
    #[schemars(range(min = 0.0, max = 1.0))]
    decay: f64,
    /// The plain mean of this number of last values, instead of `decay`.
    #[schemars(range(min = 1, max = 1_000_000))]
    window: Option<usize>,
    /// The number of steps between two puts within an epoch; 0 puts the averages only at its end. Every put is a point of the
    /// history, which all checkpoints hold.
    every_steps: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { metrics: vec![STEP_LOSS.to_owned()], decay: 0.95, window: None, every_steps: 0 }
    }
}

/// The average of one metric; in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Average {
    /// The global step of the last value.
    counted: Option<u64>,
    /// The weighted sum of the values, and of their weights.
    sum: f64,
    weight: f64,
    /// With `window`, the last values, oldest first.
    values: VecDeque<f64>,
}

pub(crate) struct MovingAverage {
    options: Options,
    averages: BTreeMap<String, Average>,
}

#[plugin]
impl Callback for MovingAverage {
    const KIND: &'static str = "moving-average";
    const SUMMARY: &'static str = "Puts moving averages of metrics";
    const BY_DEFAULT: bool = false;
    const PRODUCES: &'static [&'static str] = &["*_average"];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        refuse_empty("metrics", &options.metrics)?;
        if !(0.0..1.0).contains(&options.decay) {
            return Err(Error::new(format!("`decay` is {}: set it to 0 or more, and less than 1", options.decay)));
        }
        if options.window == Some(0) {
            return Err(Error::new("`window` is 0: set it to 1 value or more, or leave it out"));
        }
        Ok(Self { options, averages: BTreeMap::new() })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        // A host that trains in another way may have no loss of a step.
        if self.options.metrics == Options::default().metrics {
            return Ok(());
        }
        refuse_unknown(run, "metrics", &self.options.metrics)
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.averages = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.averages)
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        // Reading all metrics at each step would take longer than all the rest of this.
        if self.options.metrics == [STEP_LOSS] {
            let point = Point { epoch: event.epoch, global_step: event.global_step, value: run.loss()? };
            self.join(STEP_LOSS.to_owned(), point);
        } else {
            self.count(run)?;
        }
        let every = self.options.every_steps;
        if every != 0 && event.global_step.is_multiple_of(every) { self.put(run) } else { Ok(()) }
    }

    // What is measured after the last step of an epoch joins here.
    fn on_epoch_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.count(run)?;
        self.put(run)
    }
}

impl MovingAverage {
    fn count(&mut self, run: &Run<'_>) -> Result<()> {
        for (name, point) in run.metric_points()? {
            if !name.ends_with(SUFFIX) && selected(&self.options.metrics, &[], &name) {
                self.join(name, point);
            }
        }
        Ok(())
    }

    /// Lets each value join once: one that is still the latest some steps later does not join again.
    fn join(&mut self, name: String, point: Point) {
        let average = self.averages.entry(name).or_default();
        if average.counted != Some(point.global_step) {
            average.counted = Some(point.global_step);
            average.join(point.value, &self.options);
        }
    }

    fn put(&self, run: &mut Run<'_>) -> Result<()> {
        for (name, average) in &self.averages {
            if let Some(value) = average.value() {
                run.put_metric(&format!("{name}{SUFFIX}"), value)?;
            }
        }
        Ok(())
    }
}

impl Average {
    fn join(&mut self, value: f64, options: &Options) {
        // One NaN would be part of all averages after it.
        if !value.is_finite() {
            return;
        }
        match options.window {
            Some(window) => {
                self.values.push_back(value);
                while self.values.len() > window {
                    self.values.pop_front();
                }
                // Summed up anew: a running sum would collect rounding errors.
                (self.sum, self.weight) = (self.values.iter().sum(), self.values.len() as f64);
            }
            None => {
                self.sum = options.decay * self.sum + value;
                self.weight = options.decay * self.weight + 1.0;
            }
        }
    }

    /// `None` before the first value.
    fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    /// Takes a step after which `a` has this value.
    fn step(host: &mut FakeHost, step: u64, value: f64) {
        host.set_position(1, step);
        host.put_metric("a", value);
        host.step_end(step).unwrap();
    }

    fn averages(options: serde_json::Value, values: &[f64]) -> Vec<Option<f64>> {
        let mut host = FakeHost::new::<MovingAverage>(options).unwrap();
        let mut averages = Vec::new();
        for (index, &value) in values.iter().enumerate() {
            step(&mut host, index as u64 + 1, value);
            averages.push(host.metric("a_average"));
        }
        averages
    }

    #[test]
    fn an_exponential_average_begins_at_the_first_value_and_forgets_it() {
        let options = json!({ "metrics": ["a"], "decay": 0.5, "every_steps": 1 });
        let expected = [4.0, (2.0 + 1.0) / 1.5, (1.0 + 0.5 + 1.0) / 1.75].map(Some);
        assert_eq!(averages(options, &[4.0, 1.0, 1.0]), expected);
    }

    #[test]
    fn a_window_has_the_mean_of_the_last_values() {
        let options = json!({ "metrics": ["a"], "window": 2, "every_steps": 1 });
        assert_eq!(averages(options, &[1.0, 3.0, 5.0]), [1.0, 2.0, 4.0].map(Some));
    }

    #[test]
    fn a_value_that_is_no_number_spoils_nothing() {
        for options in [json!({ "window": 2 }), json!({ "decay": 0.5 })] {
            let mut options = options;
            options["metrics"] = json!(["a"]);
            options["every_steps"] = json!(1);
            assert_eq!(
                averages(options, &[f64::NAN, 2.0, f64::INFINITY, 2.0]),
                [None, Some(2.0), Some(2.0), Some(2.0)]
            );
        }
    }

    #[test]
    fn a_value_joins_once_and_averages_are_not_averaged() {
        let mut host = FakeHost::new::<MovingAverage>(json!({ "metrics": ["*"], "decay": 0.5 })).unwrap();
        host.set_position(1, 10);
        host.put_metric("val_loss", 4.0);
        host.epoch_end(1).unwrap();
        for number in 11..20 {
            host.step_end(number).unwrap();
        }
        host.set_position(2, 20);
        host.put_metric("val_loss", 1.0);
        host.epoch_end(2).unwrap();
        assert_eq!(host.metric("val_loss_average"), Some(2.0));
        assert_eq!(host.metric("val_loss_average_average"), None);
        assert!(host.descriptor().produces.iter().any(|name| name == "*_average"));
    }

    #[test]
    fn within_an_epoch_nothing_is_put_unless_it_is_asked_for() {
        let options = |every: u64| json!({ "metrics": ["a"], "every_steps": every });
        assert_eq!(averages(options(0), &[1.0, 1.0, 1.0]), [None; 3]);
        assert_eq!(averages(options(2), &[1.0, 1.0, 1.0]), [None, Some(1.0), Some(1.0)]);
    }

    #[test]
    fn a_resumed_run_has_the_averages_of_an_unbroken_one() {
        for options in [json!({ "metrics": ["a"], "window": 4 }), json!({ "metrics": ["a"], "decay": 0.9 })] {
            let mut unbroken = FakeHost::new::<MovingAverage>(options.clone()).unwrap();
            for number in 1..=3 {
                step(&mut unbroken, number, number as f64);
            }
            let mut resumed = FakeHost::new::<MovingAverage>(options).unwrap();
            resumed.load_state(&unbroken.save_state().unwrap()).unwrap();
            for host in [&mut unbroken, &mut resumed] {
                step(host, 4, 9.0);
                step(host, 5, 1.0);
                host.epoch_end(1).unwrap();
            }
            assert!(resumed.metric("a_average").is_some());
            assert_eq!(unbroken.metric("a_average"), resumed.metric("a_average"));
        }
    }

    #[test]
    fn wrong_options_are_refused() {
        let message = |options| FakeHost::new::<MovingAverage>(options).err().unwrap().message().to_owned();
        assert_eq!(message(json!({ "decay": 1.0 })), "`decay` is 1: set it to 0 or more, and less than 1");
        assert_eq!(message(json!({ "window": 0 })), "`window` is 0: set it to 1 value or more, or leave it out");
        assert!(message(json!({ "metrics": ["a", ""] })).starts_with("`metrics` has an empty name"));
        let host = FakeHost::new::<MovingAverage>(json!({ "metrics": ["val_los"] })).unwrap();
        let mut host = host.with_info(|info| info.metrics = vec!["val_loss".to_owned()]);
        assert!(host.setup().unwrap_err().message().ends_with("did you mean `val_loss`?"));
    }
}
