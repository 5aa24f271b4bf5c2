//! Which way a metric improves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which way a metric improves: `min` or `max` in options and run files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Lower is better.
    #[default]
    Min,
    /// Higher is better.
    Max,
}

impl Direction {
    /// Whether `value` is better than `other`. NaN never is, and any number is better than NaN, so that a first NaN does
    /// not stay the best.
    pub fn better(self, value: f64, other: f64) -> bool {
        if other.is_nan() {
            return !value.is_nan();
        }
        match self {
            Self::Min => value < other,
            Self::Max => value > other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_better_than_none() {
        for direction in [Direction::Min, Direction::Max] {
            assert!(direction.better(1.0, f64::NAN));
            assert!(!direction.better(f64::NAN, 1.0));
            assert!(!direction.better(f64::NAN, f64::NAN));
            assert!(!direction.better(1.0, 1.0));
        }
        assert!(Direction::Min.better(f64::NEG_INFINITY, 0.0) && Direction::Max.better(0.5, 0.0));
    }
}
