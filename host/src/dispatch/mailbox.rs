//! What other threads ask of the run, waiting for the training thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::abi::kinds::{EventKind, ServiceKind};

use super::event::Event;
use crate::plugins::Fault;

/// Something that another thread asks of the run.
pub(super) enum Letter {
    /// A service that acts on the run.
    Call { instance: Arc<str>, hook: EventKind, service: ServiceKind, payload: Vec<u8> },
    /// Records and custom events.
    Events(Vec<Event>),
    /// A callback wants to know what the hooks have cost.
    Times,
    /// A hook in the background failed.
    Fault { instance: Arc<str>, hook: EventKind, fault: Fault },
}

/// The letters, in order of arrival. A look at an empty one costs a load.
#[derive(Default)]
pub(super) struct Mailbox {
    full: AtomicBool,
    letters: Mutex<Vec<Letter>>,
}

impl Mailbox {
    pub(super) fn post(&self, letter: Letter) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push(letter);
        self.full.store(true, Ordering::Release);
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.full.load(Ordering::Acquire)
    }

    pub(super) fn take(&self) -> Vec<Letter> {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        self.full.store(false, Ordering::Release);
        std::mem::take(&mut letters)
    }
}
