//! `when`: the times at which a plugin's `trigger` is called.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use plugin_api::Direction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::formats::{FormatError, written_as_string};

/// The times at which a plugin is triggered: when any of `every`, `at` and `best` says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, from = "WrittenWhen")]
#[schemars(!from)]
pub struct When {
    /// The interval in epochs, steps (both counted from 1) or time. `1 epoch` if none of `every`, `at` and `best` is
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Every>,
    /// `every` starts only after this number of its own units (epochs, steps or times).
    #[serde(default)]
    pub skip_first: u64,
    /// At these points.
    #[serde(default)]
    pub at: Vec<At>,
    /// Whenever one of these metrics reaches a new best value.
    #[serde(default, with = "best")]
    #[schemars(with = "std::collections::BTreeMap<String, Direction>")]
    pub best: Vec<(String, Direction)>,
}

/// [`When`] as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWhen {
    every: Option<Every>,
    #[serde(default)]
    skip_first: u64,
    #[serde(default)]
    at: Vec<At>,
    #[serde(default, with = "best")]
    best: Vec<(String, Direction)>,
}

impl From<WrittenWhen> for When {
    fn from(written: WrittenWhen) -> When {
        let WrittenWhen { every, skip_first, at, best } = written;
        let nothing_else = at.is_empty() && best.is_empty();
        let every = every.or_else(|| nothing_else.then_some(Every::EPOCH));
        When { every, skip_first, at, best }
    }
}

impl Default for When {
    /// After each epoch.
    fn default() -> When {
        When { every: Some(Every::EPOCH), skip_first: 0, at: Vec::new(), best: Vec::new() }
    }
}

/// An interval: `5 epochs`, `100 steps`, `10 min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// A number of epochs.
    Epochs(NonZeroU64),
    /// A number of optimizer updates, counted over the whole run.
    Steps(NonZeroU64),
    /// A duration; whole seconds, not zero.
    Time(Duration),
}

impl Every {
    /// Each epoch.
    pub const EPOCH: Every = Every::Epochs(NonZeroU64::MIN);
}

const EVERY_ACCEPTS: &str =
    "accepted: a whole number and a unit, as in `1 epoch`, `5 epochs`, `100 steps`, `30 s`, `10 min` or `2 h`";

impl FromStr for Every {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Every, FormatError> {
        let refuse = || FormatError::new(format!("`{text}` is not an interval"), EVERY_ACCEPTS);
        let trimmed = text.trim();
        let digits = trimmed.len() - trimmed.trim_start_matches(|character: char| character.is_ascii_digit()).len();
        let (number, unit) = trimmed.split_at(digits);
        let number: NonZeroU64 = number.parse().map_err(|_| refuse())?;
        let seconds =
            |each| number.get().checked_mul(each).map(Duration::from_secs).map(Every::Time).ok_or_else(refuse);
        match unit.trim() {
            "epoch" | "epochs" => Ok(Every::Epochs(number)),
            "step" | "steps" => Ok(Every::Steps(number)),
            "s" | "sec" | "second" | "seconds" => seconds(1),
            "min" | "minute" | "minutes" => seconds(60),
            "h" | "hour" | "hours" => seconds(3600),
            _ => Err(refuse()),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |number: &NonZeroU64| if number.get() == 1 { "" } else { "s" };
        match self {
            Every::Epochs(number) => write!(formatter, "{number} epoch{}", plural(number)),
            Every::Steps(number) => write!(formatter, "{number} step{}", plural(number)),
            Every::Time(time) => match time.as_secs() {
                seconds if seconds % 3600 == 0 => write!(formatter, "{} h", seconds / 3600),
                seconds if seconds % 60 == 0 => write!(formatter, "{} min", seconds / 60),
                seconds => write!(formatter, "{seconds} s"),
            },
        }
    }
}

written_as_string!(Every, "every", "An interval: `5 epochs`, `100 steps`, `10 min`");

/// A point of the run: `epoch 30`, `step 100`, `end`, `failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The end of this epoch, from 1.
    Epoch(NonZeroU64),
    /// The end of this optimizer update, from 1 over the whole run.
    Step(NonZeroU64),
    /// The end of the training, unless it failed.
    End,
    /// When a failure has ended the training.
    Failure,
}

