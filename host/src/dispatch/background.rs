//! A callback on a thread of its own, with a bounded queue: the order is kept, nothing is dropped, and
//! its requests to the run wait in the inbox.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TrySendError, bounded};
use plugin_api::abi::kinds::EventKind;

use super::account::{Account, HookTime};
use super::event::Event;
use super::hook::{Answers, Hook, Identity, Left, fault, has_failed};
use super::host_call::HOST_TABLE;
use super::inbox::{Inbox, Message};
use super::remote::RemoteHub;
use super::sent::{EventTensors, Sent};
use super::snapshots::SharedSnapshot;
use super::watchdog::Watched;
use crate::plugins::{Fault, Instance};

/// The most events in a callback's queue; when it is full, the loop waits.
const QUEUE: usize = 64;

/// The state that a hook saved; none where it was not called, or saved nothing.
type SavedByHook = Result<Option<Vec<u8>>, Fault>;

enum Job {
    Event { event: Event, snapshot: SharedSnapshot },
    SaveState { event: Event, snapshot: SharedSnapshot, answer: Sender<SavedByHook> },
    Flush(Sender<()>),
}

/// The thread of one callback. Dropping it finishes the queue.
pub(super) struct Worker {
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    account: Arc<Mutex<Account>>,
    watched: Arc<Watched>,
}

/// How often a wait for a thread looks whether it was abandoned.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Worker {
    /// With `fails_once`, events queued after a failed hook are skipped, except for `teardown`.
    pub(super) fn start(
        identity: Arc<Identity>,
        instance: Instance,
        fails_once: bool,
        inbox: Arc<Inbox>,
        hub: Arc<RemoteHub>,
        clock: quanta::Clock,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = bounded(QUEUE);
        let account = Arc::new(Mutex::new(Account::new()));
        let of_thread = Arc::clone(&account);
        let watched = Arc::<Watched>::default();
        let pulse = Arc::clone(&watched);
        let thread = std::thread::Builder::new().name(format!("plugin {}", identity.name)).spawn(move || {
            let instance = Some(instance);
            let (failed, account) = (false, of_thread);
            let watched = pulse;
            Callback { identity, instance, fails_once, failed, inbox, hub, clock, account, watched }.run(&jobs);
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), account, watched })
    }

    /// What the watchdog watches.
    pub(super) fn watched(&self) -> &Arc<Watched> {
        &self.watched
    }

    fn is_abandoned(&self) -> bool {
        self.watched.abandoned.load(Ordering::Acquire)
    }

    /// Queues an event. Returns whether the queue was full, so that the loop had to wait.
    pub(super) fn send(&self, event: Event, snapshot: SharedSnapshot) -> bool {
        let Some(queue) = self.queue.as_ref().filter(|_| !self.is_abandoned()) else { return false };
        match queue.try_send(Job::Event { event, snapshot }) {
            Ok(()) => false,
            Err(TrySendError::Full(mut job)) => {
                // The thread ends only when the queue is closed.
                while let Err(SendTimeoutError::Timeout(back)) = queue.send_timeout(job, LOOK_EVERY) {
                    if self.is_abandoned() {
                        break;
                    }
                    job = back;
                }
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Asks for the state, after everything queued before.
    pub(super) fn save_state(&self, event: Event, snapshot: SharedSnapshot) -> Option<SavedByHook> {
        let (answer, answered) = bounded(1);
        self.queue_up(Job::SaveState { event, snapshot, answer })?;
        self.wait_for(&answered)
    }

    /// The cost of its hooks on this thread so far.
    pub(super) fn times(&self, name: &str, clock: &quanta::Clock) -> Vec<HookTime> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner).times(name, true, clock)
    }

    /// Waits until everything queued is done.
    pub(super) fn flush(&self) {
        let (done, wait) = bounded(1);
        if self.queue_up(Job::Flush(done)).is_some() {
            self.wait_for(&wait);
        }
    }

    /// Queues a job when there is room; `None` if nobody will do it.
    fn queue_up(&self, mut job: Job) -> Option<()> {
        let queue = self.queue.as_ref()?;
        while !self.is_abandoned() {
            match queue.send_timeout(job, LOOK_EVERY) {
                Ok(()) => return Some(()),
                Err(SendTimeoutError::Timeout(back)) => job = back,
                Err(SendTimeoutError::Disconnected(_)) => return None,
            }
        }
        None
    }

    /// What the thread answers; `None` if it will not.
    fn wait_for<T>(&self, answer: &Receiver<T>) -> Option<T> {
        while !self.is_abandoned() {
            match answer.recv_timeout(LOOK_EVERY) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.queue.take());
        // It ends with the process.
        while !self.is_abandoned() && self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.is_abandoned() {
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a plugin's background thread ended with a panic of the host");
        }
    }
}

