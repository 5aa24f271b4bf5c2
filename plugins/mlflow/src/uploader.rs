//! The thread that sends: what it cannot send it keeps and tries again, ever more seldom, until the run has ended and the
//! time for that is over.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use plugin_api::tracing;

use crate::client::{Client, Failure};
use crate::note::Note;
use crate::session::{METRICS_AT_ONCE, Metric, Session, Subject};

/// Metrics that wait for a server that is away: some tens of megabytes. The oldest go first.
const KEPT: usize = 200_000;
/// The wait behind the first failure in a row; each further one doubles it.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// What the thread has to say that its time is over.
const GRACE: Duration = Duration::from_millis(200);

/// What there is to send.
enum Message {
    Metrics(Vec<Metric>),
    Parameters(BTreeMap<String, String>),
    End(End),
}

/// How the run ended, and until when that may be told.
struct End {
    status: &'static str,
    files: BTreeMap<String, PathBuf>,
    until: Instant,
    done: Sender<Unsent>,
}

/// What the server was not told of.
struct Unsent {
    metrics: usize,
    files: usize,
}

/// The hooks' side of the thread.
pub(crate) struct Uploader {
    messages: Sender<Message>,
}

impl Uploader {
    /// Starts the thread, which takes up the run of the `note`, or makes one.
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
            told: false,
        };
        std::thread::Builder::new().name("mlflow".to_owned()).spawn(move || round.run(&received))?;
        Ok(Self { messages })
    }

    /// Puts metrics into the queue. Where the thread has given up, they go nowhere.
    pub(crate) fn metrics(&self, metrics: Vec<Metric>) {
        let _ = self.messages.send(Message::Metrics(metrics));
    }

    /// Puts parameters into the queue, as [`Self::metrics`].
    pub(crate) fn parameters(&self, parameters: BTreeMap<String, String>) {
        let _ = self.messages.send(Message::Parameters(parameters));
    }

    /// Says how the run ended, and waits at most `drain` until all is sent.
    pub(crate) fn end(&self, status: &'static str, files: BTreeMap<String, PathBuf>, drain: Duration) {
        let (done, finished) = channel();
        let end = End { status, files, until: Instant::now() + drain, done };
        if self.messages.send(Message::End(end)).is_err() {
            // It has given up before, and told so.
            return;
        }
        match finished.recv_timeout(drain + GRACE) {
            Ok(Unsent { metrics: 0, files: 0 }) | Err(RecvTimeoutError::Disconnected) => {}
            Ok(Unsent { metrics, files }) => {
                tracing::warn!(
                    "the MLflow server was not told of {metrics} metrics and {files} files, nor asked again"
                );
            }
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("the MLflow server has not taken all within {drain:?}: the rest is not sent");
            }
        }
    }
}

/// What the thread knows.
struct Round {
    client: Client,
    subject: Subject,
    note: Note,
    /// From the first answer on.
    session: Option<Session>,
    waiting: VecDeque<Metric>,
    parameters: BTreeMap<String, String>,
    /// Metrics that went because too many waited.
    lost: usize,
    end: Option<End>,
    /// Failures in a row.
    failures: u32,
    /// Not to be tried before.
    again: Option<Instant>,
    /// Whether somebody was told that the server is away.
    told: bool,
}

impl Round {
    fn run(mut self, messages: &Receiver<Message>) {
        // The run is there as soon as the training, even before its first metric.
        let mut open = true;
        loop {
            if self.again.is_none_or(|again| again <= Instant::now()) {
                match self.send() {
                    Ok(()) => self.succeeded(),
                    Err(Failure::Away(told, wait)) => self.failed(&told, wait),
                    Err(Failure::Refused(told) | Failure::Missing(told)) => {
                        tracing::warn!("the MLflow server is told nothing of this run: {told}");
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
                // The instance is gone: nobody says how the run ended.
                Err(RecvTimeoutError::Disconnected) => open = self.end.is_some(),
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Metrics(metrics) => self.waiting.extend(metrics),
            Message::Parameters(parameters) => self.parameters.extend(parameters),
            Message::End(end) => {
                // The last chance is worth a try at once.
                self.again = None;
                self.end = Some(end);
            }
        }
        let over = self.waiting.len().saturating_sub(KEPT);
        self.waiting.drain(..over);
        self.lost += over;
    }

    /// Sends all that there is.
    fn send(&mut self) -> Result<(), Failure> {
        let session = match &mut self.session {
            Some(session) => session,
            none => {
                let session = none.insert(Session::begin(&self.client, &self.subject, self.note.read().as_deref())?);
                if let Err(error) = self.note.write(&session.run_id) {
                    tracing::warn!(
                        "a resumed run will be another one for MLflow, since `mlflow.json` cannot be written: {error}"
                    );
                }
                session
            }
        };
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(METRICS_AT_ONCE);
            let metrics: Vec<Metric> = self.waiting.range(..count).cloned().collect();
            unless_away(session.log(&self.client, &metrics))?;
            self.waiting.drain(..count);
        }
        if !self.parameters.is_empty() {
            unless_away(session.parameters(&self.client, &self.parameters))?;
            self.parameters.clear();
        }
        let Some(end) = &mut self.end else { return Ok(()) };
        while let Some((name, file)) = end.files.pop_first() {
            if let Err(away) = unless_away(session.upload(&self.client, &name, &file)) {
                end.files.insert(name, file);
                return Err(away);
            }
        }
        session.end(&self.client, end.status)
    }

    fn succeeded(&mut self) {
        if std::mem::take(&mut self.told) {
            tracing::info!("the MLflow server answers again");
        }
        (self.failures, self.again) = (0, None);
    }

    fn failed(&mut self, told: &str, asked: Option<Duration>) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("the MLflow server is away; the run goes on, and it is tried again: {told}");
        }
        let wait = SHORTEST_WAIT.saturating_mul(1 << self.failures.min(16)).max(asked.unwrap_or_default());
        self.failures += 1;
        self.again = Some(Instant::now() + wait.min(LONGEST_WAIT));
        if let (Some(end), Some(again)) = (&self.end, self.again) {
            self.again = Some(again.min(end.until));
        }
    }

    /// Ends, and says what was left.
    fn give_up(self) {
        let Some(end) = self.end else { return };
        // Nobody waits any more where the time was over for long.
        let _ = end.done.send(Unsent { metrics: self.waiting.len() + self.lost, files: end.files.len() });
    }
}

/// What will never succeed is told, and no reason to try it again.
fn unless_away(sent: Result<(), Failure>) -> Result<(), Failure> {
    match sent {
        Err(Failure::Refused(told) | Failure::Missing(told)) => {
            tracing::warn!("the MLflow server refuses something: {told}");
            Ok(())
        }
        other => other,
    }
}
