//! Why a program cannot be trained.

use std::path::PathBuf;

use crate::refusal::Refusal;
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
    /// What its arguments are given does not fit.
    #[error("the exported program `{}` does not fit the batches", path.display())]
    Arguments {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        refusal: Refusal,
    },
}

/// What of a program cannot be used.
#[derive(Debug)]
pub(super) enum ExportedRefusal {
    /// The program itself.
    Program(Refusal),
    /// What its arguments are given.
    Arguments(Refusal),
}

impl From<Refusal> for ExportedRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Program(refusal)
    }
}

impl From<TorchError> for ExportedRefusal {
    fn from(error: TorchError) -> Self {
        Self::Program(error.into())
    }
}

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
            Self::Refused { refusal, .. } | Self::Arguments { refusal, .. } => refusal.hint(),
        }
    }
}
