//! Requests of callbacks and signals to the loop, until its next safe point.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::protocol::Control;
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use crate::distributed::ProcessGroup;

/// Who asks where a signal does, and the author of the records that the host puts.
pub(super) const HOST: &str = "host";

/// How many signals asked for the end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(pub Arc<AtomicUsize>);

impl Interrupt {
    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// Requests of other threads and processes, which the loop reads at its next safe point. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Whether there are any: the loop looks after each step.
    any: AtomicBool,
    asked: Mutex<Vec<Asked>>,
}

impl Requests {
    /// Asks for an action, as a callback does; `by` says who asks.
    pub fn ask(&self, action: Control, by: &str, reason: &str) {
        self.push(Asked::new(action, by, reason));
    }

    /// Asks for the end, as if everything planned were done.
    pub fn finish(&self, by: &str, reason: &str) {
        self.push(Asked { finishes: true, ..Asked::new(Control::Stop, by, reason) });
    }

    fn push(&self, asked: Asked) {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        self.0.any.store(true, Ordering::Release);
    }

    #[inline]
    fn take(&self) -> Vec<Asked> {
        if !self.0.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.any.store(false, Ordering::Relaxed);
        std::mem::take(&mut asked)
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) action: Control,
    /// The instance, `host` for a signal, or a user.
    pub(super) by: String,
    pub(super) reason: String,
    /// A stop after which the run counts as finished.
    pub(super) finishes: bool,
    /// A stop by a signal, of whichever rank.
    pub(super) interrupted: bool,
}

impl Asked {
    fn new(action: Control, by: &str, reason: &str) -> Self {
        Self { action, by: by.to_owned(), reason: reason.to_owned(), finishes: false, interrupted: false }
    }
}

/// Why the run stops before its plan's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) by: String,
    pub(super) reason: String,
    /// By a signal.
    pub(super) interrupted: bool,
    /// The run counts as finished.
    pub(super) finishes: bool,
}

/// Requests that are not handled yet.
#[derive(Debug, Default)]
pub(super) struct Controls {
    /// What is asked in this process.
    asked: VecDeque<Asked>,
    /// What all ranks do, where there are several; what is asked meanwhile waits for the next time that they decide.
    decided: Option<VecDeque<Asked>>,
    stop: Option<Stop>,
    pub(super) end_epoch: bool,
    pub(super) skip_update: bool,
    pub(super) paused: bool,
    interrupt: Interrupt,
    requests: Requests,
}

impl Controls {
    /// For a run of several ranks, `together` decided.
    pub(super) fn new(interrupt: Interrupt, requests: Requests, together: bool) -> Self {
        Self { interrupt, requests, decided: together.then(VecDeque::new), ..Self::default() }
    }

    pub(super) fn ask(&mut self, action: Control, by: &str, reason: &str) {
        push(&mut self.asked, Asked::new(action, by, reason));
    }

    /// Whether there were no requests in this process since the last safe point. A signal requests a stop.
    #[inline]
    pub(super) fn nothing_asked(&mut self) -> bool {
        if self.interrupt.is_asked() && self.stop.is_none() && self.asked.iter().all(|asked| !asked.interrupted) {
            let asked = Asked::new(Control::Stop, HOST, "a signal asked for the end");
            self.asked.push_back(Asked { interrupted: true, ..asked });
        }
        for asked in self.requests.take() {
            push(&mut self.asked, asked);
        }
        self.asked.is_empty()
    }

    /// Gives all ranks the requests of each, in the order of the ranks. Returns whether there are none.
    pub(super) fn decide(&mut self, group: &ProcessGroup) -> Result<bool, TrainError> {
        let encoded = |error: serde_json::Error| TrainError::System {
            action: "cannot send the requests to the other processes",
            source: error.into(),
        };
        self.nothing_asked();
        let own = serde_json::to_vec(&self.asked).map_err(encoded)?;
        self.asked.clear();
        let decided = self.decided.get_or_insert_default();
        for asked in group.exchange(own)? {
            let asked: Vec<Asked> = serde_json::from_slice(&asked).map_err(encoded)?;
            asked.into_iter().for_each(|asked| push(decided, asked));
        }
        Ok(decided.is_empty())
    }

    /// The requests that are obeyed.
    fn waiting(&mut self) -> &mut VecDeque<Asked> {
        self.decided.as_mut().unwrap_or(&mut self.asked)
    }

