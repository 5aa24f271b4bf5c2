//! Durations of options.

use std::time::Duration;

use plugin_api::{Error, Result};

/// The longest wait that an option may ask for: a day.
const LONGEST: f64 = 86_400.0;

/// The seconds of the option `name`.
///
/// # Errors
///
/// When they are negative, more than a day, or not a number.
pub fn seconds(name: &str, value: f64) -> Result<Duration> {
    if !(0.0..=LONGEST).contains(&value) {
        return Err(Error::new(format!("`{name}` = `{value}` is not a time from 0 to {LONGEST} seconds")));
    }
    Ok(Duration::from_secs_f64(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_of_a_day() {
        assert_eq!(seconds("timeout_seconds", 0.5).unwrap(), Duration::from_millis(500));
        for value in [-1.0, 1e9, f64::NAN, f64::INFINITY] {
            let found = seconds("timeout_seconds", value).unwrap_err();
            assert!(found.message().starts_with("`timeout_seconds` = "), "{found}");
        }
    }
}
