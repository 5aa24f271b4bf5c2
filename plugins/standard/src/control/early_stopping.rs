//! `early-stopping`: ends a run that no longer improves.
//!
//! It checks the metric when it is triggered: by default after each epoch. A value that it has already seen (an
//! evaluation every second epoch) does not count again.
//!
//! The reason of a stop starts with a keyword for programs: `patience_exhausted`,
//! `stopping_threshold_reached`, `divergence_threshold_passed` or `non_finite_metric`.

use plugin_api::event::{At, TrainEnd, Trigger};
use plugin_api::protocol::{CopyAction, Point};
use plugin_api::{
    Callback, Creation, Direction, Error, ErrorKind, Need, Ranks, Result, Run, decode_state, encode_state, plugin,
};
use serde::{Deserialize, Serialize};

use crate::watched_metric::{self, DeltaMode};

/// Options of `early-stopping`.
#[plugin]
pub(crate) struct Options {
    /// The metric to watch. It is waited for until it has a first value.
    #[schemars(extend("format" = "metric"))]
    metric: String,
    /// Whether lower or higher is better. Not needed where the metric's name says it: losses and errors go down;
    /// accuracy, precision, recall, F1, AUC and R² go up.
    mode: Option<Direction>,
    /// Stop after this number of values in a row without an improvement.
    #[schemars(range(min = 1))]
    patience: u64,
    /// The smallest change that counts as an improvement.
    #[schemars(range(min = 0.0))]
    min_delta: f64,
    /// Whether `min_delta` is in the metric's own units or a share of the best value.
    min_delta_mode: DeltaMode,
    /// Values that are not better than this do not end the wait: a run that never gets there is stopped after `patience`
    /// values.
    baseline: Option<f64>,
    /// Stop as soon as the metric is as good as this.
    stopping_threshold: Option<f64>,
    /// Stop as soon as the metric is worse than this.
    divergence_threshold: Option<f64>,
    /// Stop when the metric is NaN or infinite. Without it, such a value is not an improvement.
    check_finite: bool,
    /// Ignore values before this epoch.
    start_from_epoch: u64,
    /// Restore the weights of the best value when training is over, whoever or whatever ended it: the evaluation of `test`,
    /// exports and checkpoints at the end have them. A run that resumes from such a checkpoint goes on from its own weights.
    restore_best: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            metric: "val_loss".to_owned(),
            mode: None,
            patience: 5,
            min_delta: 0.0,
            min_delta_mode: DeltaMode::Absolute,
            baseline: None,
            stopping_threshold: None,
            divergence_threshold: None,
            check_finite: true,
            start_from_epoch: 0,
            restore_best: false,
        }
    }
}

/// The state in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    best: Option<Best>,
    /// The number of values since the best one that is better than the baseline.
    waited: u64,
    /// The global step of the last value that was counted.
    counted: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Best {
    value: f64,
    epoch: u64,
    global_step: u64,
}

pub(crate) struct EarlyStopping {
    options: Options,
    direction: Direction,
    state: State,
    /// The name of the host's copy of the best weights.
    copy: String,
}

#[plugin]
impl Callback for EarlyStopping {
    const KIND: &'static str = "early-stopping";
    const SUMMARY: &'static str = "Ends the run when a metric stops improving";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    const NEEDS: &'static [Need] = &[Need::WRITES_WEIGHTS];
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        if options.patience == 0 {
            return Err(Error::new("`patience` must be at least 1"));
        }
        watched_metric::check_min_delta(options.min_delta)?;
        if options.baseline.is_some_and(f64::is_nan) {
            return Err(Error::new("`baseline` must be a number"));
        }
        let direction = watched_metric::direction(&options.metric, options.mode)?;
        let copy = format!("{}-best", creation.instance);
        Ok(Self { options, direction, state: State::default(), copy })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.state = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.state)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        if event.epoch < self.options.start_from_epoch {
            return Ok(());
        }
        let Some(latest) = watched_metric::latest(run, &self.options.metric)? else { return Ok(()) };
        let before = self.state.best;
        let reason = self.options.judge(self.direction, &mut self.state, latest);
        if self.options.restore_best && self.state.best != before {
            run.copy_weights(&self.copy, CopyAction::Take)?;
        }
        reason.map_or(Ok(()), |reason| run.stop(&reason))
    }

    fn on_trained(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if self.options.restore_best { self.restore(run, event.global_step) } else { Ok(()) }
    }

    fn on_train_end(&mut self, _: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        if self.state.counted.is_none() && self.options.start_from_epoch == 0 {
            plugin_api::tracing::warn!("`{}` had no value during the run: nothing was watched", self.options.metric);
        }
        Ok(())
    }
}

