//! Everything that the plugin logs, on any thread.

use std::fmt::Write;
use std::sync::{Mutex, Once};

use plugin_api::tracing::field::{Field, Visit};
use plugin_api::tracing::span::{Attributes, Id, Record};
use plugin_api::tracing::subscriber::set_global_default;
use plugin_api::tracing::{Event, Metadata, Subscriber};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Collects what is logged from now on, as `WARN message field=value`.
pub(crate) fn collect() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_global_default(Collector).unwrap());
}

/// What was logged by all tests of the process.
pub(crate) fn lines() -> Vec<String> {
    LINES.lock().unwrap().clone()
}

struct Collector;

impl Subscriber for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        LINES.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let name = if field.name() == "message" { String::new() } else { format!("{}=", field.name()) };
        write!(self.0, " {name}{value:?}").unwrap();
    }
}
