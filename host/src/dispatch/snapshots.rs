//! Snapshots for callbacks in the background: one copy for all that share an event, at most one with tensors at a time.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::dispatcher::Dispatcher;
use super::event::Event;
use super::inline::Target;
use crate::plugins::Fault;
use crate::services::{Services, Snapshot, SnapshotNeeds};

/// A snapshot that callbacks in the background share, and the lease that prevents a second one with
/// tensors while it exists.
#[derive(Clone)]
pub(super) struct SharedSnapshot {
    snapshot: Arc<Snapshot>,
    _lease: Option<Arc<Lease>>,
}

impl SharedSnapshot {
    pub(super) fn get(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// At most one snapshot with tensors exists.
#[derive(Default)]
pub(super) struct Leases {
    taken: Mutex<bool>,
    free: Condvar,
}

/// The right to a snapshot with tensors; released when the last callback is done with it.
struct Lease(Arc<Leases>);

impl Leases {
    /// Waits until the previous snapshot is dropped.
    fn take(self: &Arc<Self>) -> Arc<Lease> {
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

impl Dispatcher {
    /// The snapshot that `targets` share for `event`.
    pub(super) fn share(
        &mut self,
        event: &Event,
        targets: &[Target],
        services: &mut dyn Services,
    ) -> Result<SharedSnapshot, Fault> {
        let mut needs = SnapshotNeeds::default();
        for target in targets {
            let subscriber = &self.subscribers[target.index];
            let gated = subscriber.gate(event.kind).is_some_and(|gate| !gate.holds(|name| services.metric(name)));
            if subscriber.is_background() && !gated {
                subscriber.needs(event.kind, &mut needs);
            }
        }
        let lease = (!needs.is_empty()).then(|| self.leases.take());
        let snapshot = services.snapshot(event.kind, &needs).map_err(|error| Fault {
            message: format!("the host could not copy what it needs: {error}"),
            panicked: false,
            place: String::new(),
        })?;
        Ok(SharedSnapshot { snapshot, _lease: lease })
    }
}
