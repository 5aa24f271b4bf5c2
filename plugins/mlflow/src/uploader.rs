//! The thread that sends. It keeps what it cannot send and retries, less and less often, until the run has ended and
//! its time limit has passed.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use plugin_api::tracing;

use crate::client::{Client, Failure};
use crate::model::Model;
use crate::note::Note;
use crate::session::{METRICS_AT_ONCE, Metric, Session, Subject};

/// The most metrics that wait for an unreachable server: some tens of megabytes. The oldest are dropped first.
const KEPT: usize = 200_000;
/// The wait after the first failure in a row; each further failure doubles it.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The time that the thread has to report that its time is over.
const GRACE: Duration = Duration::from_millis(200);

/// What to send.
enum Message {
    Metrics(Vec<Metric>),
    Parameters(BTreeMap<String, String>),
    End(End),
}

/// What is sent when the run has ended.
pub(crate) struct Ending {
    /// `FINISHED`, `FAILED` or `KILLED`.
    pub(crate) status: &'static str,
    /// The files to upload, by their names on the server.
    pub(crate) files: BTreeMap<String, PathBuf>,
    /// The files to register as versions of a model.
    pub(crate) models: Vec<Model>,
    /// That model.
    pub(crate) register: String,
}

/// How the run ended, and the time limit for sending it.
struct End {
    of: Ending,
    until: Instant,
    done: Sender<Unsent>,
}

/// What the server did not get.
struct Unsent {
    metrics: usize,
    files: usize,
    models: usize,
}

/// The hooks' handle of the thread.
pub(crate) struct Uploader {
    messages: Sender<Message>,
}

impl Uploader {
    /// Starts the thread, which continues the run of the `note`, or creates one.
    pub(crate) fn start(client: Client, subject: Subject, note: Note) -> std::io::Result<Self> {
        let (messages, received) = channel();
        let round = Round {
            client,
            subject,
            note,
            session: None,
            waiting: VecDeque::new(),
            parameters: BTreeMap::new(),
            lost: 0,
            end: None,
            failures: 0,
            again: None,
            is_reported: false,
        };
        std::thread::Builder::new().name("mlflow".to_owned()).spawn(move || round.run(&received))?;
        Ok(Self { messages })
    }

    /// Queues metrics. Drops them when the thread has given up.
    pub(crate) fn metrics(&self, metrics: Vec<Metric>) {
        let _ = self.messages.send(Message::Metrics(metrics));
    }

    /// Queues parameters, as [`Self::metrics`].
    pub(crate) fn parameters(&self, parameters: BTreeMap<String, String>) {
        let _ = self.messages.send(Message::Parameters(parameters));
    }

    /// Sends how the run ended, and waits at most `drain` until everything is sent.
    pub(crate) fn end(&self, of: Ending, drain: Duration) {
        let (done, finished) = channel();
        let end = End { of, until: Instant::now() + drain, done };
        if self.messages.send(Message::End(end)).is_err() {
            // The thread gave up earlier, and logged it.
            return;
        }
        match finished.recv_timeout(drain + GRACE) {
            Ok(Unsent { metrics: 0, files: 0, models: 0 }) | Err(RecvTimeoutError::Disconnected) => {}
            Ok(Unsent { metrics, files, models: 0 }) => {
                tracing::warn!("not sent to the MLflow server: {metrics} metrics and {files} files");
            }
            Ok(Unsent { metrics, files, models }) => {
                tracing::warn!(
                    "not sent to the MLflow server: {metrics} metrics and {files} files; not registered: {models} models"
                );
            }
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("not everything was sent to the MLflow server within {drain:?}; the rest is dropped");
            }
        }
    }
}

/// The state of the thread.
struct Round {
    client: Client,
    subject: Subject,
    note: Note,
    /// Set after the first answer.
    session: Option<Session>,
    waiting: VecDeque<Metric>,
    parameters: BTreeMap<String, String>,
    /// Metrics that were dropped because too many waited.
    lost: usize,
    end: Option<End>,
    /// Failures in a row.
    failures: u32,
    /// No try before this time.
    again: Option<Instant>,
    /// Whether the log says that the server is unreachable.
    is_reported: bool,
}