impl Options {
    /// Counts a value, and returns the reason to stop, if there is one.
    fn judge(&self, direction: Direction, state: &mut State, latest: Point) -> Option<String> {
        if state.counted == Some(latest.global_step) {
            return None;
        }
        state.counted = Some(latest.global_step);
        let (metric, value) = (&self.metric, latest.value);
        if self.check_finite && !value.is_finite() {
            return Some(format!("non_finite_metric: `{metric}` is {value}"));
        }
        let is_better = |than: Option<f64>| {
            let least = self.min_delta_mode.least_change(self.min_delta, than);
            watched_metric::is_better(direction, value, than, least)
        };
        state.waited = state.waited.saturating_add(1);
        if is_better(state.best.map(|best| best.value)) {
            state.best = Some(Best { value, epoch: latest.epoch, global_step: latest.global_step });
            // As in Keras: the wait ends only where the value beats the baseline, too.
            if self.baseline.is_none() || is_better(self.baseline) {
                state.waited = 0;
            }
        }
        if let Some(threshold) = self.stopping_threshold
            && (direction.better(value, threshold) || value == threshold)
        {
            return Some(format!("stopping_threshold_reached: `{metric}` is {value}, the threshold {threshold}"));
        }
        if let Some(threshold) = self.divergence_threshold
            && direction.better(threshold, value)
        {
            return Some(format!("divergence_threshold_passed: `{metric}` is {value}, the threshold {threshold}"));
        }
        if state.waited < self.patience {
            return None;
        }
        let best = state.best.map(|best| best.value);
        let than = match (self.baseline, state.best) {
            (Some(baseline), _) if !best.is_some_and(|best| direction.better(best, baseline)) => {
                format!("the baseline {baseline}")
            }
            (_, Some(best)) => format!("the best ({} in epoch {})", best.value, best.epoch),
            (_, None) => "the best".to_owned(),
        };
        Some(format!("patience_exhausted: {} values of `{metric}` in a row were not better than {than}", state.waited))
    }
}

