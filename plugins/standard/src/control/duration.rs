//! Durations in options, written as the run file writes them in `when`: `30 s`, `10 min`, `2 h`.

use std::time::Duration;

use plugin_api::{Error, Result};

/// The duration that the option `name` says.
pub(super) fn parse(name: &str, text: &str) -> Result<Duration> {
    let refused = || {
        let accepted = "write a whole number above 0 and a unit, as in `30 s`, `10 min` or `2 h`";
        Error::new(format!("`{name}` = `{text}` is not a duration: {accepted}"))
    };
    let trimmed = text.trim();
    let digits = trimmed.trim_start_matches(|character: char| character.is_ascii_digit());
    let number: u64 = trimmed[..trimmed.len() - digits.len()].parse().map_err(|_| refused())?;
    let seconds = match digits.trim() {
        "s" | "sec" | "second" | "seconds" => 1,
        "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        _ => return Err(refused()),
    };
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds > 0).ok_or_else(refused)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_and_a_unit_are_a_duration() {
        for (text, seconds) in [("30 s", 30), (" 10min ", 600), ("2 hours", 7200), ("1 second", 1)] {
            assert_eq!(parse("duration", text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "2", "h", "0 s", "1.5 h", "-1 h", "2 days", "2 h 30 min", "9999999999999999 h"] {
            let error = parse("reserve", text).unwrap_err();
            assert!(error.message().starts_with(&format!("`reserve` = `{text}` is not a duration: write ")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9]{0,21} ?[a-z]{0,4}|\\PC{0,12}") {
            let _ = parse("duration", &text);
        }
    }
}
