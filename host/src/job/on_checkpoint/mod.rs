//! Jobs on a saved checkpoint: `evaluate`, `predict` and `export`.
//!
//! `locate.rs` finds the checkpoint, `plan.rs` reads and checks everything, `session.rs` makes the model and the callbacks;
//! then each job has a file. They load the kinds that their command names, and none that the run's file names.

mod drawing;
mod evaluate;
mod export;
mod locate;
mod outputs;
mod plan;
mod predict;
mod predictions;
mod session;
mod text;

use std::path::PathBuf;

use plugin_api::event::Outcome;
use serde_json::Value;

pub use evaluate::{EvaluateRequest, evaluate};
pub use export::{ExportRequest, export};
pub use predict::{Continuation, PredictRequest, PredictedFrom, predict};

/// Which checkpoint a job works on, and with which callbacks.
#[derive(Clone, Debug, Default)]
pub struct CheckpointRequest {
    /// A run folder, of which the best checkpoint is taken, else the last; or a checkpoint.
    pub path: PathBuf,
    /// Another checkpoint of the run folder, by its name.
    pub checkpoint: Option<String>,
    /// Folders and library files.
    pub plugins: Vec<PathBuf>,
    /// Instances, `KIND[=NAME]`.
    pub appended: Vec<String>,
    /// `KEY=VALUE` overrides of the run file.
    pub overrides: Vec<String>,
    /// The folder for the results.
    pub out: Option<PathBuf>,
    /// Replaces results that are already there.
    pub force: bool,
}

/// How a job on a checkpoint ended.
#[derive(Clone, Debug)]
pub struct CheckpointJobOutcome {
    /// Its outcome.
    pub outcome: Outcome,
    /// The folder of the results.
    pub folder: PathBuf,
    /// What it wrote there.
    pub files: Vec<PathBuf>,
    /// What it found, for programs.
    pub result: Value,
}
