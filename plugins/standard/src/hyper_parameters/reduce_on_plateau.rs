//! `reduce-on-plateau`: lowers a hyper-parameter when a metric no longer improves, as Keras' `ReduceLROnPlateau` does.

use plugin_api::event::{At, TrainEnd, Trigger};
use plugin_api::protocol::Point;
use plugin_api::{Callback, Creation, Direction, Error, Ranks, Result, Run, decode_state, encode_state, plugin};
use serde::{Deserialize, Serialize};

use super::target::Target;
use crate::display;
use crate::watched_metric::{self, DeltaMode};

/// Options of `reduce-on-plateau`.
#[plugin]
pub(crate) struct Options {
    /// The metric to watch. It is waited for until it has a first value.
    #[schemars(extend("format" = "metric"))]
    metric: String,
    /// Whether lower or higher is better. Not needed where the metric's name says it: losses and errors go down;
    /// accuracy, precision, recall, F1, AUC and R² go up.
    mode: Option<Direction>,
    /// What the hyper-parameter is multiplied by; above 0 and below 1.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    factor: f64,
    /// Reduce after this number of values in a row without an improvement.
    #[schemars(range(min = 1))]
    patience: u64,
    /// The smallest change that counts as an improvement.
    #[schemars(range(min = 0.0))]
    min_delta: f64,
    /// Whether `min_delta` is in the metric's own units, as in Keras, or a share of the best value, as in PyTorch.
    min_delta_mode: DeltaMode,
    /// The number of the value after a reduction that is the first to count again: 3 leaves out two values, as in Keras.
    cooldown: u64,
    /// The hyper-parameter is never reduced below this.
    #[schemars(range(min = 0.0))]
    min: f64,
    /// The hyper-parameter to reduce.
    hyper_parameter: String,
    /// The parameter group to reduce it in. Without it, it is reduced in each group that has it, from the group's own value.
    group: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            metric: "val_loss".to_owned(),
            mode: None,
            factor: 0.1,
            patience: 10,
            min_delta: 1e-4,
            min_delta_mode: DeltaMode::Absolute,
            cooldown: 0,
            min: 0.0,
            hyper_parameter: "learning_rate".to_owned(),
            group: None,
        }
    }
}

/// The state in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// The best value, and its epoch.
    best: Option<(f64, u64)>,
    /// The number of values without an improvement since the best one or the last reduction.
    waited: u64,
    /// The number of values until the cooldown is over; the last of them counts again.
    cooling: u64,
    /// The global step of the last value that was counted.
    counted: Option<u64>,
}

pub(crate) struct ReduceOnPlateau {
    options: Options,
    direction: Direction,
    target: Target,
    state: State,
}

#[plugin]
impl Callback for ReduceOnPlateau {
    const KIND: &'static str = "reduce-on-plateau";
    const SUMMARY: &'static str =
        "Reduces the learning rate, or another hyper-parameter, when a metric stops improving";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.patience == 0 {
            return Err(Error::new("`patience` must be at least 1"));
        }
        if !(options.factor > 0.0 && options.factor < 1.0) {
            return Err(Error::new(format!("`factor` must be above 0 and below 1, not {}", options.factor)));
        }
        if !(options.min >= 0.0 && options.min.is_finite()) {
            return Err(Error::new(format!("`min` must be 0 or more, not {}", options.min)));
        }
        watched_metric::check_min_delta(options.min_delta)?;
        let direction = watched_metric::direction(&options.metric, options.mode)?;
        let target = Target::new(options.hyper_parameter.clone(), options.group.clone())?;
        Ok(Self { options, direction, target, state: State::default() })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.target.check(run)
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.state = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.state)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, _: &Trigger<'_>) -> Result<()> {
        let Some(latest) = watched_metric::latest(run, &self.options.metric)? else { return Ok(()) };
        if self.options.is_plateau(self.direction, &mut self.state, latest) { self.reduce(run) } else { Ok(()) }
    }

    fn on_train_end(&mut self, _: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        if self.state.counted.is_none() {
            plugin_api::tracing::warn!("`{}` had no value during the run: nothing was watched", self.options.metric);
        }
        Ok(())
    }
}