impl EarlyStopping {
    fn restore(&self, run: &mut Run<'_>, global_step: u64) -> Result<()> {
        let Some(best) = self.state.best.filter(|best| best.global_step != global_step) else {
            return Ok(());
        };
        match run.copy_weights(&self.copy, CopyAction::Restore) {
            Err(error) if error.kind() == ErrorKind::NoSuchName => {
                let message = "the best weights are not in the checkpoint that the run resumed from";
                plugin_api::tracing::warn!(epoch = best.epoch, "{message}");
                Ok(())
            }
            restored => restored,
        }
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;
    use plugin_api::protocol::TensorSet;
    use plugin_api::testing::{FakeHost, json};
    use proptest::prelude::*;

    use super::*;

    fn host(options: serde_json::Value) -> FakeHost {
        let mut host = FakeHost::new::<EarlyStopping>(options).unwrap().with_info(|info| info.total_steps = 1000);
        host.train_start().unwrap();
        host
    }

    /// Sends an epoch with a validation loss.
    fn epoch(host: &mut FakeHost, epoch: u64, value: f64) -> Result<()> {
        host.set_position(epoch, epoch * 10);
        host.put_metric("val_loss", value);
        host.trigger("epoch")
    }

    /// The epoch of the stop and the keyword of its reason.
    fn stop(options: serde_json::Value, values: &[f64]) -> Option<(usize, String)> {
        let mut host = host(options);
        for (index, &value) in values.iter().enumerate() {
            epoch(&mut host, index as u64 + 1, value).unwrap();
            if let Some(reason) = host.stopped() {
                return Some((index + 1, reason.split(':').next().unwrap_or_default().to_owned()));
            }
        }
        None
    }

    #[test]
    fn the_table_of_stops() {
        const NAN: f64 = f64::NAN;
        type Case<'c> = (serde_json::Value, &'c [f64], Option<(usize, &'c str)>);
        let cases: &[Case<'_>] = &[
            (json!({ "patience": 2 }), &[1.0, 0.9, 0.9, 0.8, 0.9, 0.8], Some((6, "patience_exhausted"))),
            (json!({ "patience": 2 }), &[1.0, 1.1, 0.9, 1.0, 0.8], None),
            (json!({ "patience": 1, "mode": "max" }), &[0.1, 0.2, 0.1], Some((3, "patience_exhausted"))),
            (json!({ "patience": 2, "min_delta": 0.1 }), &[1.0, 0.95, 0.91], Some((3, "patience_exhausted"))),
            (json!({ "patience": 2, "min_delta": 0.1, "min_delta_mode": "relative" }), &[8.0, 7.5, 7.1, 6.9], None),
            (
                json!({ "patience": 2, "min_delta": 0.1, "min_delta_mode": "relative" }),
                &[8.0, 7.5, 7.25],
                Some((3, "patience_exhausted")),
            ),
            (
                json!({ "patience": 1, "mode": "max", "min_delta": 0.1, "min_delta_mode": "relative" }),
                &[-8.0, -7.0, -6.5],
                Some((3, "patience_exhausted")),
            ),
            (json!({ "patience": 3, "baseline": 0.5 }), &[0.9, 0.8, 0.7, 0.6], Some((3, "patience_exhausted"))),
            (json!({ "patience": 3, "baseline": 0.5 }), &[0.9, 0.8, 0.4, 0.6, 0.6], None),
            (
                json!({ "patience": 3, "baseline": 0.5 }),
                &[0.9, 0.8, 0.4, 0.6, 0.6, 0.6],
                Some((6, "patience_exhausted")),
            ),
            (json!({ "patience": 1, "start_from_epoch": 3 }), &[1.0, 2.0, 3.0, 2.0], None),
            (json!({ "stopping_threshold": 0.5 }), &[1.0, 0.5], Some((2, "stopping_threshold_reached"))),
            (json!({ "divergence_threshold": 2.0 }), &[1.0, 2.0, 2.1], Some((3, "divergence_threshold_passed"))),
            (json!({}), &[1.0, NAN], Some((2, "non_finite_metric"))),
            (json!({}), &[f64::NEG_INFINITY], Some((1, "non_finite_metric"))),
            (json!({ "check_finite": false, "patience": 2 }), &[NAN, 1.0, NAN, NAN], Some((4, "patience_exhausted"))),
            (json!({ "check_finite": false, "patience": 1 }), &[NAN], Some((1, "patience_exhausted"))),
        ];
        for (options, values, expected) in cases {
            let expected = expected.map(|(epoch, word)| (epoch, word.to_owned()));
            assert_eq!(stop(options.clone(), values), expected, "{options} {values:?}");
        }
    }

    #[test]
    fn the_reason_names_metric_and_best() {
        let mut host = host(json!({ "patience": 1 }));
        epoch(&mut host, 1, 0.5).unwrap();
        epoch(&mut host, 2, 0.75).unwrap();
        let reason =
            "patience_exhausted: 1 values of `val_loss` in a row were not better than the best (0.5 in epoch 1)";
        assert_eq!(host.stopped(), Some(reason));
    }

    #[test]
    fn a_value_is_counted_once() {
        let mut host = host(json!({ "patience": 1 }));
        epoch(&mut host, 1, 1.0).unwrap();
        for epoch in 2..5 {
            host.set_position(epoch, epoch * 10);
            host.trigger("epoch").unwrap();
        }
        assert_eq!(host.stopped(), None);
    }

    #[test]
    fn a_missing_metric_is_named() {
        let mut host = host(json!({ "metric": "val_los", "mode": "min" }));
        let error = epoch(&mut host, 1, 1.0).unwrap_err();
        assert_eq!(error.message(), "there is no metric `val_los`; did you mean `val_loss`?");
    }

    #[test]
    fn the_best_weights_come_back_at_the_stop() {
        let mut host = host(json!({ "patience": 1, "restore_best": true }));
        let weight = |value: f32| Tensor::new("weight", &[1], &[value]).unwrap();
        for (number, loss) in [(1, 1.0), (2, 0.5), (3, 0.6)] {
            host.put_tensor(TensorSet::Parameters, weight(number as f32));
            epoch(&mut host, number, loss).unwrap();
        }
        assert!(host.stopped().is_some());
        // Not before training is over: a checkpoint that is taken until then has the weights of its step.
        assert_eq!(host.tensor(&TensorSet::Parameters, "weight"), Some(&weight(3.0)));
        host.trained().unwrap();
        assert_eq!(host.tensor(&TensorSet::Parameters, "weight"), Some(&weight(2.0)));
    }

    #[test]
    fn the_best_weights_come_back_at_any_other_end() {
        let mut host = FakeHost::new::<EarlyStopping>(json!({ "restore_best": true })).unwrap();
        host.train_start().unwrap();
        let weight = |value: f32| Tensor::new("weight", &[1], &[value]).unwrap();
        for (number, loss) in [(1, 0.5), (2, 0.6), (3, 0.7)] {
            host.put_tensor(TensorSet::Parameters, weight(number as f32));
            epoch(&mut host, number, loss).unwrap();
        }
        assert_eq!(host.stopped(), None);
        // Steps after the last value: someone else ended the run.
        host.set_position(4, 35);
        host.trained().unwrap();
        assert_eq!(host.tensor(&TensorSet::Parameters, "weight"), Some(&weight(1.0)));
    }

    #[test]
    fn best_weights_of_before_a_resume_are_a_warning() {
        let mut first = host(json!({ "patience": 1, "restore_best": true }));
        epoch(&mut first, 1, 0.5).unwrap();
        let state = first.save_state().unwrap();
        let mut resumed = host(json!({ "patience": 1, "restore_best": true }));
        resumed.load_state(&state).unwrap();
        epoch(&mut resumed, 2, 0.6).unwrap();
        assert!(resumed.stopped().is_some());
        resumed.trained().unwrap();
        assert!(resumed.logs()[0].contains("the best weights are not in the checkpoint"), "{:?}", resumed.logs());
    }

    #[test]
    fn a_resumed_run_stops_where_an_unbroken_one_does() {
        let values = [1.0, 0.8, 0.9, 0.85, 0.7, 0.9, 0.9, 0.9, 0.9];
        let options = json!({ "patience": 3 });
        let unbroken = stop(options.clone(), &values).unwrap();
        for broken in 1..unbroken.0 {
            let mut first = host(options.clone());
            for (index, &value) in values[..broken].iter().enumerate() {
                epoch(&mut first, index as u64 + 1, value).unwrap();
            }
            let mut resumed = host(options.clone());
            resumed.load_state(&first.save_state().unwrap()).unwrap();
            let stopped = (broken..values.len()).find(|&index| {
                epoch(&mut resumed, index as u64 + 1, values[index]).unwrap();
                resumed.stopped().is_some()
            });
            assert_eq!(stopped.map(|index| index + 1), Some(unbroken.0), "broken after {broken}");
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for options in [json!({ "patience": 0 }), json!({ "min_delta": -1 }), json!({ "mode": "least" })] {
            assert!(FakeHost::new::<EarlyStopping>(options).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut host = host(json!({}));
            if host.load_state(&bytes).is_ok() {
                epoch(&mut host, 1, 1.0).unwrap();
            }
        }

        #[test]
        fn a_state_goes_round(best in prop::option::of((any::<f64>(), any::<u64>(), any::<u64>())), waited: u64, counted: Option<u64>) {
            let best = best.map(|(value, epoch, global_step)| Best { value, epoch, global_step });
            let state = encode_state(&State { best, waited, counted }).unwrap();
            let mut host = host(json!({}));
            host.load_state(&state).unwrap();
            prop_assert_eq!(host.save_state().unwrap(), state);
        }
    }
}
