//! What a command finds in its environment.

use notice::{Field, Notice};

/// The prefix of each variable.
const PREFIX: &str = "HOST_";

/// The most metrics that get a variable; systems start no program whose environment is too large.
const MOST_METRICS: usize = 1000;

/// The variables of a notice. Metrics whose names differ only in punctuation share one, which the last metric sets.
pub(crate) fn variables(notice: &Notice) -> Vec<(String, String)> {
    let of_field = |name: &str| {
        let value = match notice.field(name)? {
            Field::Text(text) => text.replace('\0', "\u{fffd}"),
            Field::Number(number) => number.to_string(),
        };
        Some((format!("{PREFIX}{}", variable(name)), value))
    };
    let fields = notice.names().filter_map(of_field);
    let of_metric = |(name, value): (&String, &f64)| (format!("{PREFIX}METRIC_{}", variable(name)), value.to_string());
    fields.chain(notice.metrics.iter().take(MOST_METRICS).map(of_metric)).collect()
}

fn variable(name: &str) -> String {
    let part = |character: char| if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() } else { '_' };
    name.chars().map(part).collect()
}
