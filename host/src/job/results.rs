//! Where results are: those of a run, and the folders of what jobs on its checkpoints write.

use std::path::PathBuf;

use host_command::runs::history::METRICS_FILE;
use plugin_api::event::Outcome;

use super::run::JobOutcome;
use crate::checkpoint;

/// The folder of evaluations in a run folder; each of these has a folder for each checkpoint.
pub(super) const EVALUATIONS: &str = "evaluations";
/// The folder of predictions in a run folder.
pub(super) const PREDICTIONS: &str = "predictions";
/// The folder of exports in a run folder, and the one that exporters write into by default.
pub(super) const EXPORTS: &str = "exports";

/// The folders of a run folder that have the results of jobs on its checkpoints.
pub(super) const FOLDERS: [&str; 3] = [EVALUATIONS, PREDICTIONS, EXPORTS];

/// Where the results of a run are.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// The run folder.
    pub run_folder: PathBuf,
    /// The best checkpoint.
    pub best_checkpoint: Option<PathBuf>,
    /// The last checkpoint.
    pub last_checkpoint: Option<PathBuf>,
    /// The metrics of all epochs, which `json-lines` writes.
    pub metrics_file: Option<PathBuf>,
    /// Where `host predict` writes predictions of this run's checkpoints; it may not be there yet.
    pub inference_folder: PathBuf,
    /// Where `host predict --draw` writes pictures, in the folder of each checkpoint; it may not be there yet.
    pub drawings_folder: PathBuf,
    /// The files that exporters wrote.
    pub exported_files: Vec<PathBuf>,
}

impl JobOutcome {
    /// Where the results are.
    pub fn results(&self) -> Results {
        let checkpoints = self.folder.join(checkpoint::FOLDER);
        let pointer = |name| checkpoint::read_pointer(&checkpoints, name).ok().flatten().filter(|path| path.is_dir());
        let metrics_file = self.folder.join(METRICS_FILE);
        let exports = self.status.pointer("/artifacts/exports").and_then(serde_json::Value::as_array);
        let exported = exports.into_iter().flatten().filter_map(|path| Some(self.folder.join(path.as_str()?)));
        let inference_folder = self.folder.join(PREDICTIONS);
        Results {
            run_folder: self.folder.clone(),
            best_checkpoint: pointer("best"),
            last_checkpoint: pointer("last"),
            metrics_file: Some(metrics_file).filter(|path| path.is_file()),
            drawings_folder: inference_folder.clone(),
            inference_folder,
            exported_files: exported.collect(),
        }
    }
}

/// What every job's outcome tells.
pub trait Ending {
    /// How it ended.
    fn outcome(&self) -> Outcome;
}

impl Ending for JobOutcome {
    fn outcome(&self) -> Outcome {
        self.outcome
    }
}
