//! A failed hook, and its message.

use std::path::PathBuf;

use super::plan::OnError;
use crate::plugins::Fault;
use crate::report::Report;

/// The hook of a [`Failure`] to create an instance.
pub(super) const NEW: &str = "new";

/// A hook that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("plugin `{instance}` {} in `{hook}`: {}", if fault.panicked { "panicked" } else { "failed" }, fault.message)]
pub struct Failure {
    /// The instance.
    pub instance: String,
    /// Its kind.
    pub kind: String,
    /// Its library.
    pub path: PathBuf,
    /// The hook, by its event's name; `new` while the instance was created.
    pub hook: &'static str,
    /// What happened.
    pub fault: Fault,
    /// The run's policy for it.
    pub on_error: OnError,
}

impl Report for Failure {
    fn hint(&self) -> Option<String> {
        let place = if self.fault.place.is_empty() {
            format!("kind `{}` of `{}`", self.kind, self.path.display())
        } else {
            format!("at {}, kind `{}` of `{}`", self.fault.place, self.kind, self.path.display())
        };
        Some(match self.hook {
            // No policy applies: there is no instance to disable.
            NEW => place,
            _ => format!("{place}; `on_error = \"disable\"` would let the run continue without it"),
        })
    }
}
