//! The format of numbers and durations on a console.

use std::time::Duration;

/// A metric in at most ten characters: four decimals, or powers of ten where those are not enough.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value.is_finite() && size != 0.0 && !(1e-3..1e5).contains(&size) {
        format!("{value:.2e}")
    } else {
        format!("{value:.4}")
    }
}

/// `0:07`, `12:30`, `3:00:00`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_whatever_their_size() {
        let cases = [
            (0.0, "0.0000"),
            (-1.5, "-1.5000"),
            (0.001, "0.0010"),
            (3.2e-5, "3.20e-5"),
            (123_456.0, "1.23e5"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::MIN, "-1.80e308"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn durations_are_clock_times() {
        for (seconds, text) in [(0, "0:00"), (7, "0:07"), (750, "12:30"), (10_800, "3:00:00")] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
