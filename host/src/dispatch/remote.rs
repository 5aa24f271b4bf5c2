//! Remotes: tickets that any thread may use until the end of the training.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use plugin_api::abi::ReplyTable;
use plugin_api::abi::kinds::{EventKind, ServiceKind};
use plugin_api::protocol::HookTime;
use plugin_api::services::{Caller, Presence, Site, permit, typed};

use super::event::{Event, EventData};
use super::inbox::{Inbox, Message, post_call};
use super::pulse::Pulse;
use super::request::Request;
use crate::history::{LiveMetrics, Position};
use crate::services::{self, Call, Reply, ServiceError};

const REMOTE_BIT: u64 = 1 << 63;

/// Whether `ticket` is a remote's.
pub(super) fn is_remote(ticket: u64) -> bool {
    ticket & REMOTE_BIT != 0
}

/// A run's hub and the instance that the remote was opened for, by ticket.
type Registry = HashMap<u64, (Weak<RemoteHub>, Arc<str>)>;

/// The open remotes of every run in the process. Closing removes them, so that a ticket kept by
/// a plugin's thread is refused afterwards.
fn registry() -> &'static Mutex<Registry> {
    static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(Mutex::default)
}

/// One run's remotes.
pub(super) struct RemoteHub {
    inbox: Arc<Inbox>,
    /// What they read from; `None` before the run begins and after it ends.
    metrics: Mutex<Option<Arc<LiveMetrics>>>,
    /// The cost of the hooks. A hook cannot read the accounts themselves: its own is open while it runs.
    times: Mutex<Vec<HookTime>>,
    /// Whether a [`Message::Times`] is pending.
    times_wanted: AtomicBool,
    /// Whether any callback has the hook for custom events.
    has_listeners: AtomicBool,
    /// The hook in progress on the training thread.
    pub(super) pulse: Pulse,
}

impl RemoteHub {
    pub(super) fn new(inbox: Arc<Inbox>) -> Arc<Self> {
        Arc::new(Self {
            inbox,
            metrics: Mutex::new(None),
            times: Mutex::default(),
            times_wanted: AtomicBool::new(false),
            has_listeners: AtomicBool::new(false),
            pulse: Pulse::default(),
        })
    }

    /// Publishes the cost of the hooks.
    pub(super) fn put_times(&self, times: Vec<HookTime>) {
        self.times_wanted.store(false, Ordering::Relaxed);
        *self.times.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }

    /// What was published last; also requests newer times, which are available from the next event on.
    pub(super) fn times(&self) -> Vec<HookTime> {
        if !self.times_wanted.swap(true, Ordering::Relaxed) {
            self.inbox.post(Message::Times);
        }
        self.times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether anybody gets a custom event; also for hooks in the background.
    pub(super) fn has_listeners(&self) -> bool {
        self.has_listeners.load(Ordering::Relaxed)
    }

    /// Says whether anybody gets a custom event.
    pub(super) fn set_listeners(&self, has_listeners: bool) {
        self.has_listeners.store(has_listeners, Ordering::Relaxed);
    }

    /// From now on remotes read `metrics`.
    pub(super) fn begin(&self, metrics: Arc<LiveMetrics>) {
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner) = Some(metrics);
    }

    /// Opens a remote for `instance`.
    pub(super) fn open(self: &Arc<Self>, instance: &Arc<str>) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut registry = registry().lock().unwrap_or_else(PoisonError::into_inner);
        let is_its_own = |(_, (hub, of)): &(&u64, &(Weak<Self>, Arc<str>))| {
            std::ptr::eq(hub.as_ptr(), Arc::as_ptr(self)) && of == instance
        };
        // One for each instance, however often it asks: none is closed before the end.
        if let Some((ticket, _)) = registry.iter().find(is_its_own) {
            return *ticket;
        }
        let ticket = NEXT.fetch_add(1, Ordering::Relaxed) | REMOTE_BIT;
        registry.insert(ticket, (Arc::downgrade(self), Arc::clone(instance)));
        ticket
    }

    /// Closes every remote of this run; their calls are refused from now on.
    pub(super) fn close(self: &Arc<Self>) {
        let mut registry = registry().lock().unwrap_or_else(PoisonError::into_inner);
        registry.retain(|_, (hub, _)| !std::ptr::eq(hub.as_ptr(), Arc::as_ptr(self)));
        drop(registry);
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Answers a remote's call, on its own thread.
    pub(super) fn answer(ticket: u64, request: &Request<'_>, reply_table: &ReplyTable) -> Result<(), ServiceError> {
        let (hub, instance) = {
            let registry = registry().lock().unwrap_or_else(PoisonError::into_inner);
            let (hub, instance) = registry.get(&ticket).ok_or(ServiceError::Closed)?;
            (hub.upgrade().ok_or(ServiceError::Closed)?, Arc::clone(instance))
        };
        let &Request { service, payload, tensors } = request;
        // A remote is in no hook; its actions belong to the next event.
        let hook = EventKind::CUSTOM;
        permit(service, &Site { caller: Caller::Remote, hook, needs: &[], presence: Presence::Single }, payload)?;
        let call = Call { service, instance: &instance, hook, exports: false, payload, tensors };
        let mut kept = Vec::new();
        let mut reply = Reply::new(reply_table, &mut kept);
        match service {
            ServiceKind::RECORD_PUT => {
                let record = Arc::new(call.request(typed::RECORD_PUT)?);
                let data = EventData::Record { author: Arc::clone(&instance), record };
                let event = Event { kind: EventKind::RECORD, position: Position::default(), data };
                hub.inbox.post_of(&instance, 1, payload.len(), Message::Events(vec![(event, Vec::new())]))?;
            }
            ServiceKind::METRIC | ServiceKind::METRICS => {
                let metrics = hub.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let metrics = metrics.ok_or(ServiceError::Closed)?;
                let metrics = metrics.read();
                match service {
                    ServiceKind::METRIC => services::metric(&metrics, &call, &mut reply)?,
                    _ => services::metrics(&metrics, &mut reply)?,
                }
            }
            _ => {
                post_call(&hub.inbox, &call, &instance)?;
            }
        }
        Ok(())
    }
}
