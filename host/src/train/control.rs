//! Requests of callbacks and signals to the loop, until its next safe point.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use plugin_api::protocol::Control;
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use crate::distributed::ProcessGroup;

/// How many signals asked for the end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(pub Arc<AtomicUsize>);

impl Interrupt {
    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Requests that are not handled yet.
#[derive(Debug, Default)]
pub(super) struct Controls {
    asked: VecDeque<Asked>,
    stop: Option<Stop>,
    pub(super) end_epoch: bool,
    pub(super) skip_update: bool,
    pub(super) paused: bool,
    interrupt: Interrupt,
}

impl Controls {
    pub(super) fn new(interrupt: Interrupt) -> Self {
        Self { interrupt, ..Self::default() }
    }

    pub(super) fn ask(&mut self, action: Control, by: &str, reason: &str) {
        // Several requests for a checkpoint are one checkpoint; the same holds for an evaluation.
        let once = matches!(action, Control::Checkpoint | Control::Evaluate);
        if once && self.asked.iter().any(|asked| asked.action == action) {
            return;
        }
        self.asked.push_back(Asked { action, by: by.to_owned(), reason: reason.to_owned() });
    }

    /// Whether there were no requests since the last safe point. A signal requests a stop.
    #[inline]
    pub(super) fn nothing_asked(&mut self) -> bool {
        if self.interrupt.is_asked() && self.stop.is_none() {
            self.ask(Control::Stop, "host", "a signal asked for the end");
        }
        self.asked.is_empty()
    }

    /// Gives all ranks the requests of rank zero.
    pub(super) fn decide(&mut self, group: &dyn ProcessGroup) -> Result<(), TrainError> {
        let encoded = |error: serde_json::Error| TrainError::System {
            action: "cannot send the requests to the other processes",
            source: error.into(),
        };
        let asked = serde_json::to_vec(&self.asked).map_err(encoded)?;
        self.asked = serde_json::from_slice(&group.agree(asked)?).map_err(encoded)?;
        Ok(())
    }

    pub(super) fn next(&mut self) -> Option<Asked> {
        self.asked.pop_front()
    }

    pub(super) fn stop(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Whether a signal ends the run.
    pub(super) fn is_interrupted(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.interrupted)
    }

    /// Remembers the first request for a stop; returns false for a later one.
    pub(super) fn request_stop(&mut self, by: String, reason: String) -> bool {
        if self.stop.is_some() {
            return false;
        }
        tracing::info!(%by, %reason, "stopping");
        let interrupted = by == "host" && self.interrupt.is_asked();
        self.stop = Some(Stop { by, reason, interrupted });
        true
    }

    /// Takes a `resume` that is waiting.
    pub(super) fn take_resume(&mut self) -> bool {
        let before = self.asked.len();
        self.asked.retain(|asked| asked.action != Control::Resume);
        before != self.asked.len()
    }

    /// Whether a stop was requested, handled or not.
    pub(super) fn stop_is_asked(&mut self) -> bool {
        self.nothing_asked();
        self.stop.is_some() || self.asked.iter().any(|asked| asked.action == Control::Stop)
    }
}
