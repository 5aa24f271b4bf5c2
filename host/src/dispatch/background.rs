//! A callback on a thread of its own, behind a bounded queue: order holds, nothing is dropped, and
//! what it asks of the run waits in the mailbox.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use plugin_api::abi::kinds::{EventKind, ServiceKind, Status};

use super::account::{Account, HookTime};
use super::event::Event;
use super::hook::{Answers, Hook, Left, fault};
use super::mailbox::{Letter, Mailbox};
use super::remote::RemoteHub;
use super::services::{Caller, Reply, Request, ServiceError, Snapshot};
use crate::plugins::{Fault, Instance};

/// Events that wait for one callback before the loop waits for it.
const QUEUE: usize = 64;

/// A snapshot that callbacks in the background share, and the lease that keeps a second one with
/// tensors from being made while it lives.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) answers: Arc<dyn Snapshot>,
    pub(super) _lease: Option<Arc<Lease>>,
}

/// At most one snapshot with tensors is alive.
#[derive(Default)]
pub(super) struct Leases {
    taken: Mutex<bool>,
    free: Condvar,
}

/// The right to a snapshot with tensors; given back when the last callback is done with it.
pub(super) struct Lease(Arc<Leases>);

impl Leases {
    /// Waits until the snapshot before is gone.
    pub(super) fn take(self: &Arc<Self>) -> Arc<Lease> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            taken = self.free.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken = true;
        Arc::new(Lease(Arc::clone(self)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_all();
    }
}

enum Job {
    Event { event: Event, shared: Shared },
    SaveState { event: Event, shared: Shared, answer: Sender<Result<Vec<u8>, Fault>> },
    Flush(Sender<()>),
}

/// The thread of one callback. Dropping it finishes what is queued.
pub(super) struct Worker {
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    account: Arc<Mutex<Account>>,
}

impl Worker {
    /// With `fails_once`, what is queued behind a hook that failed is passed over, except for `teardown`.
    pub(super) fn start(
        name: Arc<str>,
        instance: Instance,
        fails_once: bool,
        mailbox: Arc<Mailbox>,
        hub: Arc<RemoteHub>,
        clock: quanta::Clock,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = bounded(QUEUE);
        let account = Arc::new(Mutex::new(Account::new()));
        let of_thread = Arc::clone(&account);
        let thread = std::thread::Builder::new().name(format!("plugin {name}")).spawn(move || {
            let instance = Some(instance);
            let (failed, account) = (false, of_thread);
            Callback { name, instance, fails_once, failed, mailbox, hub, clock, account }.run(&jobs);
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), account })
    }

