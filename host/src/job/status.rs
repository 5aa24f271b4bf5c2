//! `status.json`: where a run is, for people and programs outside it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::event::Outcome;
use serde::Serialize;

use super::folder::write_whole;
use crate::config::OnError;
use crate::console::Console;
use crate::dispatch::{Failure, HookTime};
use crate::history::Position;
use crate::report::Problem;
use crate::services::{Screen, Services};
use crate::train::{RunOutputs, Session};

/// The content of `status.json`. Numbers that JSON cannot represent are strings: `"NaN"`, `"inf"`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Status {
    pub(super) run: String,
    /// `starting`, `running`, `paused`, or the outcome.
    pub(super) state: String,
    pub(super) outcome: Option<&'static str>,
    pub(super) reason: Option<String>,
    pub(super) error: Option<String>,
    /// What is wrong with a run that did not fail: its loss is NaN, nothing keeps its weights.
    pub(super) warnings: Vec<String>,
    pub(super) process: u32,
    pub(super) started: String,
    pub(super) updated: String,
    pub(super) position: PositionStatus,
    /// From 0 to 1.
    pub(super) progress: f64,
    /// Seconds since the run began, those of earlier processes too.
    pub(super) elapsed: f64,
    /// Estimated from the speed so far, in seconds.
    pub(super) time_left: Option<f64>,
    /// Seconds in which the loop had to wait for batches, in this process.
    pub(super) waited_for_data: f64,
    pub(super) metrics: BTreeMap<String, serde_json::Value>,
    pub(super) artifacts: BTreeMap<String, serde_json::Value>,
    /// Every failure of a callback, also those that the run survived.
    pub(super) failures: Vec<FailureStatus>,
    /// What each hook cost, most expensive first.
    pub(super) callbacks: Vec<CallbackStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct FailureStatus {
    plugin: String,
    kind: String,
    library: String,
    hook: &'static str,
    message: String,
    /// Where in its source, if known.
    place: Option<String>,
    panicked: bool,
    /// What the run's policy did about it.
    on_error: OnError,
}

