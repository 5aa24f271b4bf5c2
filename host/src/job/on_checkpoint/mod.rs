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

use host_command::arguments::Locking;
use plugin_api::event::Outcome;
use serde_json::Value;

use super::handle::{JobHandle, Link};
use super::log::Verbosity;
use super::results::Ending;
use crate::report::Problems;

pub use evaluate::EvaluateRequest;
pub use export::ExportRequest;
pub use predict::{Continuation, PredictRequest, PredictedFrom};

/// A job on a checkpoint.
///
/// ```no_run
/// use host::job::{CheckpointJob, CheckpointRequest, EvaluateRequest, Verbosity};
///
/// let request = EvaluateRequest {
///     job: CheckpointRequest { path: "runs/digits".into(), ..CheckpointRequest::default() },
///     split: Some("val".to_owned()),
///     ..EvaluateRequest::default()
/// };
/// let job = CheckpointJob::Evaluate(request).start(Verbosity::Quiet)?;
/// while !job.is_finished() {
///     println!("{:.0} %", job.progress() * 100.0);
///     std::thread::sleep(std::time::Duration::from_millis(50));
/// }
/// println!("{:?}", job.metrics());
/// let outcome = job.join().expect("there is a checkpoint");
/// println!("{}", outcome.files[0].display());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum CheckpointJob {
    /// The metrics over a split, or over other data.
    Evaluate(EvaluateRequest),
    /// The outputs for other data, or a text that is continued.
    Predict(PredictRequest),
    /// Export plugins.
    Export(ExportRequest),
}

impl CheckpointJob {
    /// Does it.
    ///
    /// # Errors
    ///
    /// What prevents the job from starting: a wrong path, data that does not fit, results that are there already. A job that
    /// started and failed is an outcome; the console tells its error.
    pub fn run(&self, verbosity: Verbosity) -> Result<CheckpointJobOutcome, Problems> {
        self.run_with(verbosity, &Link::default())
    }

    /// Does it on a thread of its own.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(self, verbosity: Verbosity) -> std::io::Result<JobHandle<CheckpointJobOutcome>> {
        JobHandle::start(move |link| self.run_with(verbosity, link))
    }

    fn run_with(&self, verbosity: Verbosity, link: &Link) -> Result<CheckpointJobOutcome, Problems> {
        match self {
            Self::Evaluate(request) => evaluate::evaluate(request, verbosity, link),
            Self::Predict(request) => predict::predict(request, verbosity, link),
            Self::Export(request) => export::export(request, verbosity, link),
        }
    }
}

/// Which checkpoint a job works on, and with which callbacks.
#[derive(Clone, Debug, Default)]
pub struct CheckpointRequest {
    /// A run folder, of which the best checkpoint is taken, else the last; or a checkpoint.
    pub path: PathBuf,
    /// Another checkpoint of the run folder, by its name.
    pub checkpoint: Option<String>,
    /// Folders and library files.
    pub plugins: Vec<PathBuf>,
    /// Whether only libraries of a lock are opened.
    pub locking: Locking,
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

impl Ending for CheckpointJobOutcome {
    fn outcome(&self) -> Outcome {
        self.outcome
    }
}