    /// Queues an event. Returns whether the queue was full, so that the loop had to wait.
    pub(super) fn send(&self, event: Event, shared: Shared) -> bool {
        let Some(queue) = &self.queue else { return false };
        match queue.try_send(Job::Event { event, shared }) {
            Ok(()) => false,
            Err(TrySendError::Full(job)) => {
                // The thread ends only when the queue is closed.
                let _ = queue.send(job);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Asks for the state, after everything queued before.
    pub(super) fn save_state(&self, event: Event, shared: Shared) -> Option<Result<Vec<u8>, Fault>> {
        let (answer, answered) = bounded(1);
        self.queue.as_ref()?.send(Job::SaveState { event, shared, answer }).ok()?;
        answered.recv().ok()
    }

    /// What its hooks cost the thread, so far.
    pub(super) fn times(&self, name: &str, clock: &quanta::Clock) -> Vec<HookTime> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner).times(name, true, clock)
    }

    /// Waits until everything queued is done.
    pub(super) fn flush(&self) {
        let (done, wait) = bounded(1);
        if let Some(queue) = &self.queue
            && queue.send(Job::Flush(done)).is_ok()
        {
            let _ = wait.recv();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a plugin's background thread ended by a panic of the host");
        }
    }
}

/// What runs on the thread.
struct Callback {
    name: Arc<str>,
    /// Gone once it has panicked.
    instance: Option<Instance>,
    /// Whether a failure disables it: the queue may hold events by then.
    fails_once: bool,
    failed: bool,
    mailbox: Arc<Mailbox>,
    hub: Arc<RemoteHub>,
    clock: quanta::Clock,
    account: Arc<Mutex<Account>>,
}

impl Callback {
    fn run(mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Event { event, shared } => {
                    if let Err(fault) = self.handle(&event, &shared).map(drop) {
                        let (instance, hook) = (Arc::clone(&self.name), event.kind);
                        self.mailbox.post(Letter::Fault { instance, hook, fault });
                    }
                }
                Job::SaveState { event, shared, answer } => {
                    let _ = answer.send(self.handle(&event, &shared).map(Option::unwrap_or_default));
                }
                Job::Flush(done) => {
                    let _ = done.send(());
                }
            }
        }
    }

    /// Gives the state that the hook saved, if it was `save_state`.
    fn handle(&mut self, event: &Event, shared: &Shared) -> Result<Option<Vec<u8>>, Fault> {
        if self.failed && self.fails_once && event.kind != EventKind::TEARDOWN {
            return Ok(None);
        }
        let Some(instance) = &mut self.instance else { return Ok(None) };
        let mut answers = FromSnapshot { shared, mailbox: &self.mailbox };
        let mut hook = Hook::new(event, std::slice::from_ref(&self.name), &mut answers, &self.hub);
        let before = self.clock.raw();
        let (status, left) = hook.enter(1, |entered| {
            let status = event.lower(|table| instance.handle(table, entered.handle(0)));
            (status, entered.finish().map_or_else(Left::default, |left| *left))
        });
        let ticks = self.clock.raw() - before;
        self.account.lock().unwrap_or_else(PoisonError::into_inner).add(event.kind, ticks);
        if !left.events.is_empty() {
            self.mailbox.post(Letter::Events(left.events));
        }
        if status == Status::OK || status == Status::UNKNOWN {
            return Ok(left.state);
        }
        let fault = fault(status, left.fault);
        self.failed = true;
        if fault.panicked {
            // Not dropped: what a panic left half done must not run again.
            std::mem::forget(self.instance.take());
        }
        Err(fault)
    }
}

/// Reads from the snapshot; what acts on the run goes to the mailbox.
struct FromSnapshot<'a> {
    shared: &'a Shared,
    mailbox: &'a Mailbox,
}

impl Answers for FromSnapshot<'_> {
    fn call(
        &mut self,
        caller: &Caller<'_>,
        service: ServiceKind,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        match service {
            ServiceKind::METRIC_PUT
            | ServiceKind::ARRAY_PUT
            | ServiceKind::HYPER_PARAMETER_SET
            | ServiceKind::CONTROL
            | ServiceKind::ARTIFACT => {
                if service == ServiceKind::CONTROL {
                    refuse_skip(request)?;
                }
                self.mailbox.post(Letter::Call {
                    instance: caller.instance.into(),
                    hook: caller.hook,
                    service,
                    payload: request.payload.to_vec(),
                });
                Ok(())
            }
            ServiceKind::TENSOR_WRITE
            | ServiceKind::WEIGHTS_COPY
            | ServiceKind::SNAPSHOT
            | ServiceKind::TRAIN_STEPS
            | ServiceKind::RECALIBRATE_BATCH_NORM
            | ServiceKind::PREDICT
            | ServiceKind::MEASURE
            | ServiceKind::TAP => Err(ServiceError::NotAllowed(format!(
                "the service `{}` needs the training thread: say `dispatch = \"inline\"`",
                service.name()
            ))),
            _ => self.shared.answers.call(caller, service, request, reply),
        }
    }
}

fn refuse_skip(request: &Request<'_>) -> Result<(), ServiceError> {
    let control: plugin_api::protocol::ControlRequest = request.decode()?;
    if control.action == plugin_api::protocol::Control::SkipUpdate {
        return Err(ServiceError::NotAllowed(
            "the update is done by the time that a callback in the background could skip it".to_owned(),
        ));
    }
    Ok(())
}

/// Events that stay inline whatever an instance's mode, since their answer is needed at once.
pub(super) fn waits_for_answer(event: EventKind) -> bool {
    matches!(event, EventKind::SETUP | EventKind::LOAD_STATE)
}
