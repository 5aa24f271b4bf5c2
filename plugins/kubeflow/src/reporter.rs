//! The thread that sends. It keeps only the latest status: the controller keeps no history either.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use plugin_api::tracing;

use crate::client::Client;
use crate::status::Status;

/// The shortest time between two statuses, as the controller's documentation asks for.
pub(crate) const EVERY: Duration = Duration::from_secs(5);

/// The longest wait after failures in a row, each of which doubles it.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The time that the thread has beyond the limits of its requests.
const GRACE: Duration = Duration::from_millis(200);

enum Message {
    Status(Status),
    /// The last one, which is sent at once.
    Last(Status),
}

/// The hooks' handle of the thread, which ends with it.
pub(crate) struct Reporter {
    messages: Sender<Message>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    /// Set by [`Self::last`].
    until: Option<Instant>,
    timeout: Duration,
}

impl Reporter {
    /// Starts the thread, which sends at most one status in each time of `every`. A request takes at most `timeout`.
    pub(crate) fn start(client: Client, every: Duration, timeout: Duration) -> std::io::Result<Self> {
        let (messages, received) = channel();
        let (end, ended) = channel();
        let round = Round { client, every, failures: 0 };
        std::thread::Builder::new().name("kubeflow".to_owned()).spawn(move || {
            // Dropped with the thread, a panic included.
            let _end: Sender<()> = end;
            round.run(&received);
        })?;
        Ok(Self { messages, ended, until: None, timeout })
    }

    /// Hands over a status, which replaces one that waits.
    pub(crate) fn status(&self, status: Status) {
        // Without a thread there is nobody to tell.
        let _ = self.messages.send(Message::Status(status));
    }

    /// Hands over the last status.
    pub(crate) fn last(&mut self, status: Status) {
        let _ = self.messages.send(Message::Last(status));
        // One request may be in progress, and one follows.
        self.until = Some(Instant::now() + self.timeout.saturating_mul(2) + GRACE);
    }

    /// Waits until the last status is sent, or its time has passed.
    pub(crate) fn wait(&self) {
        if let Some(until) = self.until {
            let _ = self.ended.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
}

/// The state of the thread.
struct Round {
    client: Client,
    every: Duration,
    /// Failures in a row.
    failures: u32,
}

impl Round {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut next = Instant::now();
        let mut waiting = None;
        loop {
            let received = match &waiting {
                Some(_) => messages.recv_timeout(next.saturating_duration_since(Instant::now())),
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match received {
                Ok(Message::Status(status)) => waiting = Some(status),
                Ok(Message::Last(status)) => return self.send(status),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(status) = waiting.take() {
                        let began = Instant::now();
                        self.send(status);
                        next = began + self.pause();
                    }
                }
                // The instance is gone, and nobody says how the run ended.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn pause(&self) -> Duration {
        self.every.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE.max(self.every))
    }

    fn send(&mut self, status: Status) {
        match self.client.send(&status.body()) {
            Ok(()) => {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!("Kubeflow Trainer gets the status of the run again");
                }
            }
            Err(why) => {
                if self.failures == 0 {
                    tracing::warn!(
                        "the status was not sent to Kubeflow Trainer: {why}; the run continues, and further failures are \
                         not logged until it works again"
                    );
                }
                self.failures = self.failures.saturating_add(1);
            }
        }
    }
}
