//! Snapshots for callbacks in the background: one copy for all that share an event, at most one with tensors at a time.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::services::Snapshot;

/// A snapshot that callbacks in the background share, and the lease that prevents a second one with
/// tensors while it exists.
#[derive(Clone)]
pub(super) struct SharedSnapshot {
    snapshot: Arc<Snapshot>,
    _lease: Option<Arc<Lease>>,
}

impl SharedSnapshot {
    pub(super) fn new(snapshot: Arc<Snapshot>, lease: Option<Arc<Lease>>) -> Self {
        Self { snapshot, _lease: lease }
    }

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
pub(super) struct Lease(Arc<Leases>);

impl Leases {
    /// Waits until the previous snapshot is dropped.
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
