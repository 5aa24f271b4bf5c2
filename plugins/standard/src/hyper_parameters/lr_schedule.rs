//! `lr-schedule`: a hyper-parameter at points of the run, as tensorpack's `ScheduledHyperParamSetter` sets it, or by an
//! expression after each epoch or step, as its `HyperParamSetterWithFunc` does.

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Error, Ranks, Result, Run, decode_state, encode_state, plugin};
use serde::{Deserialize, Serialize};

use super::target::Target;

/// Options of `lr-schedule`.
#[plugin]
pub(crate) struct Options {
    /// The points, in order: `[30, 0.01]` is the value after epoch 30, so from epoch 31 on. The point 0 is before training.
    points: Vec<(u64, f64)>,
    /// Instead of points, an expression that gives the value after each epoch or step: `old * 0.9`. `old` is the present
    /// value of the parameter group; `epoch` and `step` count how many of the run are over. A value that is NaN is not set.
    #[schemars(extend("format" = "expression", "variables" = ["old", "epoch", "step"], "result" = "number"))]
    expr: Option<String>,
    /// The value between two points: that of the earlier one (`none`), or on the straight line to the later one (`linear`).
    /// It is not set before the first point, and stays at the last.
    interp: Interpolation,
    /// What the points count, and how often `expr` is computed.
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
            expr: None,
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
    /// With `expr`, how many epochs or steps were over when it last counted: it is computed once for each.
    counted: Option<u64>,
}

/// Where the values come from.
enum Values {
    Points(Vec<(u64, f64)>, Interpolation),
    Expression(String),
}

pub(crate) struct LrSchedule {
    values: Values,
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
    const RANKS: Ranks = Ranks::All;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let Options { points, expr, interp, unit, hyper_parameter, group } = options;
        let values = match expr {
            None => {
                check(&points)?;
                Values::Points(points, interp)
            }
            Some(_) if !points.is_empty() => {
                return Err(Error::new("`points` and `expr` both say what to set: keep one of them"));
            }
            Some(_) if interp != Interpolation::None => {
                return Err(Error::new("`interp` is about `points`: leave it out, or give points instead of `expr`"));
            }
            Some(expression) => Values::Expression(expression),
        };
        let target = Target::new(hyper_parameter, group)?;
        Ok(Self { values, unit, target, state: State::default(), computed: None })
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
        match &self.values {
            Values::Points(points, interp) => match value_after(points, *interp, finished) {
                Some(value) => self.update(run, value, is_first),
                None => Ok(()),
            },
            Values::Expression(expression) => {
                // Nothing is over when a run begins, and what was over before a resume has counted.
                if *self.state.counted.get_or_insert(finished) != finished {
                    self.state.counted = Some(finished);
                    compute(expression, &self.target, run, event)?;
                }
                Ok(())
            }
        }
    }
}

impl LrSchedule {
    /// Sets a value of points, if it is another one than that of before.
    fn update(&mut self, run: &mut Run<'_>, value: f64, is_first: bool) -> Result<()> {
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

/// Sets what the expression gives for each group.
fn compute(expression: &str, target: &Target, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
    let over = |current: u64| current.saturating_sub(1) as f64;
    let (epoch, step) = (over(event.epoch), over(event.global_step));
    target.say_that_the_schedule_yields(run)?;
    for it in target.in_groups(run)? {
        let value = run.evaluate_number(expression, &[("old", it.value), ("epoch", epoch), ("step", step)])?;
        target.of_group(&it.group).set_computed(run, value)?;
    }
    Ok(())
}

fn check(points: &[(u64, f64)]) -> Result<()> {
    if points.is_empty() {
        return Err(Error::new(
            "`points` must have at least one point, such as `[[30, 0.01]]`; or give `expr`, such as `old * 0.9`",
        ));
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
mod tests;
