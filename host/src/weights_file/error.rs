//! Why a file of weights cannot be read.

use std::fmt;
use std::path::PathBuf;

use super::pickle::PickleError;
use crate::checkpoint::CheckpointError;
use crate::report::Report;

/// Why a file's weights cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsFileError {
    /// The system reported an error.
    #[error("cannot read the weights `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no file of weights, or one that is not read.
    #[error("cannot read the weights `{}`", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// It is a checkpoint that is damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// What is wrong with a file, and what to do.
#[derive(Debug)]
pub struct Refusal {
    message: String,
    hint: Option<String>,
}

impl Refusal {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<PickleError> for Refusal {
    fn from(error: PickleError) -> Self {
        Self { message: error.to_string(), hint: error.hint() }
    }
}

impl Report for WeightsFileError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("the path of `init_from` is relative to the run file".to_owned()),
            Self::Refused { refusal, .. } => refusal.hint.clone(),
            Self::Checkpoint(error) => error.hint(),
        }
    }
}
