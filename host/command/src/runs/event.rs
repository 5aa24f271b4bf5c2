//! What happens to a run, as `host run --json` tells it on stdout: an object a line. Fields may be added; these stay.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::status::{Number, State, Status};
use crate::report::ProblemJson;

/// An event of a run.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent<'a> {
    /// The run begins.
    Start {
        /// Its name.
        run: &'a str,
        /// The run folder.
        folder: String,
        /// The checkpoint that it goes on from.
        resumed_from: Option<String>,
    },
    /// The state has changed.
    State {
        /// What the run does now.
        state: State,
        /// Why it stops.
        reason: Option<&'a str>,
        /// Who asked it to stop.
        stopped_by: Option<&'a str>,
        /// The epoch, counted from 1; 0 before the first.
        epoch: u64,
        /// Steps of the run.
        step: u64,
        /// From 0 to 1.
        progress: f64,
    },
    /// A split was measured: the training split at the end of an epoch, another by an evaluation.
    Metrics {
        /// The split.
        split: &'a str,
        /// The epoch.
        epoch: u64,
        /// Steps of the run.
        step: u64,
        /// From 0 to 1.
        progress: f64,
        /// What was measured then, by name.
        #[schemars(with = "BTreeMap<String, Number>")]
        metrics: BTreeMap<&'a str, Value>,
    },
    /// Something was published.
    Artifact {
        /// What it is: `export`, `checkpoint`.
        kind: &'a str,
        /// Where: absolute, or within the run folder.
        path: &'a str,
    },
    /// Something is wrong that the run survives.
    Warning(ProblemJson<'a>),
    /// Something ends the run.
    Error(ProblemJson<'a>),
    /// The run has ended: the content of `status.json`. The last event.
    End(&'a Status),
    /// Nothing was started. The only event.
    Refused {
        /// False.
        valid: bool,
        /// What is wrong.
        problems: Vec<ProblemJson<'a>>,
    },
}

/// A line: an event and its time.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "An event of `host run --json`")]
struct Line<'a> {
    /// Seconds since 1970.
    time: f64,
    #[serde(flatten)]
    event: &'a RunEvent<'a>,
}

impl RunEvent<'_> {
    /// Its line, without an end of line.
    ///
    /// # Errors
    ///
    /// When it cannot be written as JSON.
    pub fn line(&self) -> serde_json::Result<String> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        serde_json::to_string(&Line { time, event: self })
    }

    /// The JSON Schema of a line.
    pub fn schema() -> Value {
        schemars::schema_for!(Line<'_>).to_value()
    }
}
