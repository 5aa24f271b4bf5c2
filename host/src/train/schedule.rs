//! Learning-rate schedules.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::range::{OutOfRange, require, require_positive};
use crate::report::Report;

/// `[train] schedule`: the learning rate over the run, as a factor on the optimizer's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleOptions {
    /// The same all along.
    Constant {},
    /// Multiplied by `gamma` each `size` epochs or steps (`torch.optim.lr_scheduler.StepLR`).
    Step {
        /// How far one fall is from the next, in the unit of `by`.
        #[schemars(range(min = 1))]
        size: u64,
        /// The factor of each fall.
        #[serde(default = "tenth")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        gamma: f64,
        /// What `size` counts.
        #[serde(default = "by_epoch")]
        by: Unit,
    },
    /// Multiplied by `gamma` at each of the milestones (`torch.optim.lr_scheduler.MultiStepLR`).
    MultiStep {
        /// When it falls, ascending, in the unit of `by`.
        #[schemars(length(min = 1))]
        milestones: Vec<u64>,
        /// The factor of each fall.
        #[serde(default = "tenth")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        gamma: f64,
        /// What the milestones count.
        #[serde(default = "by_epoch")]
        by: Unit,
    },
    /// Half a cosine from the full learning rate to `minimum` times it (Loshchilov and Hutter 2017;
    /// `torch.optim.lr_scheduler.CosineAnnealingLR`).
    Cosine {
        /// The factor at the end.
        #[serde(default)]
        #[schemars(range(min = 0, max = 1))]
        minimum: f64,
        /// Whether it changes with each step or each epoch.
        #[serde(default = "by_step")]
        by: Unit,
    },
    /// Up from a low learning rate to the full one and down to a very low one (Smith and Topin 2018;
    /// `torch.optim.lr_scheduler.OneCycleLR`, whose `max_lr` is the optimizer's; the momentum is not cycled).
    OneCycle {
        /// The share of the run in which it rises (`pct_start`).
        #[serde(default = "rise")]
        #[schemars(range(min = 0, max = 1))]
        rise: f64,
        /// The first learning rate is the full one divided by this (`div_factor`).
        #[serde(default = "initial_divisor")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        initial_divisor: f64,
        /// The last learning rate is the first one divided by this (`final_div_factor`).
        #[serde(default = "final_divisor")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        final_divisor: f64,
        /// The form of both ways.
        #[serde(default)]
        anneal: Anneal,
        /// Whether it changes with each step or each epoch.
        #[serde(default = "by_step")]
        by: Unit,
    },
    /// Down to zero as a power of what remains of the run (`torch.optim.lr_scheduler.PolynomialLR`).
    Polynomial {
        /// The power; 1 is a straight line.
        #[serde(default = "one")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        power: f64,
        /// Whether it changes with each step or each epoch.
        #[serde(default = "by_step")]
        by: Unit,
    },
}

/// What a schedule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Optimizer updates.
    Step,
    /// Epochs: the learning rate stays the same within one.
    Epoch,
}

/// The form of a way between two learning rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Anneal {
    /// Half a cosine.
    #[default]
    Cosine,
    /// A straight line.
    Linear,
}

/// `[train] warmup`: a straight line up to the full learning rate, in front of the schedule
/// (`torch.optim.lr_scheduler.LinearLR`, then the schedule by `SequentialLR`). The schedule counts from its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Warmup {
    /// Its length in optimizer updates; either this or `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub steps: Option<u64>,
    /// Its length in epochs; either this or `steps`. The learning rate rises with each update all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub epochs: Option<u64>,
    /// The factor of the first update.
    #[serde(default = "hundredth")]
    #[schemars(range(min = 0, max = 1))]
    pub start: f64,
}

fn by_epoch() -> Unit {
    Unit::Epoch
}

fn by_step() -> Unit {
    Unit::Step
}

fn hundredth() -> f64 {
    0.01
}

fn tenth() -> f64 {
    0.1
}

fn rise() -> f64 {
    0.3
}

fn one() -> f64 {
    1.0
}

fn initial_divisor() -> f64 {
    25.0
}

fn final_divisor() -> f64 {
    1e4
}

/// An invalid schedule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// A value is out of range.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// The milestones do not ascend.
    #[error("the `milestones` {found:?} do not ascend")]
    Milestones {
        /// As they were given.
        found: Vec<u64>,
    },
    /// The warm-up has no length, or two.
    #[error("the warm-up has {found}")]
    WarmupLength {
        /// `no length` or `two lengths`.
        found: &'static str,
    },
}

impl ScheduleError {
    /// The option that it is about.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            ScheduleError::Range(range) => Some(range.key),
            ScheduleError::Milestones { .. } => Some("milestones"),
            ScheduleError::WarmupLength { .. } => None,
        }
    }
}

impl Report for ScheduleError {
    fn hint(&self) -> Option<String> {
        match self {
            ScheduleError::Range(_) => None,
            ScheduleError::Milestones { .. } => Some("give them in order, each once: `[30, 60, 90]`".to_owned()),
            ScheduleError::WarmupLength { .. } => {
                Some("give one of the two: `{ steps = 500 }` or `{ epochs = 1 }`".to_owned())
            }
        }
    }
}

