//! A trace in the Trace Event Format (JSON object form, complete events), which Chrome and Perfetto open.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use plugin_api::protocol::{Span, SpanKind};
use serde_json::json;

/// Writes the trace, whole or not at all.
pub(super) fn write<'s>(path: &Path, spans: impl Iterator<Item = &'s Span>) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = BufWriter::new(tempfile::Builder::new().prefix(".tmp-").tempfile_in(folder)?);
    write!(file, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    for (thread, name) in [(thread(SpanKind::Phase), "steps"), (thread(SpanKind::Operator), "operators")] {
        let named = json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": thread, "args": { "name": name } });
        writeln!(file, "{named},")?;
    }
    let process = json!({ "name": "process_name", "ph": "M", "pid": 1, "args": { "name": "host" } });
    write!(file, "{process}")?;
    for span in spans {
        let event = json!({
            "name": span.name,
            "cat": if span.kind == SpanKind::Phase { "phase" } else { "operator" },
            "ph": "X",
            // Microseconds.
            "ts": span.began as f64 / 1000.0,
            "dur": span.nanoseconds as f64 / 1000.0,
            "pid": 1,
            "tid": thread(span.kind),
            "args": { "step": span.step },
        });
        write!(file, ",\n{event}")?;
    }
    writeln!(file, "]}}")?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.persist(path).map_err(|error| error.error).map(drop)
}

/// The row of the viewer.
fn thread(kind: SpanKind) -> u32 {
    if kind == SpanKind::Phase { 1 } else { 2 }
}
