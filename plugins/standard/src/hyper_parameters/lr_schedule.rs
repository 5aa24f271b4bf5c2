//! `lr-schedule`: a hyper-parameter at points of the run, as tensorpack's `ScheduledHyperParamSetter` sets it.

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Error, Result, Run, decode_state, encode_state, plugin};
use serde::{Deserialize, Serialize};

use super::target::Target;

/// Options of `lr-schedule`.
#[plugin]
pub(crate) struct Options {
    /// The points, in order: `[30, 0.01]` is the value after epoch 30, so from epoch 31 on. The point 0 is before training.
    points: Vec<(u64, f64)>,
    /// The value between two points: that of the earlier one (`none`), or on the straight line to the later one (`linear`).
    /// It is not set before the first point, and stays at the last.
    interp: Interpolation,
    /// What the points count.
    unit: Unit,
    /// The hyper-parameter to set.
    hyper_parameter: String,
    /// The parameter group to set it in. Without it, it is set in each group that has it, to the same value.
    group: Option<String>,
}

/// The values between two points.
#[plugin]
#[derive(Copy, PartialEq, Eq)]
pub(crate) enum Interpolation {
    /// That of the earlier point.
    None,
    /// On a straight line.
    Linear,
}

/// What points count.
#[plugin]
#[derive(Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Epochs.
    Epoch,
    /// Optimizer updates over the whole run.
    Step,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            points: Vec::new(),
            interp: Interpolation::None,
            unit: Unit::Epoch,
            hyper_parameter: "learning_rate".to_owned(),
            group: None,
        }
    }
}

/// The state in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// The value that was set last. What another callback or a person sets between two points stays until the next one.
    set: Option<f64>,
}

pub(crate) struct LrSchedule {
    points: Vec<(u64, f64)>,
    interp: Interpolation,
    unit: Unit,
    target: Target,
    state: State,
    /// How many epochs or steps were finished when the value was last computed; `None` before the first step of this
    /// process.
    computed: Option<u64>,
}

#[plugin]
impl Callback for LrSchedule {
    const KIND: &'static str = "lr-schedule";
    const SUMMARY: &'static str = "Sets the learning rate, or another hyper-parameter, at points of the run";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        check(&options.points)?;
        let Options { points, interp, unit, hyper_parameter, group } = options;
        let target = Target::new(hyper_parameter, group)?;
        Ok(Self { points, interp, unit, target, state: State::default(), computed: None })
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

    // Not the end of an epoch or step: a run that resumes between the two, or begins with a later epoch, has none.
    #[inline]
    fn on_step_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let current = match self.unit {
            Unit::Epoch => event.epoch,
            Unit::Step => event.global_step,
        };
        let finished = current.saturating_sub(1);
        if self.computed == Some(finished) {
            return Ok(());
        }
        let is_first = self.computed.replace(finished).is_none();
        self.update(run, finished, is_first)
    }
}

impl LrSchedule {
    /// Sets the value after `finished` epochs or steps, if it is another one than that of before.
    fn update(&mut self, run: &mut Run<'_>, finished: u64, is_first: bool) -> Result<()> {
        let Some(value) = value_after(&self.points, self.interp, finished) else { return Ok(()) };
        // A resumed run may have other options: then nobody has set this hyper-parameter yet.
        let is_set = self.state.set == Some(value);
        if is_set && (!is_first || self.target.in_groups(run)?.iter().all(|it| it.is_owned)) {
            return Ok(());
        }
        if is_first || self.state.set.is_none() {
            self.target.say_that_the_schedule_yields(run)?;
        }
        self.target.set(run, value)?;
        self.state.set = Some(value);
        Ok(())
    }
}

fn check(points: &[(u64, f64)]) -> Result<()> {
    if points.is_empty() {
        return Err(Error::new("`points` must have at least one point, such as `[[30, 0.01]]`"));
    }
    if let Some((at, value)) = points.iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
        return Err(Error::new(format!(
            "`points`: the value at {at} is {value}; a hyper-parameter must be 0 or more, and finite"
        )));
    }
    match points.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        Some([(at, _), (next, _)]) if at == next => {
            Err(Error::new(format!("`points` has two values at {at}: keep one of them")))
        }
        Some([(at, _), (next, _)]) => {
            Err(Error::new(format!("`points` is not in order: {next} comes after {at}; sort the points")))
        }
        _ => Ok(()),
    }
}

