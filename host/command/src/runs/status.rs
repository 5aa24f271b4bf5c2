//! `status.json`: where a run is, for people and programs outside it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::folder::{is_owned, is_run};
use super::process::Process;
use super::ranks::run_of_rank;
use super::sudden_end;

/// The name of the file in the run folder.
pub const STATUS_FILE: &str = "status.json";

/// What a run does, or how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is being prepared.
    #[default]
    Starting,
    /// It trains.
    Running,
    /// It waits for `host resume`.
    Paused,
    /// Somebody asked it to stop; its end hooks come.
    Stopping,
    /// It did all that was planned.
    Finished,
    /// A callback or a person stopped it.
    Stopped,
    /// Something failed.
    Failed,
    /// A signal ended it.
    Interrupted,
}

impl State {
    /// Its word in `status.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether a process of the run lives.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Paused | Self::Stopping)
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// The content of `status.json`. Numbers that JSON cannot represent are strings: `"NaN"`, `"inf"`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Status {
    /// The run's name.
    pub run: String,
    /// What it does, or how it ended.
    pub state: State,
    /// How it ended: the same word as `state`; none until then.
    pub outcome: Option<String>,
    /// Why it stopped.
    pub reason: Option<String>,
    /// Who asked it to stop: the instance of a plugin, `host` for a signal, or a user of `host stop`.
    pub stopped_by: Option<String>,
    /// Which part of the training failed: `plugin`, `data`, `model` and others.
    pub error_kind: Option<String>,
    /// What failed, with its causes.
    pub error: Option<String>,
    /// What is wrong with a run that did not fail: its loss is NaN, nothing keeps its weights.
    pub warnings: Vec<String>,
    /// The process, by its number.
    pub process: u32,
    /// When the process started, as the system counts it: another process may get its number one day.
    pub process_started: Option<u64>,
    /// The machine that it runs on.
    pub machine: String,
    /// Which of the run's processes it is, from 0; none if it is the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u64>,
    /// How many processes train the model together; none if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_size: Option<u64>,
    /// When it started.
    pub started: String,
    /// When this was written.
    pub updated: String,
    /// Where it is.
    pub position: PositionStatus,
    /// From 0 to 1.
    pub progress: f64,
    /// Seconds since the run began, those of earlier processes too.
    pub elapsed: f64,
    /// Estimated from the speed so far, in seconds; unknown before the first step.
    pub time_left: Option<f64>,
    /// Seconds in which the loop had to wait for batches, in this process.
    pub waited_for_data: f64,
    /// The latest value of each metric.
    #[schemars(with = "BTreeMap<String, Number>")]
    pub metrics: BTreeMap<String, Value>,
    /// The best value of each metric whose name tells which way it improves.
    pub best: BTreeMap<String, BestStatus>,
    /// What was published: paths by kind.
    pub artifacts: BTreeMap<String, Value>,
    /// Every failure of a callback, also those that the run survived.
    pub failures: Vec<FailureStatus>,
    /// What each hook cost, most expensive first.
    pub callbacks: Vec<CallbackStatus>,
}

/// A number, as JSON has it here: one that it cannot represent is a text, `NaN`, `inf` or `-inf`. For schemas.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) enum Number {
    Finite(f64),
    Other(String),
}

/// The best value of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BestStatus {
    /// The value; it is a finite number.
    pub value: f64,
    /// The epoch in which it was measured.
    pub epoch: u64,
    /// After which step.
    pub step: u64,
}

/// A failure of a callback.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FailureStatus {
    /// The instance.
    pub plugin: String,
    /// Its kind.
    pub kind: String,
    /// The library.
    pub library: String,
    /// The hook.
    pub hook: String,
    /// What it said.
    pub message: String,
    /// Where in its source, if known.
    pub place: Option<String>,
    /// Whether it panicked.
    pub panicked: bool,
    /// What the run's policy did about it.
    pub on_error: String,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PositionStatus {
    /// The epoch, counted from 1; 0 before the first.
    pub epoch: u64,
    /// Steps of the epoch.
    pub step: u64,
    /// Steps of the run.
    pub global_step: u64,
    /// Samples of the run.
    pub samples: u64,
}

