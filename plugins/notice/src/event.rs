//! The events that notifiers report.

use plugin_api::event::Outcome;
use plugin_api::schemars;
use serde::{Deserialize, Serialize};

/// An event of a run that a notifier can report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(crate = "plugin_api::schemars")]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The training starts, or resumes from a checkpoint.
    Start,
    /// The instance's `when` holds.
    Trigger,
    /// A metric in `best` of `when` reached a new best value.
    Improved,
    /// Something was published: a checkpoint, an export.
    Artifact,
    /// A callback, or a person, stopped the run before its end.
    Stopped,
    /// The run failed.
    Failed,
    /// A signal ended the run.
    Interrupted,
    /// All epochs or steps are done.
    Finished,
}

impl Event {
    /// Its name in run files and notices.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Trigger => "trigger",
            Self::Improved => "improved",
            Self::Artifact => "artifact",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Finished => "finished",
        }
    }
}

impl From<Outcome> for Event {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Finished => Self::Finished,
            Outcome::Stopped => Self::Stopped,
            Outcome::Interrupted => Self::Interrupted,
            // An unknown outcome of a newer host is not a success.
            _ => Self::Failed,
        }
    }
}
