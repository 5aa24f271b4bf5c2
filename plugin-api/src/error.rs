//! The error of a callback.

use std::fmt;

use crate::abi::kinds::Status;

/// The result of a callback's methods and of the services.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a callback or a service failed: a message and what kind of failure it is.
///
/// Any [`std::error::Error`] becomes one with `?`, its causes joined by `: `. As with other
/// catch-all errors, this type is therefore not a `std::error::Error` itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
    kind: ErrorKind,
}

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The callback's own, or one without another kind.
    Failed,
    /// The handle was used after its hook, or a remote after the run.
    Stale,
    /// The host is older than this service.
    Unknown,
    /// There is no metric, tensor, split or node with that name; the message lists the nearest ones. Or the model has no
    /// graph.
    NoSuchName,
    /// Not allowed in this hook, at this point, or in the background.
    NotAllowed,
    /// The metric is known but has no value yet.
    NoValue,
}

impl Error {
    /// An error of the callback's own.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: ErrorKind::Failed }
    }

    /// Puts `context` in front of the message.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self { message: format!("{context}: {}", self.message), kind: self.kind }
    }

    /// What happened, in one line without a final period.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn of_service(status: Status, message: String) -> Self {
        let kind = match status {
            Status::STALE => ErrorKind::Stale,
            Status::UNKNOWN => ErrorKind::Unknown,
            Status::NO_SUCH_NAME => ErrorKind::NoSuchName,
            Status::NOT_ALLOWED => ErrorKind::NotAllowed,
            Status::NO_VALUE => ErrorKind::NoValue,
            _ => ErrorKind::Failed,
        };
        Self { message, kind }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors repeat their cause in their own message.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        Self::new(message)
    }
}
