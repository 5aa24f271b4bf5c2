//! Events that come from neither the loop nor a callback: those of the program that embeds the loop, and of the host's own
//! threads.

use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;

use super::event::{Event, EventData};
use super::inbox::{Inbox, Message};
use crate::history::Position;

/// Sends events to the callbacks, from any thread. Each is delivered before the next event of the loop, at the
/// position that the run has then.
#[derive(Clone)]
pub struct Emitter {
    author: Arc<str>,
    inbox: Arc<Inbox>,
}

impl Emitter {
    pub(super) fn new(author: &str, inbox: Arc<Inbox>) -> Self {
        Self { author: author.into(), inbox }
    }

    /// Tells that a queued checkpoint of this position is written, with its size in bytes, or why it could not be.
    pub(crate) fn checkpoint_written(&self, position: Position, path: &str, written: Result<u64, String>) {
        let data = EventData::Written { path: path.to_owned(), written };
        self.inbox.post(Message::Events(vec![Event { kind: EventKind::CHECKPOINT_WRITTEN, position, data }]));
    }

    /// Sends an event of this name.
    pub fn emit(&self, name: &str, payload: &[u8]) {
        let data =
            EventData::Custom { name: name.to_owned(), author: Arc::clone(&self.author), payload: payload.into() };
        self.inbox.post(Message::Events(vec![Event { kind: EventKind::CUSTOM, position: Position::default(), data }]));
    }
}
