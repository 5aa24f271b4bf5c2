//! What callbacks and signals ask of the loop, until its next safe point.

use std::collections::VecDeque;

use plugin_api::protocol::Control;

/// Something asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) action: Control,
    /// The instance, or `host` for a signal.
    pub(super) by: String,
    pub(super) reason: String,
}

/// Why the run stops before its plan's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) by: String,
    pub(super) reason: String,
    /// By a signal.
    pub(super) interrupted: bool,
}

/// What is asked for and not done.
#[derive(Debug, Default)]
pub(super) struct Controls {
    pub(super) asked: VecDeque<Asked>,
    pub(super) stop: Option<Stop>,
    pub(super) end_epoch: bool,
    pub(super) skip_update: bool,
    pub(super) paused: bool,
}

impl Controls {
    pub(super) fn ask(&mut self, action: Control, by: &str, reason: &str) {
        // A checkpoint asked for by several is one checkpoint; so is an evaluation.
        let once = matches!(action, Control::Checkpoint | Control::Evaluate);
        if once && self.asked.iter().any(|asked| asked.action == action) {
            return;
        }
        self.asked.push_back(Asked { action, by: by.to_owned(), reason: reason.to_owned() });
    }

    /// Takes a `resume` that is waiting.
    pub(super) fn take_resume(&mut self) -> bool {
        let before = self.asked.len();
        self.asked.retain(|asked| asked.action != Control::Resume);
        before != self.asked.len()
    }

    pub(super) fn stop_is_asked(&self) -> bool {
        self.stop.is_some() || self.asked.iter().any(|asked| asked.action == Control::Stop)
    }
}