impl PositionStatus {
    /// In words: `3 epochs, 84 steps`.
    pub fn in_words(&self) -> String {
        let plural = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        format!("{}, {}", plural(self.epoch, "epoch"), plural(self.global_step, "step"))
    }
}

/// What a hook cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CallbackStatus {
    /// The instance.
    pub plugin: String,
    /// The hook.
    pub hook: String,
    /// Whether it ran in the background: the loop did not wait for it.
    pub background: bool,
    /// How often.
    pub calls: u64,
    /// In all.
    pub seconds: f64,
    /// The longest call.
    pub longest_seconds: f64,
}

impl Status {
    /// The JSON Schema of `status.json`.
    pub fn schema() -> Value {
        schemars::schema_for!(Status).to_value()
    }

    /// Which process it is about.
    pub fn of_process(&self) -> Process {
        Process { id: self.process, started: self.process_started, machine: self.machine.clone() }
    }
}

/// A run folder as it was found.
#[derive(Clone, Debug)]
pub struct FoundRun {
    /// The folder.
    pub folder: PathBuf,
    /// Its status; of a run whose process died, `failed` with how it ended.
    pub status: Status,
    /// Whether the status said that the run lives, and no process does.
    pub is_stale: bool,
    /// How long ago the status was written.
    pub age: Duration,
}

impl FoundRun {
    /// Reads the status of a run folder and looks whether its process lives. `None` if it is no run folder, or if the status
    /// cannot be read.
    pub fn read(folder: &Path) -> Option<Self> {
        if !is_run(folder) {
            return None;
        }
        let path = folder.join(STATUS_FILE);
        let written = path.metadata().and_then(|metadata| metadata.modified()).ok();
        let mut status: Status = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).ok()?,
            // It was killed before it wrote one, or prepares itself.
            Err(_) => Status::default(),
        };
        let age = written.and_then(|written| SystemTime::now().duration_since(written).ok()).unwrap_or_default();
        // Of a run on another machine, the lock tells only where the file system passes locks on.
        let here = status.machine.is_empty() || status.of_process().is_here();
        let is_stale = status.state.is_live() && here && is_owned(folder) == Some(false);
        if is_stale {
            let how = sudden_end::describe(folder, &status);
            status.state = State::Failed;
            status.error = Some(format!("the process {how}"));
            status.time_left = None;
        }
        Some(Self { folder: folder.to_owned(), status, is_stale, age })
    }

    /// Whether a process of the run lives, as far as this machine can tell.
    pub fn is_live(&self) -> bool {
        self.status.state.is_live()
    }
}

/// The run at `path`: the folder itself, of a rank's folder that of its run or, in a folder of runs, the newest of them.
pub fn find_run(path: &Path) -> Option<PathBuf> {
    if let Some(run) = run_of_rank(path) {
        return Some(run);
    }
    if is_run(path) {
        return Some(path.to_owned());
    }
    runs_in(path).into_iter().max_by_key(|folder| {
        let status = folder.join(STATUS_FILE).metadata().or_else(|_| folder.metadata());
        status.and_then(|metadata| metadata.modified()).ok()
    })
}

/// Every run folder in `folder`, at most four levels down; what is in a run folder is not looked at. Of the folders of a run's
/// ranks it is that run.
pub fn runs_in(folder: &Path) -> Vec<PathBuf> {
    if let Some(run) = run_of_rank(folder) {
        return vec![run];
    }
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        if is_run(&folder) {
            found.push(folder);
            continue;
        }
        if depth == DEEPEST {
            continue;
        }
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        // Links are not followed: they may lead back.
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        open.extend(folders.map(|entry| (entry.path(), depth + 1)));
    }
    found.sort();
    found
}

/// So deep below a folder runs are looked for.
const DEEPEST: u32 = 4;