impl Round {
    fn run(mut self, messages: &Receiver<Message>) {
        // Create the run when training starts, even before its first metric.
        let mut open = true;
        loop {
            if self.again.is_none_or(|again| again <= Instant::now()) {
                match self.send() {
                    Ok(()) => self.succeeded(),
                    Err(Failure::Unavailable(reason, wait)) => self.failed(&reason, wait),
                    Err(Failure::Refused(reason) | Failure::Missing(reason)) => {
                        tracing::warn!("this run is not logged to the MLflow server: {reason}");
                        return;
                    }
                }
            }
            let over = self.end.as_ref().is_some_and(|end| end.until <= Instant::now());
            if over || !open || (self.end.is_some() && self.again.is_none()) {
                return self.give_up();
            }
            let received = match self.again {
                Some(again) => messages.recv_timeout(again.saturating_duration_since(Instant::now())),
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match received {
                Ok(message) => {
                    std::iter::once(message).chain(messages.try_iter()).for_each(|message| self.take(message))
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The instance is gone: nobody reports how the run ended.
                Err(RecvTimeoutError::Disconnected) => open = self.end.is_some(),
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Metrics(metrics) => self.waiting.extend(metrics),
            Message::Parameters(parameters) => self.parameters.extend(parameters),
            Message::End(end) => {
                // Try once more at once: this is the last chance.
                self.again = None;
                self.end = Some(end);
            }
        }
        let over = self.waiting.len().saturating_sub(KEPT);
        self.waiting.drain(..over);
        self.lost += over;
    }

    /// Sends everything that waits.
    fn send(&mut self) -> Result<(), Failure> {
        let session = match &mut self.session {
            Some(session) => session,
            none => {
                let session = none.insert(Session::begin(&self.client, &self.subject, self.note.read().as_deref())?);
                if let Err(error) = self.note.write(&session.run_id) {
                    tracing::warn!("cannot write `mlflow.json`, so a resumed run becomes a new MLflow run: {error}");
                }
                session
            }
        };
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(METRICS_AT_ONCE);
            let metrics: Vec<Metric> = self.waiting.range(..count).cloned().collect();
            unless_unavailable(session.log(&self.client, &metrics))?;
            self.waiting.drain(..count);
        }
        if !self.parameters.is_empty() {
            unless_unavailable(session.parameters(&self.client, &self.parameters))?;
            self.parameters.clear();
        }
        let Some(end) = &mut self.end else { return Ok(()) };
        let Ending { status, files, models, register } = &mut end.of;
        while let Some((name, file)) = files.pop_first() {
            if let Err(error) = unless_unavailable(session.upload(&self.client, &name, &file)) {
                files.insert(name, file);
                return Err(error);
            }
        }
        while let Some(model) = models.last() {
            unless_unavailable(session.register(&self.client, register, model))?;
            models.pop();
        }
        session.end(&self.client, status)
    }

    fn succeeded(&mut self) {
        if std::mem::take(&mut self.is_reported) {
            tracing::info!("the MLflow server answers again");
        }
        (self.failures, self.again) = (0, None);
    }

    fn failed(&mut self, reason: &str, asked: Option<Duration>) {
        if !std::mem::replace(&mut self.is_reported, true) {
            tracing::warn!("the MLflow server is unreachable; the run continues and retries: {reason}");
        }
        let wait = SHORTEST_WAIT.saturating_mul(1 << self.failures.min(16)).max(asked.unwrap_or_default());
        self.failures += 1;
        self.again = Some(Instant::now() + wait.min(LONGEST_WAIT));
        if let (Some(end), Some(again)) = (&self.end, self.again) {
            self.again = Some(again.min(end.until));
        }
    }

    /// Ends, and reports what was not sent.
    fn give_up(self) {
        let Some(end) = self.end else { return };
        // When the time limit passed long ago, nobody waits for this.
        let metrics = self.waiting.len() + self.lost;
        let _ = end.done.send(Unsent { metrics, files: end.of.files.len(), models: end.of.models.len() });
    }
}

/// Logs what the server will never accept, and counts it as done.
fn unless_unavailable(sent: Result<(), Failure>) -> Result<(), Failure> {
    match sent {
        Err(Failure::Refused(reason) | Failure::Missing(reason)) => {
            tracing::warn!("the MLflow server rejected a request: {reason}");
            Ok(())
        }
        other => other,
    }
}