/// The value after `finished` epochs or steps; `None` before the first point.
fn value_after(points: &[(u64, f64)], interp: Interpolation, finished: u64) -> Option<f64> {
    let reached = points.partition_point(|(at, _)| *at <= finished);
    let &(at, value) = points.get(reached.checked_sub(1)?)?;
    match (interp, points.get(reached)) {
        (Interpolation::Linear, Some(&(next_at, next))) => {
            let share = (finished - at) as f64 / (next_at - at) as f64;
            Some(value + (next - value) * share)
        }
        _ => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    /// A host whose learning rate is 1 and momentum 0.9, in epochs of two steps.
    fn host(options: serde_json::Value) -> FakeHost {
        host_of(options, "{}")
    }

    fn host_of(options: serde_json::Value, run_file: &str) -> FakeHost {
        let mut host = FakeHost::new::<LrSchedule>(options).unwrap().with_info(|info| {
            (info.steps_per_epoch, info.run_file) = (2, run_file.to_owned());
        });
        for group in ["body", "head"] {
            host.put_hyper_parameter(group, "learning_rate", 1.0);
        }
        host.put_hyper_parameter("body", "momentum", 0.9);
        host.setup().unwrap();
        host
    }

    /// The learning rate in each of these steps, in epochs of two.
    fn rates(host: &mut FakeHost, steps: std::ops::RangeInclusive<u64>) -> Vec<f64> {
        let mut rate = |step| {
            host.step_start(step).unwrap();
            host.hyper_parameter("learning_rate").unwrap()
        };
        steps.map(&mut rate).collect()
    }

    #[test]
    fn a_point_holds_after_its_epoch() {
        let mut host = host(json!({ "points": [[1, 0.5], [3, 0.25]] }));
        assert_eq!(rates(&mut host, 1..=10), [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]);
    }

    #[test]
    fn the_point_zero_is_before_training_and_a_value_of_zero_counts() {
        let mut host = host(json!({ "points": [[0, 0.0], [1, 0.5]] }));
        assert_eq!(rates(&mut host, 1..=3), [0.0, 0.0, 0.5]);
    }

    #[test]
    fn steps_are_counted_over_the_run() {
        let mut host = host(json!({ "points": [[3, 0.5]], "unit": "step" }));
        assert_eq!(rates(&mut host, 1..=5), [1.0, 1.0, 1.0, 0.5, 0.5]);
    }

    #[test]
    fn a_line_goes_only_from_the_first_point_to_the_last() {
        let options = json!({ "points": [[2, 0.0], [4, 0.5], [5, 0.25]], "interp": "linear", "unit": "step" });
        let mut host = host(options);
        assert_eq!(rates(&mut host, 1..=8), [1.0, 1.0, 0.0, 0.25, 0.5, 0.25, 0.25, 0.25]);
    }

    #[test]
    fn what_others_set_between_two_points_stays_until_the_next() {
        let mut host = host(json!({ "points": [[0, 0.5], [2, 0.25]] }));
        host.step_start(1).unwrap();
        host.put_hyper_parameter("body", "learning_rate", 0.7);
        assert_eq!(rates(&mut host, 2..=5), [0.7, 0.7, 0.7, 0.25]);
    }

    #[test]
    fn a_resumed_run_goes_on_as_an_unbroken_one() {
        let options = json!({ "points": [[0, 0.0], [2, 0.3], [5, 0.1]], "interp": "linear" });
        let unbroken = rates(&mut host(options.clone()), 1..=12);
        for broken in 1..12 {
            let mut first = host(options.clone());
            let mut all = rates(&mut first, 1..=broken);
            let mut resumed = host(options.clone());
            // The host restores what callbacks have set, and who has set it.
            for group in ["body", "head"] {
                let rate = first.hyper_parameter("learning_rate").unwrap();
                resumed.own_hyper_parameter("lr-schedule", group, "learning_rate", rate);
            }
            resumed.load_state(&first.save_state().unwrap()).unwrap();
            all.extend(rates(&mut resumed, broken + 1..=12));
            assert_eq!(all, unbroken, "broken after {broken}");
        }
    }

    #[test]
    fn after_a_resume_what_others_set_before_it_stays() {
        let mut first = host(json!({ "points": [[0, 0.5]] }));
        first.step_start(1).unwrap();
        first.step_start(2).unwrap();
        let mut resumed = host(json!({ "points": [[0, 0.5]] }));
        for group in ["body", "head"] {
            resumed.own_hyper_parameter("human", group, "learning_rate", 0.7);
        }
        resumed.load_state(&first.save_state().unwrap()).unwrap();
        assert_eq!(rates(&mut resumed, 3..=5), [0.7, 0.7, 0.7]);
    }

    #[test]
    fn a_run_that_begins_in_a_later_epoch_has_the_value_of_that_epoch() {
        let mut host = host(json!({ "points": [[1, 0.5], [2, 0.25]] }));
        host.set_position(4, 7);
        host.fire(plugin_api::EventKind::STEP_START).unwrap();
        assert_eq!(host.hyper_parameter("learning_rate"), Some(0.25));
    }

    #[test]
    fn one_hyper_parameter_of_one_group_is_set() {
        let options = json!({ "points": [[0, 0.5]], "hyper_parameter": "momentum", "group": "body" });
        let mut host = host(options);
        host.step_start(1).unwrap();
        assert_eq!((host.hyper_parameter("momentum"), host.hyper_parameter("learning_rate")), (Some(0.5), Some(1.0)));
    }

    #[test]
    fn what_the_run_does_not_have_is_an_error_at_setup() {
        for (option, name, message) in [
            (
                "hyper_parameter",
                "learning_rat",
                "there is no hyper-parameter `learning_rat`; did you mean `learning_rate`?",
            ),
            ("group", "hed", "there is no parameter group `hed`; did you mean `head`?"),
        ] {
            let mut host = FakeHost::new::<LrSchedule>(json!({ "points": [[9, 0.5]], option: name })).unwrap();
            host.put_hyper_parameter("head", "learning_rate", 1.0);
            assert_eq!(host.setup().unwrap_err().message(), message);
        }
        // An evaluation of a saved checkpoint has no optimizer.
        let host = FakeHost::new::<LrSchedule>(json!({ "points": [[9, 0.5]] })).unwrap();
        host.with_info(|info| info.job = "evaluate".to_owned()).setup().unwrap();
    }

    #[test]
    fn the_runs_schedule_is_said_to_yield_once_when_it_does() {
        let run_file = r#"{"train":{"schedule":{"type":"cosine"}}}"#;
        let mut host = host_of(json!({ "points": [[1, 0.5], [2, 0.25]] }), run_file);
        rates(&mut host, 1..=2);
        assert_eq!(host.lines(), [""; 0]);
        rates(&mut host, 3..=8);
        let line = "`lr-schedule` sets `learning_rate` from now on; the run's schedule `cosine` no longer changes it";
        assert_eq!(host.lines(), [line]);
        let mut constant = host_of(json!({ "points": [[0, 0.5]] }), r#"{"train":{"schedule":{"type":"constant"}}}"#);
        rates(&mut constant, 1..=2);
        let mut other = json!({ "points": [[0, 0.5]] });
        other["hyper_parameter"] = json!("momentum");
        let mut other = host_of(other, run_file);
        rates(&mut other, 1..=2);
        assert_eq!((constant.lines().len(), other.lines().len()), (0, 0));
    }

    #[test]
    fn points_that_make_no_sense_are_refused_with_the_reason() {
        for (points, message) in [
            (json!([]), "`points` must have at least one point, such as `[[30, 0.01]]`"),
            (json!([[3, 0.1], [2, 0.2]]), "`points` is not in order: 2 comes after 3; sort the points"),
            (json!([[3, 0.1], [3, 0.2]]), "`points` has two values at 3: keep one of them"),
            (json!([[3, -0.1]]), "`points`: the value at 3 is -0.1; a hyper-parameter must be 0 or more, and finite"),
        ] {
            let error = FakeHost::new::<LrSchedule>(json!({ "points": points })).err().unwrap();
            assert_eq!(error.message(), message);
        }
        assert!(check(&[(3, f64::INFINITY)]).is_err() && check(&[(3, f64::NAN)]).is_err());
        for options in [json!({}), json!({ "points": [[0.5, 0.1]] }), json!({ "points": [[1, 0.1]], "group": "" })] {
            assert!(FakeHost::new::<LrSchedule>(options).is_err());
        }
    }
}
