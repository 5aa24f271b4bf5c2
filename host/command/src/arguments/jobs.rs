//! `host evaluate`, `host predict` and `host export`: jobs on a checkpoint.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::folders::{Folders, Locking};
use super::run::Shown;

const EVALUATE_EXAMPLES: &str = "\
Examples:
  host evaluate runs/digits/2026-11-21T06-00-00             the best checkpoint, on the evaluation split
  host evaluate runs/long --checkpoint last --split test
  host evaluate runs/long --data new.csv --set 'eval.metrics=[\"accuracy\", \"f1\"]'";

const PREDICT_EXAMPLES: &str = "\
Examples:
  host predict runs/long --data new.csv
  host predict runs/long --data photos --draw
  host predict runs/long --data new.csv --format jsonl --out predictions
  host predict runs/text --prompt 'To be' --tokens 200 --temperature 0.8";

const EXPORT_EXAMPLES: &str = "\
Examples:
  host export runs/long --plugin onnx
  host export runs/long --plugin tflite --set 'plugins.tflite.options.quantize=\"int8\"'";

/// Measures a saved model on a split of its data, or on other data.
#[derive(Debug, Args)]
#[command(after_help = EVALUATE_EXAMPLES)]
pub struct EvaluateArguments {
    /// Which model.
    #[command(flatten)]
    pub job: CheckpointArguments,
    /// Other data of the run's format; for two files, the folder that holds both under the names that the run file has.
    #[arg(long, value_name = "PATH", conflicts_with = "split")]
    pub data: Option<PathBuf>,
    /// The split to measure on [default: that of `[eval]`].
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
}

/// Writes what a saved model says about data, with or without targets.
#[derive(Debug, Args)]
#[command(after_help = PREDICT_EXAMPLES)]
pub struct PredictArguments {
    /// Which model.
    #[command(flatten)]
    pub job: CheckpointArguments,
    /// Data of the run's format; targets may be missing, and images need no folders of classes.
    #[arg(long, value_name = "PATH", required_unless_present = "prompt")]
    pub data: Option<PathBuf>,
    /// The format of the predictions.
    #[arg(long, value_enum, default_value_t)]
    pub format: PredictionFormat,
    /// Draws each image with its prediction and the probability.
    #[arg(long, requires = "data")]
    pub draw: bool,
    /// A text that the model continues.
    #[arg(long, value_name = "TEXT", conflicts_with = "data", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// How many tokens to add to the prompt.
    #[arg(long, value_name = "N", default_value_t = 200, requires = "prompt")]
    pub tokens: u64,
    /// How freely tokens are drawn: 0 takes the likeliest, 1 draws by the model's probabilities.
    #[arg(long, value_name = "T", default_value_t = 1.0, requires = "prompt")]
    pub temperature: f64,
    /// The seed of the tokens that are drawn [default: that of the run].
    #[arg(long, value_name = "N", requires = "prompt")]
    pub seed: Option<u64>,
}

/// The format of predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PredictionFormat {
    /// `predictions.csv`: a row a sample.
    #[default]
    Csv,
    /// `predictions.jsonl`: an object a sample.
    Jsonl,
    /// `predictions.npy`: the outputs as one array, probabilities where there are classes.
    Npy,
}

/// Exports a saved model with export plugins.
#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub struct ExportArguments {
    /// Which model.
    #[command(flatten)]
    pub job: CheckpointArguments,
    /// Data for calibration in place of the run's own.
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
}

/// What all jobs on a checkpoint take.
#[derive(Debug, Args)]
pub struct CheckpointArguments {
    /// A run folder, of which the `best` checkpoint is taken, else the `last`; or a checkpoint.
    #[arg(value_name = "RUN_FOLDER|CHECKPOINT")]
    pub path: PathBuf,
    /// Another checkpoint of the run folder, by its name: `last`, `epoch-3`.
    #[arg(long, value_name = "NAME")]
    pub checkpoint: Option<String>,
    /// Where the plugin libraries are.
    #[command(flatten)]
    pub folders: Folders,
    /// Whether only libraries of a lock are opened.
    #[command(flatten)]
    pub locking: Locking,
    /// Adds a callback; those that the run's own file names take no part.
    #[arg(long = "plugin", value_name = "KIND[=NAME]", action = ArgAction::Append)]
    pub plugin: Vec<String>,
    /// Overrides a key of the run file: `eval.batch_size=8`, `plugins.onnx.options.opset=17`.
    #[arg(long = "set", value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub overrides: Vec<String>,
    /// The folder for the results [default: a folder in the run folder, named after the job and the checkpoint].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replaces results that are already there.
    #[arg(long)]
    pub force: bool,
    /// Prints the result as JSON to stdout; or, if nothing was started, the errors.
    #[arg(long)]
    pub json: bool,
    /// How much is shown.
    #[command(flatten)]
    pub shown: Shown,
}
