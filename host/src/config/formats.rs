//! The small languages inside strings: `5 epochs`, `val_loss < 0.5`, `cuda:0`.
//!
//! Each is a type with [`std::str::FromStr`]. Its schema has `"format": "<name>"`, and [`check`](super::check) finds
//! the parser here, so that a bad string is reported with its place like any other error of the schema.

use super::condition::Condition;
use super::device::Device;
use super::encoding::{Delimiter, Encoding};
use super::when::{At, Every};
use crate::expression::{Expression, ExpressionError};
use crate::report::Report;

/// Why a string does not have its format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FormatError {
    /// What is wrong.
    pub message: String,
    /// What is accepted.
    pub hint: String,
}

impl FormatError {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> FormatError {
        FormatError { message: message.into(), hint: hint.into() }
    }
}

impl Report for FormatError {
    fn hint(&self) -> Option<String> {
        Some(self.hint.clone())
    }
}

pub(super) type Parser = fn(&str) -> Result<(), FormatError>;

/// Every format by the name that schemas use.
pub(super) const FORMATS: [(&str, Parser); 10] = [
    ("every", |text| text.parse::<Every>().map(drop)),
    ("at", |text| text.parse::<At>().map(drop)),
    ("condition", |text| text.parse::<Condition>().map(drop)),
    ("expression", |text| Expression::read(text, []).map(drop).map_err(|error| no_expression(text, &error))),
    ("actions", |text| Expression::read_actions(text, []).map(drop).map_err(|error| no_expression(text, &error))),
    ("device", |text| text.parse::<Device>().map(drop)),
    ("encoding", |text| text.parse::<Encoding>().map(drop)),
    ("delimiter", |text| text.parse::<Delimiter>().map(drop)),
    ("run-name", run_name),
    ("instance-name", instance_name),
];

fn no_expression(text: &str, error: &ExpressionError) -> FormatError {
    let hint = error.hint().unwrap_or_else(|| "`plugins/README.md` has the language, under `Expressions`".to_owned());
    FormatError::new(format!("`{text}` cannot be used: {error}"), hint)
}

fn run_name(text: &str) -> Result<(), FormatError> {
    let fits = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    // A run's name becomes a folder.
    if text.is_empty() || !text.chars().all(fits) || text.chars().all(|character| character == '.') {
        let hint = "a run's name consists of letters, digits, `.`, `_` and `-`, since it names a folder";
        return Err(FormatError::new(format!("`{text}` cannot be the name of a run"), hint));
    }
    Ok(())
}

/// Checks the name of a plugin instance or kind.
pub fn instance_name(text: &str) -> Result<(), FormatError> {
    let fits = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    if text.is_empty() || !text.chars().all(fits) {
        let rule = "a plugin's name consists of lower-case letters, digits and `-`, since it names folders and keys";
        let corrected = text.to_ascii_lowercase().replace(['_', ' '], "-");
        let is_better = corrected != text && instance_name(&corrected).is_ok();
        let hint = if is_better { format!("did you mean `{corrected}`? {rule}") } else { rule.to_owned() };
        return Err(FormatError::new(format!("`{text}` cannot be the name of a plugin"), hint));
    }
    Ok(())
}

/// Serde and schema of a type that is written as a string of the format `$format`.
macro_rules! written_as_string {
    ($type:ty, $format:literal, $description:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": $format, "description": $description })
            }
        }
    };
}
pub(super) use written_as_string;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_their_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "é"] {
            assert!(run_name(name).is_err(), "{name}");
        }
        for name in ["", ".", "A", "a_b", "a/b"] {
            assert!(instance_name(name).is_err(), "{name}");
        }
        assert_eq!((run_name("digits-2.1_b"), instance_name("early-stopping-2")), (Ok(()), Ok(())));
    }
}
