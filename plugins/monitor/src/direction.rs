//! Which way a metric improves.

use plugin_api::Direction;

/// Words in the names of metrics that are better when lower.
const SMALLER: [&str; 8] = ["loss", "error", "perplexity", "mae", "mse", "rmse", "nll", "brier"];
/// Words in the names of metrics that are better when higher.
const LARGER: [&str; 9] = ["accuracy", "precision", "recall", "f1", "auc", "r2", "iou", "dice", "bleu"];

/// The direction that a metric's name implies, for the host's metrics and others with similar names; `None` if the name
/// does not tell, as `learning_rate`.
pub fn direction_of(metric: &str) -> Option<Direction> {
    let name = metric.to_ascii_lowercase();
    let mut words = name.split(|character: char| !character.is_ascii_alphanumeric());
    // The last such word counts: in `accuracy_loss`, the loss is measured.
    words
        .rfind(|word| SMALLER.contains(word) || LARGER.contains(word) || word.ends_with("error"))
        .map(|word| if LARGER.contains(&word) { Direction::Max } else { Direction::Min })
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(direction_of(name), expected, "{name}");
        }
    }
}
