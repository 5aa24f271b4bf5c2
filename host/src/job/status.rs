//! Keeps `status.json`, and receives the loop's outputs.
//!
//! The training thread notes what changes; a thread of its own writes it down and reads what other processes ask for, so that
//! neither a slow disk nor a long epoch is in anybody's way.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use host_command::runs::Process;
use host_command::runs::control::{self, Action, ControlRequest};
use host_command::runs::folder::{RunFolder, write_whole};
use host_command::runs::status::{
    BestStatus, CallbackStatus, FailureStatus, PositionStatus, STATUS_FILE, State, Status,
};
use plugin_api::Direction;
use plugin_api::event::Outcome;
use plugin_api::protocol::Control;

use super::events::Events;
use crate::console::Console;
use crate::dispatch::{Failure, HookTime};
use crate::expression::Surroundings;
use crate::history::{HistoryView, Position};
use crate::report::Problem;
use crate::services::Screen;
use crate::train::{LiveProgress, Requests, RunOutputs, Session, Started};

/// The least time between two writes, unless the state changes.
const LEAST: Duration = Duration::from_millis(250);

/// The most time between two writes.
const MOST: Duration = Duration::from_secs(1);

/// How often requests of other processes are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is known of a run, for the file and for other threads.
pub(super) struct RunStatus {
    folder: std::path::PathBuf,
    console: Arc<Console>,
    events: Events,
    requests: Requests,
    /// Held while the file is written: first this one is locked, then what is noted, which nobody waits for meanwhile.
    file: Mutex<FileState>,
    noted: Mutex<Noted>,
    changed: Condvar,
}

#[derive(Default)]
struct FileState {
    /// The last write failed, which is told once.
    is_behind: bool,
    /// Descriptors that are kept for the last write, since a plugin may leave the process without any.
    kept: Vec<std::fs::File>,
}

/// As many as a write needs at once, and one for a thread that takes one meanwhile.
const KEPT_DESCRIPTORS: usize = 4;

struct Noted {
    status: Status,
    began: Instant,
    progress_at_start: Option<f64>,
    live: Option<Live>,
    /// Something is not written yet.
    is_due: bool,
    /// The state is not written yet.
    is_urgent: bool,
    has_ended: bool,
}

/// What is read while the loop goes on.
struct Live {
    progress: Arc<LiveProgress>,
    started: Started,
    history: HistoryView,
}

impl RunStatus {
    pub(super) fn new(
        folder: &RunFolder,
        run: &str,
        console: Arc<Console>,
        events: Events,
        requests: Requests,
    ) -> Self {
        let now = now();
        let process = Process::this();
        let status = Status {
            run: run.to_owned(),
            process: process.id,
            process_started: process.started,
            machine: process.machine,
            started: now.clone(),
            updated: now,
            ..Status::default()
        };
        let noted = Noted {
            status,
            began: Instant::now(),
            progress_at_start: None,
            live: None,
            is_due: false,
            is_urgent: false,
            has_ended: false,
        };
        let folder = folder.path().to_owned();
        Self {
            folder,
            console,
            events,
            requests,
            file: Mutex::default(),
            noted: Mutex::new(noted),
            changed: Condvar::new(),
        }
    }

    /// Notes which of several processes it is about.
    pub(super) fn is_of_rank(&mut self, rank: usize, world_size: usize) {
        let noted = self.noted.get_mut().unwrap_or_else(PoisonError::into_inner);
        (noted.status.rank, noted.status.world_size) = (Some(rank as u64), Some(world_size as u64));
    }

