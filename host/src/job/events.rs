//! What happens to a run as JSON on stdout, an object a line: `host run --json`.
//!
//! Each has `event`, `time` (seconds since 1970) and what belongs to the event; fields may be added. The last object of a run
//! is its final status, with `event` = `end`.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use host_command::runs::status::Status;
use serde_json::{Map, Value, json};

use super::status::number;
use crate::report::{Problem, ProblemJson};
use crate::services::Services;
use crate::train::Session;

/// Where the events go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Events {
    /// Nowhere.
    #[default]
    Off,
    /// To stdout.
    Stdout,
}

impl Events {
    /// The run begins: its folder, and where it goes on from.
    pub(super) fn start(self, folder: &std::path::Path, run: &str, resumed_from: Option<&std::path::Path>) {
        self.write("start", || {
            json!({ "run": run, "folder": folder.display().to_string(),
                "resumed_from": resumed_from.map(|path| path.display().to_string()) })
        });
    }

    /// The state has changed.
    pub(super) fn state(self, status: &Status) {
        self.write("state", || {
            json!({ "state": status.state, "reason": status.reason, "stopped_by": status.stopped_by,
                "epoch": status.position.epoch, "step": status.position.global_step, "progress": status.progress })
        });
    }

    /// A split was measured: the training split at the end of an epoch, another by an evaluation.
    pub(super) fn measured(self, split: &str, session: &Session) {
        self.write("metrics", || {
            let position = session.position();
            let of_now = session.metrics().iter().filter(|(_, metric)| metric.position == position);
            let metrics: Map<String, Value> =
                of_now.map(|(name, metric)| (name.to_owned(), number(metric.value))).collect();
            json!({ "split": split, "epoch": position.epoch, "step": position.global_step,
                "progress": session.progress(), "metrics": metrics })
        });
    }

    /// Something was published.
    pub(super) fn artifact(self, kind: &str, path: &str) {
        self.write("artifact", || json!({ "kind": kind, "path": path }));
    }

    /// Something is wrong that the run survives.
    pub(super) fn warning(self, warning: &Problem) {
        self.write("warning", || serde_json::to_value(ProblemJson::new("warning", warning)).unwrap_or_default());
    }

    /// Something ends the run.
    pub(super) fn error(self, error: &Problem) {
        self.write("error", || serde_json::to_value(ProblemJson::new("error", error)).unwrap_or_default());
    }

    /// The run has ended.
    pub(super) fn end(self, status: &Value) {
        self.write("end", || status.clone());
    }

    fn write(self, event: &str, content: impl FnOnce() -> Value) {
        if self == Self::Off {
            return;
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut line = Map::from_iter([("event".to_owned(), event.into()), ("time".to_owned(), time.into())]);
        if let Value::Object(content) = content() {
            line.extend(content);
        }
        let mut out = std::io::stdout().lock();
        // A reader that is gone does not change the run.
        let _ = writeln!(out, "{}", Value::Object(line)).and_then(|()| out.flush());
    }
}