/// The learning rate over a run: a warm-up, if there is one, and then the schedule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    /// What comes first.
    pub warmup: Option<Warmup>,
    /// What comes after it.
    pub options: ScheduleOptions,
}

impl Schedule {
    /// The factor for the update that follows `step` finished ones, of `total_steps` in the run: a pure function, so
    /// that a resumed run needs no state. Past the end it stays at its last value.
    pub fn factor(&self, step: u64, total_steps: u64, steps_per_epoch: u64) -> f64 {
        let Some(warmup) = &self.warmup else {
            return self.options.factor(step, total_steps, steps_per_epoch);
        };
        let length = warmup.length(steps_per_epoch);
        if step < length {
            return warmup.start + (1.0 - warmup.start) * step as f64 / length as f64;
        }
        self.options.factor(step - length, total_steps.saturating_sub(length), steps_per_epoch)
    }
}

impl Warmup {
    /// Refuses a warm-up without a length, with two, or from a factor outside 0 to 1.
    pub fn check(&self) -> Result<(), ScheduleError> {
        match (self.steps, self.epochs) {
            (None, None) => return Err(ScheduleError::WarmupLength { found: "no length" }),
            (Some(_), Some(_)) => return Err(ScheduleError::WarmupLength { found: "two lengths" }),
            _ => {}
        }
        Ok(require((0.0..=1.0).contains(&self.start), "start", self.start, "from 0 to 1")?)
    }

    fn length(&self, steps_per_epoch: u64) -> u64 {
        self.steps.unwrap_or_else(|| self.epochs.unwrap_or(0).saturating_mul(steps_per_epoch))
    }
}

impl Default for ScheduleOptions {
    fn default() -> ScheduleOptions {
        ScheduleOptions::Constant {}
    }
}

impl ScheduleOptions {
    /// Refuses values that are out of range.
    pub fn check(&self) -> Result<(), ScheduleError> {
        match self {
            ScheduleOptions::Constant {} => {}
            ScheduleOptions::Step { size, gamma, by: _ } => {
                require(*size > 0, "size", *size as f64, "at least 1")?;
                require_positive("gamma", *gamma)?;
            }
            ScheduleOptions::MultiStep { milestones, gamma, by: _ } => {
                if milestones.is_empty() || !milestones.is_sorted_by(|earlier, later| earlier < later) {
                    return Err(ScheduleError::Milestones { found: milestones.clone() });
                }
                require_positive("gamma", *gamma)?;
            }
            ScheduleOptions::Cosine { minimum, by: _ } => {
                require((0.0..=1.0).contains(minimum), "minimum", *minimum, "from 0 to 1")?;
            }
            ScheduleOptions::OneCycle { rise, initial_divisor, final_divisor, anneal: _, by: _ } => {
                require((0.0..=1.0).contains(rise), "rise", *rise, "from 0 to 1")?;
                require_positive("initial_divisor", *initial_divisor)?;
                require_positive("final_divisor", *final_divisor)?;
            }
            ScheduleOptions::Polynomial { power, by: _ } => require_positive("power", *power)?,
        }
        Ok(())
    }

    fn factor(&self, step: u64, total_steps: u64, steps_per_epoch: u64) -> f64 {
        // The count and the length of the run in the schedule's own unit.
        let counted = |by: Unit| match by {
            Unit::Step => (step.min(total_steps), total_steps),
            Unit::Epoch => {
                let epochs = total_steps.div_ceil(steps_per_epoch.max(1));
                ((step / steps_per_epoch.max(1)).min(epochs), epochs)
            }
        };
        match self {
            ScheduleOptions::Constant {} => 1.0,
            ScheduleOptions::Step { size, gamma, by } => power(*gamma, counted(*by).0 / (*size).max(1)),
            ScheduleOptions::MultiStep { milestones, gamma, by } => {
                let count = counted(*by).0;
                power(*gamma, milestones.iter().filter(|milestone| **milestone <= count).count() as u64)
            }
            ScheduleOptions::Cosine { minimum, by } => {
                let (count, length) = counted(*by);
                Anneal::Cosine.between(1.0, *minimum, count as f64 / length.max(1) as f64)
            }
            ScheduleOptions::OneCycle { rise, initial_divisor, final_divisor, anneal, by } => {
                let (count, length) = counted(*by);
                let (first, last) = (1.0 / initial_divisor, 1.0 / initial_divisor / final_divisor);
                // PyTorch's first and last learning rates are those of the first and last update.
                let (top, end) = (rise * length as f64 - 1.0, length as f64 - 1.0);
                let count = (count as f64).min(end);
                if count <= top {
                    anneal.between(first, 1.0, count / top)
                } else {
                    anneal.between(1.0, last, (count - top) / (end - top))
                }
            }
            ScheduleOptions::Polynomial { power, by } => {
                let (count, length) = counted(*by);
                (1.0 - count as f64 / length.max(1) as f64).powf(*power)
            }
        }
    }
}

