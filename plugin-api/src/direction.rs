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

/// Words in the names of metrics that are better when lower.
const LOWER: [&str; 8] = ["loss", "error", "perplexity", "mae", "mse", "rmse", "nll", "brier"];
/// Words in the names of metrics that are better when higher.
const HIGHER: [&str; 9] = ["accuracy", "precision", "recall", "f1", "auc", "r2", "iou", "dice", "bleu"];

impl Direction {
    /// The direction that a metric's name implies, for the host's metrics and others with similar names; `None` if the
    /// name does not tell, as `learning_rate`.
    pub fn of_metric(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let mut words = name.split(|character: char| !character.is_ascii_alphanumeric());
        // The last such word counts: in `accuracy_loss`, the loss is measured.
        words
            .rfind(|word| LOWER.contains(word) || HIGHER.contains(word) || word.ends_with("error"))
            .map(|word| if HIGHER.contains(&word) { Self::Max } else { Self::Min })
    }

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

    #[test]
    fn names_tell_the_direction() {
        let cases = [
            ("train_loss", Some(Direction::Min)),
            ("val_top5_error", Some(Direction::Min)),
            ("test_perplexity", Some(Direction::Min)),
            ("val_accuracy", Some(Direction::Max)),
            ("val/f1", Some(Direction::Max)),
            ("val_r2", Some(Direction::Max)),
            ("Accuracy.loss", Some(Direction::Min)),
            ("learning_rate", None),
            ("epoch_seconds", None),
            ("glossy", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(Direction::of_metric(name), expected, "{name}");
        }
    }
}
