//! Learning-rate schedules.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[train] schedule`: the learning rate over the run, as a factor on the optimizer's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleOptions {
    /// The same all along.
    Constant {},
    /// Half a cosine from the full learning rate to `minimum` times it (Loshchilov and Hutter 2017;
    /// `torch.optim.lr_scheduler.CosineAnnealingLR`).
    Cosine {
        /// The factor at the end.
        #[serde(default)]
        minimum: f64,
    },
}

impl Default for ScheduleOptions {
    fn default() -> ScheduleOptions {
        ScheduleOptions::Constant {}
    }
}

impl ScheduleOptions {
    /// The factor for the update that follows `step` finished ones, of `total_steps` in the run: a pure function, so
    /// that a resumed run needs no state. Past the end it stays at its last value.
    pub fn factor(&self, step: u64, total_steps: u64) -> f64 {
        match self {
            ScheduleOptions::Constant {} => 1.0,
            ScheduleOptions::Cosine { minimum } => {
                let progress = step.min(total_steps) as f64 / total_steps.max(1) as f64;
                minimum + (1.0 - minimum) * (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_is_one() {
        assert_eq!(ScheduleOptions::default().factor(7, 10), 1.0);
    }

    #[test]
    fn cosine_falls_from_one_through_the_middle_to_its_minimum() {
        let schedule = ScheduleOptions::Cosine { minimum: 0.2 };
        assert_eq!(schedule.factor(0, 100), 1.0);
        assert!((schedule.factor(50, 100) - 0.6).abs() < 1e-12);
        assert!((schedule.factor(100, 100) - 0.2).abs() < 1e-12);
        assert_eq!(schedule.factor(250, 100), schedule.factor(100, 100));
        assert!(schedule.factor(0, 0).is_finite());
        for step in 0..100 {
            assert!(schedule.factor(step, 100) > schedule.factor(step + 1, 100));
        }
    }

    #[test]
    fn options_have_defaults_and_refuse_unknown_keys() {
        let read = |text: &str| toml::from_str::<ScheduleOptions>(text);
        assert_eq!(read(r#"type = "cosine""#).unwrap(), ScheduleOptions::Cosine { minimum: 0.0 });
        assert_eq!(read(r#"type = "constant""#).unwrap(), ScheduleOptions::Constant {});
        assert!(read("type = \"cosine\"\nminimal = 0.1").is_err());
        assert!(read("type = \"constant\"\nminimum = 0.1").is_err());
    }
}
