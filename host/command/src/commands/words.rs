//! Numbers and times in words.

use std::time::Duration;

use serde_json::Value;

/// `45 s`, `12 min`, `3 h 20 min`, `5 days`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min", whole / 60),
        3600..172_800 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} days", whole / 86_400),
    }
}

/// How long ago something was.
pub(super) fn ago(age: Duration) -> String {
    format!("{} ago", duration(age.as_secs_f64()))
}

/// A number with as many digits as people read.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-3..1e5).contains(&size) { format!("{value:.4}") } else { format!("{value:.3e}") }
}

/// The value of a metric in `status.json`.
pub(super) fn metric(value: &Value) -> String {
    match value {
        Value::Number(value) => value.as_f64().map_or_else(|| value.to_string(), number),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_people_would_choose() {
        let told = [0.4, 59.0, 61.0, 3599.0, 3600.0, 100_000.0, 1e6].map(duration);
        assert_eq!(told, ["0 s", "59 s", "1 min", "59 min", "1 h 0 min", "27 h 46 min", "11 days"]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.12345, 1e-5, 123_456.0].map(number), ["0.0000", "0.1235", "1.000e-5", "1.235e5"]);
    }
}