    /// Begins to follow a session, on a thread of its own.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(super) fn follow(self: &Arc<Self>, session: &Session) -> std::io::Result<Follower> {
        {
            let mut noted = self.noted();
            noted.status.best = best_of(&session.history());
            noted.live = Some(Live {
                progress: session.live_progress(),
                started: session.started(),
                history: session.history(),
            });
        }
        let status = Arc::clone(self);
        let thread = std::thread::Builder::new().name("status".to_owned()).spawn(move || status.keep())?;
        Ok(Follower { status: Arc::clone(self), thread: Some(thread) })
    }

    /// Writes the file when it is due, and reads requests, until the run has ended.
    fn keep(&self) {
        let mut last_write = Instant::now();
        let mut noted = self.noted();
        while !noted.has_ended {
            let waited = self.changed.wait_timeout(noted, LOOK_EVERY);
            noted = waited.unwrap_or_else(PoisonError::into_inner).0;
            let since = last_write.elapsed();
            if noted.has_ended {
                break;
            }
            let is_due = noted.is_urgent || since >= MOST || (noted.is_due && since >= LEAST);
            drop(noted);
            if is_due {
                last_write = Instant::now();
                self.write(false);
            }
            self.read_requests();
            noted = self.noted();
        }
    }

    fn read_requests(&self) {
        for request in control::take(&self.folder) {
            match request {
                Ok(ControlRequest { action, by, reason }) => {
                    let action = match action {
                        Action::Stop => Control::Stop,
                        Action::Pause => Control::Pause,
                        Action::Resume => Control::Resume,
                        Action::Checkpoint => Control::Checkpoint,
                    };
                    tracing::info!(by, reason, "asked from another process: {action:?}");
                    self.requests.ask(action, &by, &reason);
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(cause, "{error}");
                }
            }
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run has ended. `error` is the whole chain of causes.
    pub(super) fn end(
        &self,
        outcome: Outcome,
        reason: &str,
        error: Option<RunError>,
        failures: &[Failure],
        times: &[HookTime],
    ) {
        let mut noted = self.noted();
        let status = &mut noted.status;
        status.state = match outcome {
            Outcome::Finished => State::Finished,
            Outcome::Stopped => State::Stopped,
            Outcome::Interrupted => State::Interrupted,
            _ => State::Failed,
        };
        status.outcome = Some(status.state.name().to_owned());
        status.reason = (!reason.is_empty()).then(|| reason.to_owned());
        (status.error_kind, status.error) = match error {
            Some(RunError { kind, message }) => (Some(kind.to_owned()), Some(message)),
            None => (None, None),
        };
        status.time_left = None;
        status.failures = failures.iter().map(failure_status).collect();
        status.callbacks = times.iter().map(callback_status).collect();
        drop(noted);
        self.write(true);
        self.changed.notify_all();
    }

    pub(super) fn warn(&self, warnings: &[Problem]) {
        self.noted().status.warnings.extend(warnings.iter().map(|warning| warning.message().to_owned()));
    }

    /// As it is now.
    pub(super) fn status(&self) -> Status {
        let mut noted = self.noted();
        noted.look();
        noted.status.clone()
    }

    /// Every value of every metric so far; `None` before the run has begun.
    pub(super) fn history(&self) -> Option<HistoryView> {
        self.noted().live.as_ref().map(|live| live.history.renewed())
    }

    /// Takes what the session does, where it is, and what it has measured.
    pub(super) fn take(&self, session: &Session) {
        let state = match session.stopping() {
            Some(_) => State::Stopping,
            None if session.is_paused() => State::Paused,
            None => State::Running,
        };
        let mut noted = self.noted();
        let has_changed = std::mem::replace(&mut noted.status.state, state) != state;
        noted.take_measured(session);
        noted.is_urgent |= has_changed;
        noted.look();
        if has_changed {
            self.events.state(&noted.status);
            self.changed.notify_all();
        }
    }

    /// Takes where the session is, and what it has measured: for one that ends, or that has not begun.
    pub(super) fn take_measured(&self, session: &Session) {
        self.noted().take_measured(session);
    }

    /// Writes the file now. A failure to write it does not end the run.
    pub(super) fn write_now(&self) {
        self.write(false);
    }

    /// Writes the file, for the last time if the run `ends`.
    fn write(&self, ends: bool) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut noted = self.noted();
        if noted.has_ended {
            return;
        }
        if ends {
            file.kept.clear();
        } else if file.kept.is_empty() {
            // Without them, the last write may fail, which is told then.
            let any = || std::fs::File::open(&self.folder);
            file.kept.extend(std::iter::repeat_with(any).take(KEPT_DESCRIPTORS).flatten());
        }
        noted.has_ended = ends;
        (noted.is_due, noted.is_urgent) = (false, false);
        noted.look();
        noted.status.updated = now();
        let status = noted.status.clone();
        drop(noted);
        let path = self.folder.join(STATUS_FILE);
        let text = serde_json::to_vec_pretty(&status).map_err(std::io::Error::from);
        let written = text.and_then(|text| write_whole(&path, &text));
        let was_behind = std::mem::replace(&mut file.is_behind, written.is_err());
        if let Err(error) = written {
            if !was_behind {
                tracing::warn!(path = %path.display(), %error, "cannot write the status");
            }
            if ends && let Err(error) = overwrite(&path, &status) {
                tracing::warn!(%error, "cannot write how the run ended");
            }
        }
    }
}

impl Noted {
    /// Takes where the loop is now.
    fn look(&mut self) {
        let Some(live) = &self.live else { return };
        let (position, progress) = live.progress.read();
        let elapsed = self.began.elapsed().as_secs_f64();
        let status = &mut self.status;
        if !status.state.is_live() {
            return;
        }
        status.elapsed = live.started.elapsed().as_secs_f64();
        // The loop tells its position after each step, and more of itself less often.
        if position.global_step > status.position.global_step {
            let Position { epoch, step, global_step, samples } = position;
            status.position = PositionStatus { epoch, step, global_step, samples };
            status.progress = progress;
        }
        // Until then a resumed run seems to be at its beginning.
        if status.state == State::Starting {
            return;
        }
        let first = *self.progress_at_start.get_or_insert(status.progress);
        let gained = status.progress - first;
        status.time_left = (gained > 0.0).then(|| elapsed / gained * (1.0 - status.progress));
    }