impl Anneal {
    /// The value at `progress`, from 0 to 1, on the way from `start` to `end`; `end` if the way has no length.
    fn between(self, start: f64, end: f64, progress: f64) -> f64 {
        match self {
            _ if progress.is_nan() => end,
            Anneal::Cosine => end + (start - end) * (1.0 + (PI * progress).cos()) / 2.0,
            Anneal::Linear => start + (end - start) * progress,
        }
    }
}

fn power(base: f64, exponent: u64) -> f64 {
    base.powf(exponent as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::figures;

    fn schedule(text: &str) -> Schedule {
        Schedule { warmup: None, options: toml::from_str(text).unwrap() }
    }

    #[test]
    fn factors_are_those_of_torch() {
        let figures = figures::pytorch();
        let length = |name: &str| figures["schedule_length"][name].as_u64().unwrap();
        for case in figures["schedules"].as_array().unwrap() {
            let warmup = case["warmup"].as_str().map(|text| toml::from_str(text).unwrap());
            let schedule = Schedule { warmup, ..schedule(case["schedule"].as_str().unwrap()) };
            schedule.options.check().unwrap();
            for (step, expected) in figures::numbers(&case["rates"]).into_iter().enumerate() {
                let found = schedule.factor(step as u64, length("total_steps"), length("steps_per_epoch"));
                assert!((found - expected).abs() < 1e-9, "{case} at {step}: {found} {expected}");
            }
        }
    }

    #[test]
    fn factors_are_finite_in_runs_of_any_length_and_stay_at_their_last_value() {
        for text in [
            "type = \"step\"\nsize = 1",
            "type = \"multi_step\"\nmilestones = [1, 2]",
            "type = \"cosine\"\nminimum = 0.2",
            "type = \"one_cycle\"",
            "type = \"one_cycle\"\nrise = 0",
            "type = \"one_cycle\"\nrise = 1\nanneal = \"linear\"",
            "type = \"polynomial\"\nby = \"epoch\"",
        ] {
            for warmup in [None, Some(Warmup { steps: None, epochs: Some(1), start: 0.0 })] {
                let schedule = Schedule { warmup, ..schedule(text) };
                for total in 0..8 {
                    for step in 0..10 {
                        let factor = schedule.factor(step, total, 2);
                        assert!((0.0..=1.0).contains(&factor), "{text}: {factor} at {step} of {total}");
                    }
                }
            }
        }
        let cosine = schedule("type = \"cosine\"\nminimum = 0.2");
        assert_eq!(cosine.factor(250, 100, 10), cosine.factor(100, 100, 10));
        assert!((cosine.factor(100, 100, 10) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn a_factor_by_epoch_stays_within_the_epoch() {
        let schedule = schedule("type = \"cosine\"\nby = \"epoch\"");
        let factors: Vec<f64> = (0..12).map(|step| schedule.factor(step, 12, 4)).collect();
        assert_eq!(factors[..4], [1.0; 4]);
        assert!(factors[4] < 1.0 && factors[4..8].iter().all(|factor| *factor == factors[4]));
    }

    #[test]
    fn options_have_defaults_and_refuse_unknown_keys() {
        let read = |text: &str| toml::from_str::<ScheduleOptions>(text);
        assert_eq!(read(r#"type = "cosine""#).unwrap(), ScheduleOptions::Cosine { minimum: 0.0, by: Unit::Step });
        assert_eq!(read(r#"type = "constant""#).unwrap(), ScheduleOptions::Constant {});
        assert!(read("type = \"cosine\"\nminimal = 0.1").is_err());
        assert!(read("type = \"constant\"\nminimum = 0.1").is_err());
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (text, message) in [
            ("type = \"step\"\nsize = 0", "`size` = `0` must be at least 1"),
            ("type = \"step\"\nsize = 1\ngamma = nan", "`gamma` = `NaN` must be above 0 and finite"),
            ("type = \"multi_step\"\nmilestones = [3, 3]", "the `milestones` [3, 3] do not ascend"),
            ("type = \"cosine\"\nminimum = -0.1", "`minimum` = `-0.1` must be from 0 to 1"),
            ("type = \"one_cycle\"\nrise = 1.5", "`rise` = `1.5` must be from 0 to 1"),
            ("type = \"one_cycle\"\nfinal_divisor = 0", "`final_divisor` = `0` must be above 0 and finite"),
            ("type = \"polynomial\"\npower = inf", "`power` = `inf` must be above 0 and finite"),
        ] {
            assert_eq!(schedule(text).options.check().unwrap_err().to_string(), message);
        }
        let warmup = |text: &str| toml::from_str::<Warmup>(text).unwrap().check();
        assert_eq!(warmup("steps = 5"), Ok(()));
        assert_eq!(warmup("").unwrap_err().to_string(), "the warm-up has no length");
        assert_eq!(warmup("steps = 5\nepochs = 1").unwrap_err().to_string(), "the warm-up has two lengths");
        assert!(warmup("steps = 5\nstart = nan").is_err());
    }
}
