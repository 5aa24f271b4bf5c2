//! The end of a queued checkpoint, told from the thread that writes it.

use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;

use super::event::{Event, EventData};
use super::inbox::{Inbox, Message};
use crate::history::Position;

/// Sends the event `checkpoint_written` from any thread. It is delivered before the next event of the loop.
#[derive(Clone)]
pub struct WrittenCheckpoints(Arc<Inbox>);

impl WrittenCheckpoints {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self(inbox)
    }

    /// The checkpoint of this position that was queued for `path` is written, with its size in bytes, or why it is not.
    pub(crate) fn tell(&self, position: Position, path: &str, written: Result<u64, String>) {
        let data = EventData::Written { path: path.to_owned(), written };
        let event = Event { kind: EventKind::CHECKPOINT_WRITTEN, position, data };
        self.0.post(Message::Events(vec![(event, Vec::new())]));
    }
}