    /// Takes where the session is, and what it has measured.
    fn take_measured(&mut self, session: &Session) {
        let Position { epoch, step, global_step, samples } = session.position();
        let status = &mut self.status;
        if let Some((by, reason)) = session.stopping() {
            status.stopped_by = Some(by.to_owned());
            status.reason = (!reason.is_empty()).then(|| reason.to_owned());
        }
        status.position = PositionStatus { epoch, step, global_step, samples };
        status.progress = session.progress();
        status.waited_for_data = session.waited_for_data().as_secs_f64();
        for (name, metric) in session.metrics().iter() {
            status.metrics.insert(name.to_owned(), number(metric.value));
            note_best(&mut status.best, name, metric.value, metric.position);
        }
        self.is_due = true;
    }
}

/// Follows a run until it is dropped.
pub(super) struct Follower {
    status: Arc<RunStatus>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.status.noted().has_ended = true;
        self.status.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been told; the run goes on without its status.
            let _ = thread.join();
        }
    }
}

/// What ended a run that failed.
pub(super) struct RunError {
    /// Which part.
    pub(super) kind: &'static str,
    /// The whole chain of causes.
    pub(super) message: String,
}

fn failure_status(failure: &Failure) -> FailureStatus {
    let Failure { instance, kind, path, hook, fault, on_error } = failure;
    FailureStatus {
        plugin: instance.clone(),
        kind: kind.clone(),
        library: path.display().to_string(),
        hook: (*hook).to_owned(),
        message: fault.message.clone(),
        place: (!fault.place.is_empty()).then(|| fault.place.clone()),
        panicked: fault.panicked,
        on_error: serde_json::to_value(on_error)
            .ok()
            .and_then(|value| Some(value.as_str()?.to_owned()))
            .unwrap_or_default(),
    }
}

fn callback_status(time: &HookTime) -> CallbackStatus {
    CallbackStatus {
        plugin: time.instance.clone(),
        hook: time.hook.to_owned(),
        background: time.background,
        calls: time.calls,
        seconds: time.total.as_secs_f64(),
        longest_seconds: time.longest.as_secs_f64(),
    }
}

type Best = std::collections::BTreeMap<String, BestStatus>;

/// The best values so far: a resumed run has those of before.
fn best_of(history: &HistoryView) -> Best {
    let mut best = Best::new();
    for name in history.names() {
        for point in history.series(&name).unwrap_or_default() {
            note_best(&mut best, &name, point.value, point.position);
        }
    }
    best
}

fn note_best(best: &mut Best, name: &str, value: f64, position: Position) {
    let Some(direction) = Direction::of_metric(name).filter(|_| value.is_finite()) else { return };
    let new = BestStatus { value, epoch: position.epoch, step: position.global_step };
    match best.get_mut(name) {
        Some(best) if direction.better(value, best.value) => *best = new,
        Some(_) => {}
        None => drop(best.insert(name.to_owned(), new)),
    }
}

/// Writes how a run ended over the file, for a disk without room for another one: as much as fits into the blocks that the
/// file has. A reader may see a part of it for a moment.
fn overwrite(path: &Path, status: &Status) -> std::io::Result<()> {
    /// The least that file systems give to a file.
    const BLOCK: u64 = 4096;
    let mut file = std::fs::File::options().write(true).open(path)?;
    let room = file.metadata()?.len().next_multiple_of(BLOCK);
    let mut status = status.clone();
    let less: [fn(&mut Status); 4] = [
        |_| {},
        |status| status.callbacks.clear(),
        |status| (status.metrics, status.best, status.artifacts) = Default::default(),
        |status| (status.failures, status.warnings) = Default::default(),
    ];
    for leave_out in less {
        leave_out(&mut status);
        let text = serde_json::to_vec(&status)?;
        if text.len() as u64 <= room {
            file.write_all(&text)?;
            return file.set_len(text.len() as u64);
        }
    }
    Err(std::io::ErrorKind::StorageFull.into())
}

/// JSON has no NaN and no infinities.
pub(super) fn number(value: f64) -> serde_json::Value {
    serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Into::into)
}

fn now() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// The status as the loop sees it.
pub(super) struct StatusOutputs(pub(super) Arc<RunStatus>);

impl RunOutputs for StatusOutputs {
    fn screen(&self) -> Arc<dyn Screen> {
        Arc::clone(&self.0.console) as Arc<dyn Screen>
    }

    fn artifact(&self, kind: &str, path: &str) {
        self.0.events.artifact(kind, path);
        let mut noted = self.0.noted();
        noted.is_due = true;
        let artifacts = &mut noted.status.artifacts;
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

    fn measured(&self, split: &str, session: &Session) {
        self.0.events.measured(split, session);
    }

    fn progress(&self, session: &Session) {
        self.0.take(session);
    }
}
