//! Requests of other threads to the run, which wait for the training thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::abi::kinds::{EventKind, ServiceKind};

use super::event::Event;
use crate::plugins::Fault;
use crate::services::SharedTensor;

/// A request of another thread to the run.
pub(super) enum Message {
    /// A service that acts on the run.
    Call { instance: Arc<str>, hook: EventKind, service: ServiceKind, payload: Vec<u8> },
    /// Records, and custom events with their tensors.
    Events(Vec<(Event, Vec<SharedTensor>)>),
    /// A callback asks for the cost of the hooks.
    Times,
    /// The process of an instance has failed, and is started anew.
    Restart { instance: Arc<str> },
    /// A hook in the background failed.
    Fault { instance: Arc<str>, hook: EventKind, fault: Fault },
}

/// The messages, in order of arrival. Checking an empty inbox costs one load.
#[derive(Default)]
pub(super) struct Inbox {
    full: AtomicBool,
    messages: Mutex<Vec<Message>>,
}

impl Inbox {
    pub(super) fn post(&self, message: Message) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push(message);
        self.full.store(true, Ordering::Release);
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.full.load(Ordering::Acquire)
    }

    pub(super) fn take(&self) -> Vec<Message> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        self.full.store(false, Ordering::Release);
        std::mem::take(&mut messages)
    }
}
