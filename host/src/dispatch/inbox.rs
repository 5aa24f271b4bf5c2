//! Requests of other threads to the run, which wait for the training thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::abi::kinds::{EventKind, ServiceKind};

use super::dispatcher::Dispatcher;
use super::event::Event;
use crate::plugins::{Fault, reply_into};
use crate::record::Position;
use crate::services::{Call, Reply, Services};

/// A request of another thread to the run.
pub(super) enum Message {
    /// A service that acts on the run.
    Call { instance: Arc<str>, hook: EventKind, service: ServiceKind, payload: Vec<u8> },
    /// Records and custom events.
    Events(Vec<Event>),
    /// A callback asks for the cost of the hooks.
    Times,
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

    fn take(&self) -> Vec<Message> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        self.full.store(false, Ordering::Release);
        std::mem::take(&mut messages)
    }
}

impl Dispatcher {
    /// Handles the requests of other threads since the last event.
    #[inline]
    pub(super) fn read_inbox(&mut self, services: &mut dyn Services) {
        while !self.inbox.is_empty() {
            for message in self.inbox.take() {
                self.handle_message(message, services);
            }
        }
    }

    fn handle_message(&mut self, message: Message, services: &mut dyn Services) {
        match message {
            Message::Call { instance, hook, service, payload } => {
                let call = Call { service, instance: &instance, hook, payload: &payload, tensors: &[] };
                let (mut ignored, mut kept) = (Vec::new(), Vec::new());
                let table = reply_into(&mut ignored);
                if let Err(error) = services.answer(&call, &mut Reply::new(&table, &mut kept))
                    && let Some(index) = self.index_of(&instance)
                {
                    let message = format!("`{}` requested in the background: {error}", service.name());
                    let fault = Fault { message, panicked: false, place: String::new() };
                    self.failed(index, hook, fault, services);
                }
            }
            Message::Events(mut events) => {
                for event in &mut events {
                    // A remote does not know where the run is.
                    if event.position == Position::default() {
                        event.position = services.position();
                    }
                }
                self.deliver_rounds(events, services);
            }
            Message::Times => self.publish_times(),
            Message::Fault { instance, hook, fault } => {
                if let Some(index) = self.index_of(&instance) {
                    self.failed(index, hook, fault, services);
                }
            }
        }
    }
}
