//! Remotes: tickets that any thread may use until the end of the training.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use plugin_api::abi::ReplyTable;
use plugin_api::abi::kinds::{EventKind, ServiceKind};
use plugin_api::protocol::{Control, ControlRequest, HookTime, Record};

use super::event::{Event, EventData};
use super::mailbox::{Letter, Mailbox};
use super::services::{Caller, Reply, Request, ServiceError, Snapshot};
use crate::record::Position;

const REMOTE_BIT: u64 = 1 << 63;

/// Whether `ticket` is a remote's.
pub(super) fn is_remote(ticket: u64) -> bool {
    ticket & REMOTE_BIT != 0
}

/// A run's hub and the instance that the remote was opened for, by ticket.
type Registry = HashMap<u64, (Weak<RemoteHub>, Arc<str>)>;

/// The open remotes of every run in the process. Closing takes them out, so that a ticket kept by
/// a plugin's thread leads nowhere afterwards.
fn registry() -> &'static Mutex<Registry> {
    static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(Mutex::default)
}

/// One run's remotes.
pub(super) struct RemoteHub {
    mailbox: Arc<Mailbox>,
    /// What they read from; there once the run has begun, gone when it ends.
    reader: Mutex<Option<Arc<dyn Snapshot>>>,
    /// What the hooks have cost. A hook cannot be told of the accounts themselves: its own is open while it runs.
    times: Mutex<Vec<HookTime>>,
    /// Whether a [`Letter::Times`] is under way.
    times_wanted: AtomicBool,
}

impl RemoteHub {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Arc<Self> {
        Arc::new(Self {
            mailbox,
            reader: Mutex::new(None),
            times: Mutex::default(),
            times_wanted: AtomicBool::new(false),
        })
    }

    /// Publishes what the hooks have cost.
    pub(super) fn put_times(&self, times: Vec<HookTime>) {
        self.times_wanted.store(false, Ordering::Relaxed);
        *self.times.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }

    /// What was published last; asks for newer ones, which are there from the next event on.
    pub(super) fn times(&self) -> Vec<HookTime> {
        if !self.times_wanted.swap(true, Ordering::Relaxed) {
            self.mailbox.post(Letter::Times);
        }
        self.times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on remotes read from `reader`.
    pub(super) fn begin(&self, reader: Arc<dyn Snapshot>) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    /// Opens a remote for `instance`.
    pub(super) fn open(self: &Arc<Self>, instance: &Arc<str>) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let ticket = NEXT.fetch_add(1, Ordering::Relaxed) | REMOTE_BIT;
        let mut registry = registry().lock().unwrap_or_else(PoisonError::into_inner);
        registry.insert(ticket, (Arc::downgrade(self), Arc::clone(instance)));
        ticket
    }

    /// Closes every remote of this run; their calls are refused from now on.
    pub(super) fn close(self: &Arc<Self>) {
        let mut registry = registry().lock().unwrap_or_else(PoisonError::into_inner);
        registry.retain(|_, (hub, _)| !std::ptr::eq(hub.as_ptr(), Arc::as_ptr(self)));
        drop(registry);
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Answers a remote's call, on its own thread.
    pub(super) fn answer(
        ticket: u64,
        service: ServiceKind,
        request: &Request<'_>,
        reply_table: &ReplyTable,
    ) -> Result<(), ServiceError> {
        let (hub, instance) = {
            let registry = registry().lock().unwrap_or_else(PoisonError::into_inner);
            let (hub, instance) = registry.get(&ticket).ok_or(ServiceError::Closed)?;
            (hub.upgrade().ok_or(ServiceError::Closed)?, Arc::clone(instance))
        };
        match service {
            ServiceKind::CONTROL => {
                let control: ControlRequest = request.decode()?;
                if control.action == Control::SkipUpdate {
                    return Err(ServiceError::NotAllowed(
                        "an update is skipped in `gradients`, not from another thread".to_owned(),
                    ));
                }
                hub.mailbox.post(Letter::Call {
                    instance,
                    hook: EventKind::CUSTOM,
                    service,
                    payload: request.payload.to_vec(),
                });
                Ok(())
            }
            ServiceKind::RECORD_PUT => {
                let record: Record = request.decode()?;
                hub.mailbox.post(Letter::Events(vec![Event {
                    kind: EventKind::RECORD,
                    position: Position::default(),
                    data: EventData::Record { author: instance, record: Arc::new(record) },
                }]));
                Ok(())
            }
            ServiceKind::METRICS => {
                let reader = hub.reader.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let caller = Caller { instance: &instance, hook: EventKind::CUSTOM, position: Position::default() };
                let mut kept = Vec::new();
                reader.ok_or(ServiceError::Closed)?.call(
                    &caller,
                    service,
                    request,
                    &mut Reply::new(reply_table, &mut kept),
                )
            }
            _ => Err(ServiceError::NotAllowed(format!(
                "a remote has no service `{}`: it offers control, records and metrics",
                service.name()
            ))),
        }
    }
}
