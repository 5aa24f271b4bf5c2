//! Why a file of weights cannot be read.

use std::path::PathBuf;

use super::pickle::PickleError;
use crate::checkpoint::CheckpointError;
use crate::refusal::Refusal;
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

impl From<PickleError> for Refusal {
    fn from(error: PickleError) -> Self {
        let refusal = Self::new(error.to_string());
        match error.hint() {
            Some(hint) => refusal.with_hint(hint),
            None => refusal,
        }
    }
}

impl Report for WeightsFileError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("the path of `init_from` is relative to the run file".to_owned()),
            Self::Refused { refusal, .. } => refusal.hint(),
            Self::Checkpoint(error) => error.hint(),
        }
    }
}