    pub(super) fn next(&mut self) -> Option<Asked> {
        self.waiting().pop_front()
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
    pub(super) fn request_stop(&mut self, asked: &Asked) -> bool {
        if self.stop.is_some() {
            return false;
        }
        tracing::info!(by = asked.by, reason = asked.reason, "stopping");
        self.stop = Some(asked.to_stop());
        true
    }

    /// Takes what waits for `action`, before anything else that waits.
    pub(super) fn take(&mut self, action: Control) -> Option<Asked> {
        self.nothing_asked();
        let waiting = self.waiting();
        let first = waiting.iter().find(|asked| asked.action == action).cloned();
        waiting.retain(|asked| asked.action != action);
        first
    }

    /// Takes a resume; whether there was one. It ends every pause that was asked for before it.
    pub(super) fn take_resume(&mut self) -> bool {
        self.nothing_asked();
        let waiting = self.waiting();
        let Some(last) = waiting.iter().rposition(|asked| asked.action == Control::Resume) else { return false };
        let after = waiting.split_off(last);
        waiting.retain(|asked| !matches!(asked.action, Control::Pause | Control::Resume));
        waiting.extend(after.into_iter().skip(1));
        true
    }

    /// Whether a stop was requested, handled or not.
    pub(super) fn stop_is_asked(&mut self) -> bool {
        self.asked_stop().is_some()
    }

    /// The first request for a stop, handled or not.
    pub(super) fn asked_stop(&mut self) -> Option<Stop> {
        self.nothing_asked();
        let asked = self.waiting().iter().find(|asked| asked.action == Control::Stop).map(Asked::to_stop);
        self.stop.clone().or(asked)
    }
}

impl Asked {
    fn to_stop(&self) -> Stop {
        let Asked { by, reason, interrupted, finishes, .. } = self.clone();
        Stop { by, reason, interrupted, finishes }
    }
}

/// Adds a request: several for one thing are one, so that a callback that asks without end fills no memory.
fn push(waiting: &mut VecDeque<Asked>, asked: Asked) {
    match asked.action {
        // Once is enough, whoever asks.
        Control::Checkpoint | Control::Evaluate | Control::EndEpoch
            if waiting.iter().any(|other| other.action == asked.action) => {}
        // The last counts: a pause after a resume is a pause.
        Control::Pause | Control::Resume => {
            waiting.retain(|other| other.action != asked.action);
            waiting.push_back(asked);
        }
        Control::Stop
            if waiting.iter().any(|other| {
                other.action == Control::Stop
                    && other.by == asked.by
                    && (other.finishes, other.interrupted) == (asked.finishes, asked.interrupted)
            }) => {}
        _ => waiting.push_back(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls(asked: &[(Control, &str)]) -> Controls {
        let mut controls = Controls::new(Interrupt::default(), Requests::default(), false);
        asked.iter().for_each(|(action, by)| controls.ask(*action, by, "a reason"));
        controls
    }

    fn waiting(controls: &mut Controls) -> Vec<(Control, String)> {
        std::iter::from_fn(|| controls.next()).map(|asked| (asked.action, asked.by)).collect()
    }

    #[test]
    fn who_asks_without_end_asks_once() {
        use Control::{Checkpoint, EndEpoch, Pause, Resume, Stop};
        let flood: Vec<(Control, &str)> = [Stop, EndEpoch, Checkpoint, Pause, Resume]
            .map(|action| (action, "a"))
            .into_iter()
            .cycle()
            .take(5000)
            .collect();
        let mut flooded = controls(&flood);
        flooded.ask(Stop, "b", "another");
        let told = waiting(&mut flooded);
        let by = |by: &'static str| move |action| (action, by.to_owned());
        let expected: Vec<_> =
            [Stop, EndEpoch, Checkpoint, Pause, Resume].map(by("a")).into_iter().chain([by("b")(Stop)]).collect();
        assert_eq!(told, expected);
        assert_eq!(
            waiting(&mut controls(&[(Pause, "a"), (Resume, "b"), (Pause, "c")])),
            [by("b")(Resume), by("c")(Pause)]
        );
    }

    #[test]
    fn a_resume_ends_the_pauses_before_it() {
        use Control::{Checkpoint, Pause, Resume};
        let mut asked = controls(&[(Checkpoint, "a"), (Pause, "a"), (Resume, "b")]);
        assert!(asked.take_resume() && !asked.take_resume());
        assert_eq!(waiting(&mut asked), [(Checkpoint, "a".to_owned())]);
        let mut asked = controls(&[(Resume, "b"), (Pause, "a")]);
        assert!(asked.take_resume());
        assert_eq!(waiting(&mut asked), [(Pause, "a".to_owned())]);
    }
}
