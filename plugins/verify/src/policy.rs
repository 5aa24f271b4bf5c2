//! How strictly a run verifies.

use std::path::Path;

use plugin_api::schemars::JsonSchema;
use plugin_api::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::Verdict;

/// Whether a file is run and compared before it is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "plugin_api::schemars", with = "Written")]
#[serde(from = "Written", into = "Written")]
pub enum Policy {
    /// Not at all.
    Off,
    /// A file with different results is an error; one that cannot be run here is published with a warning.
    #[default]
    On,
    /// A file that cannot be run here is an error too.
    Required,
}

/// As written in the run file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "plugin_api::schemars")]
#[serde(untagged)]
enum Written {
    Switch(bool),
    Word(Word),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "plugin_api::schemars")]
#[serde(rename_all = "snake_case")]
enum Word {
    Required,
}

impl From<Written> for Policy {
    fn from(written: Written) -> Policy {
        match written {
            Written::Switch(false) => Policy::Off,
            Written::Switch(true) => Policy::On,
            Written::Word(Word::Required) => Policy::Required,
        }
    }
}

impl From<Policy> for Written {
    fn from(policy: Policy) -> Written {
        match policy {
            Policy::Off => Written::Switch(false),
            Policy::On => Written::Switch(true),
            Policy::Required => Written::Word(Word::Required),
        }
    }
}

impl Policy {
    /// Whether a file with this verdict is unverified: it is published and marked.
    ///
    /// # Errors
    ///
    /// When it could not be verified, and must be.
    pub fn marks_unverified(self, verdict: &Verdict, path: &Path) -> Result<bool> {
        let Verdict::Unverified(reason) = verdict else { return Ok(false) };
        let sentence = format!("`{}` cannot be verified: {reason}", path.display());
        if self == Policy::Required {
            let hint = "`verify = true` publishes it anyway, with a warning";
            return Err(Error::new(format!("{sentence}; {hint}")));
        }
        plugin_api::tracing::warn!("{sentence}");
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_switch_or_a_word() {
        let read = |text: &str| serde_json::from_str::<Policy>(text);
        assert_eq!(read("true").unwrap(), Policy::On);
        assert_eq!(read("false").unwrap(), Policy::Off);
        assert_eq!(read("\"required\"").unwrap(), Policy::Required);
        assert!(read("\"maybe\"").is_err());
        assert_eq!(serde_json::to_string(&Policy::Required).unwrap(), "\"required\"");
    }

    #[test]
    fn what_must_be_verified_is_refused_otherwise() {
        let (verified, unverified) =
            (Verdict::Verified(0.0), Verdict::Unverified("it does not run `GATHER`".to_owned()));
        let path = Path::new("exports/model.tflite");
        assert!(!Policy::On.marks_unverified(&verified, path).unwrap());
        assert!(Policy::On.marks_unverified(&unverified, path).unwrap());
        let error = Policy::Required.marks_unverified(&unverified, path).unwrap_err();
        assert!(error.message().contains("cannot be verified: it does not run `GATHER`"), "{error}");
    }
}
