//! Brings a library's logs to its host.
//!
//! A shared library has its own copy of `tracing`'s statics, so its events would be lost;
//! this subscriber, set once in each library, sends them across the ABI.

use std::fmt::Write as _;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::abi::{LogTable, Text};

type Sink = unsafe extern "C" fn(*const LogTable);

static SINK: OnceLock<Sink> = OnceLock::new();

/// Sets the host's log as this library's, unless it already has one.
pub(crate) fn install(sink: Sink) {
    if SINK.set(sink).is_ok() {
        // The author's test may already have set a subscriber: that one stays.
        let _ = tracing::subscriber::set_global_default(Bridge);
    }
}

struct Bridge;

impl Subscriber for Bridge {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let Some(sink) = SINK.get() else { return };
        let mut text = Message::default();
        event.record(&mut text);
        let message = text.message + &text.fields;
        let metadata = event.metadata();
        let record = LogTable {
            size: size_of::<LogTable>() as u32,
            level: match *metadata.level() {
                Level::ERROR => 1,
                Level::WARN => 2,
                Level::INFO => 3,
                Level::DEBUG => 4,
                Level::TRACE => 5,
            },
            target: Text::new(metadata.target()),
            message: Text::new(&message),
        };
        // SAFETY: the host's function is valid until the process ends, from any thread, and the
        // record outlives the call.
        unsafe { sink(&raw const record) };
    }

    // Spans do not cross the ABI.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Message {
    message: String,
    fields: String,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