impl FromStr for At {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<At, FormatError> {
        let refuse = || {
            FormatError::new(
                format!("`{text}` is not a point of a run"),
                "accepted: `epoch 30`, `step 100`, `end` or `failure`",
            )
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| word.parse().map_err(|_| refuse());
        match words[..] {
            ["end"] => Ok(At::End),
            ["failure"] => Ok(At::Failure),
            ["epoch", epoch] => Ok(At::Epoch(number(epoch)?)),
            ["step", step] => Ok(At::Step(number(step)?)),
            _ => Err(refuse()),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Epoch(epoch) => write!(formatter, "epoch {epoch}"),
            At::Step(step) => write!(formatter, "step {step}"),
            At::End => formatter.write_str("end"),
            At::Failure => formatter.write_str("failure"),
        }
    }
}

written_as_string!(At, "at", "A point of the run: `epoch 30`, `step 100`, `end`, `failure`");

/// `{ val_loss = "min" }` as pairs, in the order in which they are written.
pub(super) mod best {
    use plugin_api::Direction;
    use serde::Deserializer;

    pub use crate::config::pairs::serialize;

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Direction)>, D::Error> {
        crate::config::pairs::deserialize(deserializer, "a table of metric names, each `min` or `max`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn intervals() {
        let count = |number| NonZeroU64::new(number).unwrap();
        assert_eq!("5 epochs".parse(), Ok(Every::Epochs(count(5))));
        assert_eq!(" 100steps ".parse(), Ok(Every::Steps(count(100))));
        assert_eq!("10 min".parse(), Ok(Every::Time(Duration::from_secs(600))));
        for text in [
            "",
            "5",
            "0 epochs",
            "-1 steps",
            "1.5 h",
            "epochs",
            "5 epoch s",
            "99999999999999999999 h",
            "9999999999999999999 h",
        ] {
            assert_eq!(text.parse::<Every>().unwrap_err().hint, EVERY_ACCEPTS, "{text}");
        }
    }

    #[test]
    fn points() {
        assert_eq!("epoch 30".parse(), Ok(At::Epoch(NonZeroU64::new(30).unwrap())));
        assert_eq!("end".parse(), Ok(At::End));
        for text in ["", "epoch", "epoch 0", "30", "epoch 1 2", "start"] {
            assert!(text.parse::<At>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_said_is_each_epoch() {
        let parse = |value| serde_json::from_value::<When>(value).unwrap();
        assert_eq!(parse(json!({})), When::default());
        assert_eq!(parse(json!({"skip_first": 4})).every, Some(Every::EPOCH));
        assert_eq!(parse(json!({"at": ["end"]})).every, None);
        let best = parse(json!({"best": {"val_loss": "min", "accuracy": "max"}}));
        assert_eq!(best.best, [("val_loss".to_owned(), Direction::Min), ("accuracy".to_owned(), Direction::Max)]);
    }

    #[test]
    fn nan_is_never_best() {}

    fn any_every() -> impl Strategy<Value = Every> {
        let count = || (1..=u64::MAX).prop_map(|number| NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN));
        prop_oneof![
            count().prop_map(Every::Epochs),
            count().prop_map(Every::Steps),
            (1..=u64::MAX).prop_map(|seconds| Every::Time(Duration::from_secs(seconds))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(every in any_every(), step in 1..=u64::MAX) {
            prop_assert_eq!(every.to_string().parse(), Ok(every));
            let at = At::Step(NonZeroU64::new(step).unwrap());
            prop_assert_eq!(at.to_string().parse(), Ok(at));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-z ]{0,12}|\\PC{0,12}") {
            if let Ok(every) = text.parse::<Every>() {
                prop_assert_eq!(every.to_string().parse(), Ok(every));
            }
            if let Ok(at) = text.parse::<At>() {
                prop_assert_eq!(at.to_string().parse(), Ok(at));
            }
        }
    }
}
