//! Why a call is refused or fails.

use plugin_api::abi::kinds::Status;
use plugin_api::services::{self, Refusal};

use crate::expression::ExpressionError;
use crate::history::HistoryError;
use crate::report::Report;

/// Why a service was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The handle is spent.
    #[error("the handle was used after its hook had returned")]
    Stale,
    /// The remote was used after the training.
    #[error("the remote was used after the end of the training")]
    Closed,
    /// The table of services does not permit it.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The name does not exist.
    #[error("{0}")]
    NoSuchName(String),
    /// The metric is known but has no value yet.
    #[error("{0}")]
    NoValue(String),
    /// The model has no graph, and why.
    #[error("the model has no graph: {0}")]
    NoGraph(String),
    /// What was requested is not available now.
    #[error("{0}")]
    NotAllowed(String),
    /// The service failed.
    #[error("{0}")]
    Failed(String),
}

impl ServiceError {
    /// There is no `what` called `name`; the message lists the nearest of `names`.
    pub fn no_such_name<'n>(what: &str, name: &str, names: impl IntoIterator<Item = &'n str>) -> Self {
        Self::NoSuchName(services::no_such_name(what, name, names))
    }

    /// The status that the plugin gets.
    pub fn status(&self) -> Status {
        match self {
            Self::Stale | Self::Closed => Status::STALE,
            Self::Refused(refusal) => refusal.status,
            Self::NoSuchName(_) | Self::NoGraph(_) => Status::NO_SUCH_NAME,
            Self::NoValue(_) => Status::NO_VALUE,
            Self::NotAllowed(_) => Status::NOT_ALLOWED,
            Self::Failed(_) => Status::ERROR,
        }
    }
}

impl From<Refusal> for ServiceError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ExpressionError> for ServiceError {
    fn from(error: ExpressionError) -> Self {
        let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
        Self::Failed(format!("the expression is wrong: {error}{hint}"))
    }
}

impl From<HistoryError> for ServiceError {
    fn from(error: HistoryError) -> Self {
        match &error {
            HistoryError::UnknownName { .. } => {
                let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
                Self::NoSuchName(format!("{error}{hint}"))
            }
            HistoryError::NoValue { .. } => Self::NoValue(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}
