//! The scale of the loss in f16, which has no numbers below 6e-8: gradients are computed of a loss that is scaled up, and
//! scaled down again in f32. The scale is as large as it can be (`torch.amp.GradScaler`, with its defaults).

use serde::{Deserialize, Serialize};

/// The first scale.
const FIRST: f32 = 65_536.0;

/// Steps whose gradients must all have been finite before the scale doubles.
const INTERVAL: u32 = 2000;

/// The smallest scale. Gradients that are not finite with it are not those of a loss that was scaled too far.
const SMALLEST: f32 = 1.0 / 65_536.0;

/// Overflows in a row that halve the first scale to the smallest, so that gradients were not finite with any.
pub(super) const MANY_OVERFLOWS: u32 = 32;

/// The present scale, a power of two, so that gradients that are scaled up and down again have the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub(super) struct LossScale {
    scale: f32,
    /// Since the scale changed last.
    finite_steps: u32,
    /// Steps in a row without finite gradients, in this process.
    #[serde(skip)]
    overflows: u32,
}

/// As a checkpoint has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    scale: f32,
    finite_steps: u32,
}

impl TryFrom<Saved> for LossScale {
    type Error = &'static str;

    fn try_from(Saved { scale, finite_steps }: Saved) -> Result<Self, Self::Error> {
        let is_power_of_two = scale.is_normal() && scale.to_bits() << 9 == 0;
        match is_power_of_two && scale >= SMALLEST && finite_steps < INTERVAL {
            true => Ok(Self { scale, finite_steps, overflows: 0 }),
            false => Err("it is no scale of a loss"),
        }
    }
}

impl Default for LossScale {
    fn default() -> Self {
        Self { scale: FIRST, finite_steps: 0, overflows: 0 }
    }
}

impl LossScale {
    /// For a run of one step, which has no other one if the loss was scaled too far.
    pub(super) fn of_trial() -> Self {
        Self { scale: 1.0, ..Self::default() }
    }

    pub(super) fn value(self) -> f64 {
        f64::from(self.scale)
    }

    /// What the next step has after one whose gradients were `finite` or not.
    pub(super) fn after_step(self, finite: bool) -> Self {
        let Self { scale, finite_steps, overflows } = self;
        if !finite {
            let overflows = overflows.saturating_add(1);
            return Self { scale: (scale / 2.0).max(SMALLEST), finite_steps: 0, overflows };
        }
        let (scale, finite_steps) = match finite_steps + 1 {
            INTERVAL if (scale * 2.0).is_finite() => (scale * 2.0, 0),
            INTERVAL => (scale, 0),
            finite_steps => (scale, finite_steps),
        };
        Self { scale, finite_steps, overflows: 0 }
    }

    /// Whether as many steps in a row as that have just failed; only once.
    pub(super) fn has_failed(self) -> bool {
        self.overflows == MANY_OVERFLOWS
    }

    /// Whether it cannot be the scale that makes gradients infinite.
    pub(super) fn is_smallest(self) -> bool {
        self.scale <= SMALLEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked with `torch.amp.GradScaler("cpu")` of PyTorch 2.11.
    #[test]
    fn it_doubles_after_many_finite_steps_and_halves_after_one_that_is_not() {
        let after = |scale: LossScale, finite: bool, steps: u32| (0..steps).fold(scale, |it, _| it.after_step(finite));
        let first = LossScale::default();
        assert_eq!(first.value(), 65_536.0);
        assert_eq!(after(first, true, 1999).value(), 65_536.0);
        assert_eq!(after(first, true, 2000).value(), 131_072.0);
        assert_eq!(after(first, true, 4000).value(), 262_144.0);
        let halved = after(after(first, true, 1999), false, 2);
        assert_eq!((halved.value(), after(halved, true, 1999).value()), (16_384.0, 16_384.0));
        assert_eq!(after(halved, true, 2000).value(), 32_768.0);
        let smallest = after(first, false, 1000);
        assert!(smallest.is_smallest() && smallest.value() > 0.0);
        assert_eq!([31, 32, 33].map(|steps| after(first, false, steps).has_failed()), [false, true, false]);
        assert!(!after(first, false, 31).is_smallest() && after(first, false, 32).is_smallest());
        assert!(!after(after(first, false, 31).after_step(true), false, 31).has_failed());
        assert!(after(first, true, 2000 * 1000).value().is_finite());
    }

    #[test]
    fn a_saved_one_comes_back_and_what_cannot_be_is_refused() {
        for scale in [LossScale::default(), LossScale { scale: SMALLEST, finite_steps: 1999, overflows: 0 }] {
            let text = serde_json::to_string(&scale).unwrap();
            assert_eq!(serde_json::from_str::<LossScale>(&text).unwrap(), scale);
        }
        for (scale, finite_steps) in [("1e39", 0), ("3.0", 0), ("0.0", 0), ("-2.0", 0), ("1e-20", 0), ("2.0", 2000)] {
            let text = format!(r#"{{"scale": {scale}, "finite_steps": {finite_steps}}}"#);
            assert!(serde_json::from_str::<LossScale>(&text).is_err(), "{text}");
        }
    }
}