impl Options {
    /// Counts a value, and says whether it is time to reduce.
    fn is_plateau(&self, direction: Direction, state: &mut State, latest: Point) -> bool {
        if state.counted == Some(latest.global_step) {
            return false;
        }
        state.counted = Some(latest.global_step);
        if state.cooling > 0 {
            state.cooling -= 1;
            state.waited = 0;
        }
        let best = state.best.map(|(best, _)| best);
        let least = self.min_delta_mode.least_change(self.min_delta, best);
        if watched_metric::is_better(direction, latest.value, best, least) {
            state.best = Some((latest.value, latest.epoch));
            state.waited = 0;
            return false;
        }
        // As in Keras, the last value of the cooldown is the first that counts again.
        if state.cooling > 0 {
            return false;
        }
        state.waited = state.waited.saturating_add(1);
        state.waited >= self.patience
    }
}

impl ReduceOnPlateau {
    /// Reduces it in each group in which it is above the minimum.
    fn reduce(&mut self, run: &mut Run<'_>) -> Result<()> {
        let mut groups = self.target.in_groups(run)?;
        let is_only = groups.len() == 1;
        groups.retain(|it| it.value > self.options.min);
        if groups.is_empty() {
            return Ok(());
        }
        self.target.say_that_the_schedule_yields(run)?;
        let instance = run.info()?.instance;
        let best = self.state.best.map_or_else(String::new, |(best, epoch)| {
            format!(" than the best ({} in epoch {epoch})", display::number(best))
        });
        let reason =
            format!("{} values of `{}` in a row were not better{best}", self.state.waited, self.options.metric);
        for it in groups {
            let reduced = (it.value * self.options.factor).max(self.options.min);
            let target = self.target.of_group(&it.group);
            target.set(run, reduced)?;
            let (before, now) = (display::number(it.value), display::number(reduced));
            let shown = if is_only { self.target.shown() } else { target.shown() };
            run.console_line(&format!("`{instance}` reduces {shown} from {before} to {now}: {reason}"))?;
        }
        self.state.waited = 0;
        self.state.cooling = self.options.cooldown;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    fn host(options: serde_json::Value) -> FakeHost {
        let mut host = FakeHost::new::<ReduceOnPlateau>(options).unwrap().with_info(|info| {
            info.run_file = r#"{"train":{"schedule":{"type":"cosine"}}}"#.to_owned();
        });
        host.put_hyper_parameter("everything", "learning_rate", 1.0);
        host.setup().unwrap();
        host
    }

    /// The learning rate after an epoch with this validation loss.
    fn epoch(host: &mut FakeHost, epoch: u64, value: f64) -> f64 {
        host.set_position(epoch, epoch * 10);
        host.put_metric("val_loss", value);
        host.trigger("epoch").unwrap();
        host.hyper_parameter("learning_rate").unwrap()
    }

    fn rates(options: serde_json::Value, values: &[f64]) -> Vec<f64> {
        let mut host = host(options);
        (1..).zip(values).map(|(number, &value)| epoch(&mut host, number, value)).collect()
    }

    #[test]
    fn the_table_of_reductions() {
        const NAN: f64 = f64::NAN;
        type Case<'c> = (serde_json::Value, &'c [f64], &'c [f64]);
        let cases: &[Case<'_>] = &[
            (json!({ "patience": 2 }), &[1.0, 1.0, 1.0, 0.5, 0.6, 0.7, 0.4], &[1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]),
            // It counts anew after a reduction.
            (json!({ "patience": 2 }), &[1.0; 5], &[1.0, 1.0, 0.5, 0.5, 0.25]),
            (json!({ "patience": 1 }), &[1.0, 0.99995, 0.9998], &[1.0, 0.5, 0.5]),
            (json!({ "patience": 1, "min_delta": 0.0 }), &[1.0, 0.99995], &[1.0, 1.0]),
            (
                json!({ "patience": 1, "min_delta": 0.25, "min_delta_mode": "relative" }),
                &[8.0, 5.5, 4.0],
                &[1.0, 1.0, 1.0],
            ),
            (json!({ "patience": 1, "min_delta": 0.25, "min_delta_mode": "relative" }), &[8.0, 6.5], &[1.0, 0.5]),
            (json!({ "patience": 1, "mode": "max" }), &[0.1, 0.2, 0.1], &[1.0, 1.0, 0.5]),
            // Keras: the value that ends the cooldown counts.
            (json!({ "patience": 1, "cooldown": 2 }), &[1.0; 6], &[1.0, 0.5, 0.5, 0.25, 0.25, 0.125]),
            (json!({ "patience": 2, "cooldown": 2 }), &[1.0; 6], &[1.0, 1.0, 0.5, 0.5, 0.5, 0.25]),
            (json!({ "patience": 1, "min": 0.3 }), &[1.0; 5], &[1.0, 0.5, 0.3, 0.3, 0.3]),
            (json!({ "patience": 2 }), &[NAN, NAN, 1.0, NAN, 0.5], &[1.0, 0.5, 0.5, 0.5, 0.5]),
        ];
        for (options, values, expected) in cases {
            let mut options = options.clone();
            options["factor"] = json!(0.5);
            assert_eq!(rates(options.clone(), values), *expected, "{options} {values:?}");
        }
    }

    #[test]
    fn a_value_is_counted_once() {
        let mut host = host(json!({ "patience": 1 }));
        epoch(&mut host, 1, 1.0);
        for epoch in 2..5 {
            host.set_position(epoch, epoch * 10);
            host.trigger("epoch").unwrap();
        }
        assert_eq!(host.hyper_parameter("learning_rate"), Some(1.0));
    }

    #[test]
    fn a_reduction_is_said_with_its_reason_and_the_schedule_yields_once() {
        let mut host = host(json!({ "patience": 1 }));
        for number in 1..=3 {
            epoch(&mut host, number, 0.5);
        }
        let reason = "1 values of `val_loss` in a row were not better than the best (0.5000 in epoch 1)";
        assert_eq!(
            host.lines(),
            [
                "`reduce-on-plateau` sets `learning_rate` from now on; the run's schedule `cosine` no longer changes it"
                    .to_owned(),
                format!("`reduce-on-plateau` reduces `learning_rate` from 1.0000 to 0.1000: {reason}"),
                format!("`reduce-on-plateau` reduces `learning_rate` from 0.1000 to 0.0100: {reason}"),
            ]
        );
    }

    #[test]
    fn each_group_is_reduced_from_its_own_value() {
        let mut host = host(json!({ "patience": 1, "factor": 0.5, "min": 0.25 }));
        host.put_hyper_parameter("head", "learning_rate", 4.0);
        host.put_hyper_parameter("frozen", "learning_rate", 0.0);
        epoch(&mut host, 1, 1.0);
        epoch(&mut host, 2, 1.0);
        assert!(
            host.lines().last().unwrap().contains("reduces `learning_rate` of the group `head` from 4.0000 to 2.0000")
        );
        let rates = ["everything", "head", "frozen"].map(|group| host.hyper_parameter_of(group, "learning_rate"));
        assert_eq!(rates, [Some(0.5), Some(2.0), Some(0.0)]);
    }

    #[test]
    fn a_resumed_run_reduces_where_an_unbroken_one_does() {
        let values = [1.0, 1.0, 1.0, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8];
        let options = json!({ "patience": 2, "cooldown": 2, "factor": 0.5 });
        let unbroken = rates(options.clone(), &values);
        assert_eq!(unbroken.last(), Some(&0.125));
        for broken in 1..values.len() {
            let mut all = Vec::new();
            let mut current = host(options.clone());
            for (number, &value) in (1..).zip(&values) {
                all.push(epoch(&mut current, number, value));
                if number == broken as u64 {
                    let mut resumed = host(options.clone());
                    // The host restores what callbacks have set.
                    let rate = current.hyper_parameter("learning_rate").unwrap();
                    resumed.own_hyper_parameter("reduce-on-plateau", "everything", "learning_rate", rate);
                    resumed.load_state(&current.save_state().unwrap()).unwrap();
                    current = resumed;
                }
            }
            assert_eq!(all, unbroken, "broken after {broken}");
        }
    }

    #[test]
    fn a_metric_that_never_comes_is_a_warning() {
        let mut host = host(json!({}));
        host.know_metric("val_loss");
        host.trigger("epoch").unwrap();
        host.train_end(plugin_api::event::Outcome::Finished).unwrap();
        assert_eq!(host.logs(), ["WARN `val_loss` had no value during the run: nothing was watched"]);
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for (option, value) in [
            ("patience", json!(0)),
            ("factor", json!(1.0)),
            ("factor", json!(0.0)),
            ("min", json!(-1)),
            ("min_delta", json!(-1)),
            ("metric", json!("something")),
            ("hyper_parameter", json!("")),
        ] {
            let error = FakeHost::new::<ReduceOnPlateau>(json!({ option: value })).err().unwrap();
            let named = if option == "metric" { "`mode`".to_owned() } else { format!("`{option}`") };
            assert!(error.message().contains(&named), "{error}");
        }
        let mut host = FakeHost::new::<ReduceOnPlateau>(json!({ "group": "hed" })).unwrap();
        host.put_hyper_parameter("head", "learning_rate", 1.0);
        assert_eq!(host.setup().unwrap_err().message(), "there is no parameter group `hed`; did you mean `head`?");
    }
}
