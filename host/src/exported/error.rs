//! Why a program cannot be trained.

use std::fmt;
use std::path::PathBuf;

use crate::report::Report;
use crate::torch::TorchError;

/// Why a file cannot be trained as an exported program.
#[derive(Debug, thiserror::Error)]
pub enum ExportedError {
    /// The file cannot be read.
    #[error("cannot read the exported program `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no such program, or one that cannot be trained.
    #[error("the exported program `{}` cannot be trained", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        refusal: Refusal,
    },
}

/// What is wrong with a program, and what to do.
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

    /// The same with a message that says where it is.
    pub(super) fn in_node(self, message: String) -> Self {
        Self { message, ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<TorchError> for Refusal {
    fn from(error: TorchError) -> Self {
        Self::new(match error {
            TorchError::Operation { message, .. } => message,
            other => other.to_string(),
        })
    }
}

impl Report for ExportedError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("`exported` is relative to the run file".to_owned()),
            Self::Refused { refusal, .. } => refusal.hint.clone(),
        }
    }
}