/// What runs on the thread.
struct Callback {
    identity: Arc<Identity>,
    /// `None` once it has panicked.
    instance: Option<Instance>,
    /// Whether a failure disables it: the queue may still hold events.
    fails_once: bool,
    failed: bool,
    inbox: Arc<Inbox>,
    hub: Arc<RemoteHub>,
    clock: quanta::Clock,
    account: Arc<Mutex<Account>>,
    watched: Arc<Watched>,
}

impl Callback {
    fn run(mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Event { event, snapshot } => {
                    if let Err(fault) = self.handle(&event, &snapshot).map(drop) {
                        let (instance, hook) = (Arc::clone(&self.identity.name), event.kind);
                        self.inbox.post(Message::Fault { instance, hook, fault });
                    }
                }
                Job::SaveState { event, snapshot, answer } => {
                    let _ = answer.send(self.handle(&event, &snapshot));
                }
                Job::Flush(done) => {
                    let _ = done.send(());
                }
            }
        }
    }

    /// Returns the state that the hook saved, if it was `save_state`.
    fn handle(&mut self, event: &Event, snapshot: &SharedSnapshot) -> Result<Option<Vec<u8>>, Fault> {
        if self.failed && self.fails_once && event.kind != EventKind::TEARDOWN {
            return Ok(None);
        }
        let Some(instance) = &mut self.instance else { return Ok(None) };
        let answers = Answers::Snapshot(snapshot.get(), &self.inbox);
        let (instances, pulse) = (std::slice::from_ref(&self.identity), &self.watched.pulse);
        let mut hook = Hook::new(event, &EventTensors::None, instances, answers, &self.hub, pulse, &HOST_TABLE);
        let before = self.clock.raw();
        let (status, left) = hook.enter(1, |entered| {
            let status = event.lower(|table| instance.handle(table, entered.handle(0)));
            (status, entered.finish().map_or_else(Left::default, |left| *left))
        });
        let ticks = self.clock.raw() - before;
        self.account.lock().unwrap_or_else(PoisonError::into_inner).add(event.kind, ticks);
        if !left.events.is_empty() {
            let (count, bytes) = (left.events.len(), left.bytes);
            let events = Message::Events(left.events.into_iter().map(Sent::into_message).collect());
            // The log says what did not fit; the hook has returned.
            let _ = self.inbox.post_of(&self.identity.name, count, bytes, events);
        }
        if !has_failed(status, left.fault.as_ref()) {
            return Ok(left.state);
        }
        let fault = fault(status, left.fault);
        self.failed = true;
        if fault.is_final() {
            let gone = self.instance.take();
            // Not dropped: an instance that a panic left inconsistent must not run again. Of one in another process, what is
            // here is in order.
            if !self.identity.is_isolated {
                std::mem::forget(gone);
            }
        }
        Err(fault)
    }
}

/// Events that are always dispatched inline, since their answer is needed at once.
pub(super) fn waits_for_answer(event: EventKind) -> bool {
    matches!(event, EventKind::SETUP | EventKind::LOAD_STATE)
}