impl FailureStatus {
    fn of(failure: &Failure) -> Self {
        let Failure { instance, kind, path, hook, fault, on_error } = failure;
        Self {
            plugin: instance.clone(),
            kind: kind.clone(),
            library: path.display().to_string(),
            hook,
            message: fault.message.clone(),
            place: (!fault.place.is_empty()).then(|| fault.place.clone()),
            panicked: fault.panicked,
            on_error: *on_error,
        }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct PositionStatus {
    epoch: u64,
    step: u64,
    global_step: u64,
    samples: u64,
}

impl PositionStatus {
    /// In words: `3 epochs, 84 steps`.
    pub(super) fn in_words(&self) -> String {
        let plural = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        format!("{}, {}", plural(self.epoch, "epoch"), plural(self.global_step, "step"))
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct CallbackStatus {
    plugin: String,
    hook: &'static str,
    /// Whether it ran in the background: the loop did not wait for it.
    background: bool,
    calls: u64,
    seconds: f64,
    longest_seconds: f64,
}

/// Keeps `status.json`, and receives the loop's outputs. Belongs to the training thread.
pub(super) struct StatusFile {
    path: PathBuf,
    console: Arc<Console>,
    state: RefCell<State>,
}

struct State {
    status: Status,
    began: Instant,
    progress_at_start: Option<f64>,
    last_write: Option<Instant>,
}

/// The least time between two writes, unless something ends.
const INTERVAL: Duration = Duration::from_millis(250);

impl StatusFile {
    pub(super) fn new(path: PathBuf, run: &str, console: Arc<Console>) -> Self {
        let now = now();
        let status = Status {
            run: run.to_owned(),
            state: "starting".to_owned(),
            outcome: None,
            reason: None,
            error: None,
            warnings: Vec::new(),
            process: std::process::id(),
            started: now.clone(),
            updated: now,
            position: PositionStatus::default(),
            progress: 0.0,
            elapsed: 0.0,
            time_left: None,
            waited_for_data: 0.0,
            metrics: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            failures: Vec::new(),
            callbacks: Vec::new(),
        };
        let state = State { status, began: Instant::now(), progress_at_start: None, last_write: None };
        Self { path, console, state: RefCell::new(state) }
    }

    /// The run has ended. `error` is the whole chain of causes.
    pub(super) fn end(
        &self,
        outcome: Outcome,
        reason: &str,
        error: Option<String>,
        failures: &[Failure],
        times: &[HookTime],
    ) {
        {
            let status = &mut self.state.borrow_mut().status;
            status.state = outcome.name().to_owned();
            status.outcome = Some(outcome.name());
            status.reason = (!reason.is_empty()).then(|| reason.to_owned());
            status.error = error;
            status.time_left = None;
            status.failures = failures.iter().map(FailureStatus::of).collect();
            status.callbacks = times
                .iter()
                .map(|time| CallbackStatus {
                    plugin: time.instance.clone(),
                    hook: time.hook,
                    background: time.background,
                    calls: time.calls,
                    seconds: time.total.as_secs_f64(),
                    longest_seconds: time.longest.as_secs_f64(),
                })
                .collect();
        }
        self.write();
    }

    pub(super) fn warn(&self, warnings: &[Problem]) {
        let told = warnings.iter().map(|warning| warning.message().to_owned());
        self.state.borrow_mut().status.warnings.extend(told);
    }

    pub(super) fn status(&self) -> Status {
        self.state.borrow().status.clone()
    }

    pub(super) fn take_position(&self, session: &Session) {
        let mut state = self.state.borrow_mut();
        let Position { epoch, step, global_step, samples } = session.position();
        let progress = session.progress();
        let first = *state.progress_at_start.get_or_insert(progress);
        let gained = progress - first;
        let elapsed = state.began.elapsed().as_secs_f64();
        let status = &mut state.status;
        status.state = if session.is_paused() { "paused" } else { "running" }.to_owned();
        status.position = PositionStatus { epoch, step, global_step, samples };
        status.progress = progress;
        status.elapsed = session.started().elapsed().as_secs_f64();
        status.waited_for_data = session.waited_for_data().as_secs_f64();
        status.time_left = (gained > 0.0).then(|| elapsed / gained * (1.0 - progress));
        status.metrics =
            session.metrics().iter().map(|(name, metric)| (name.to_owned(), number(metric.value))).collect();
    }

    /// Writes the file. A failure to write it does not end the run.
    pub(super) fn write(&self) {
        let mut state = self.state.borrow_mut();
        state.status.updated = now();
        state.last_write = Some(Instant::now());
        let text = serde_json::to_vec_pretty(&state.status).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| write_whole(&self.path, &text)) {
            tracing::warn!(path = %self.path.display(), %error, "cannot write the status");
        }
    }

    fn write_soon(&self) {
        let due = self.state.borrow().last_write.is_none_or(|last| last.elapsed() >= INTERVAL);
        if due {
            self.write();
        }
    }
}

/// JSON has no NaN and no infinities.
fn number(value: f64) -> serde_json::Value {
    serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Into::into)
}

fn now() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// The status file as the loop sees it.
pub(super) struct StatusOutputs(pub(super) std::rc::Rc<StatusFile>);

impl RunOutputs for StatusOutputs {
    fn screen(&self) -> Arc<dyn Screen> {
        Arc::clone(&self.0.console) as Arc<dyn Screen>
    }

    fn artifact(&self, kind: &str, path: &str) {
        {
            let artifacts = &mut self.0.state.borrow_mut().status.artifacts;
            // There are many exports, one entry per file; of the other kinds only the latest counts.
            if kind == "export" {
                let exports = artifacts.entry("exports".to_owned()).or_insert_with(|| serde_json::json!([]));
                if let Some(exports) = exports.as_array_mut()
                    && !exports.iter().any(|told| told == path)
                {
                    exports.push(path.into());
                }
            } else {
                artifacts.insert(kind.to_owned(), path.into());
            }
        }
        self.0.write_soon();
    }

    fn progress(&self, session: &Session) {
        self.0.take_position(session);
        self.0.write_soon();
    }
}
