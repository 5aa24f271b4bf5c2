//! The requests of services, as they cross the ABI. Authors in Rust call the methods of [`Run`](crate::Run) instead.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Blob, Control, CopyAction, Recording, TensorSet};

/// Why a service or a hook failed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Failure {
    /// What happened, in one line. What is not UTF-8 in it is replaced: the words of a failure are never lost.
    #[serde(deserialize_with = "replaced")]
    pub message: String,
    /// Where a panic happened, `file:line:column`.
    #[serde(default)]
    pub place: String,
}

/// Text, with what is not UTF-8 replaced.
fn replaced<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Visitor;
    impl serde::de::Visitor<'_> for Visitor {
        type Value = String;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("text")
        }
        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
        // What MessagePack calls text and is none.
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
    }
    deserializer.deserialize_str(Visitor)
}

/// Puts a metric; it is readable at once. NaN and infinities are values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MetricPut {
    /// `<split>_<metric>` for metrics of a split, else any name.
    pub name: String,
    /// The value.
    pub value: f64,
}

/// A name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Name {
    /// The name.
    pub name: String,
}

/// Records where the time of steps goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// What is recorded from now on.
    pub record: Recording,
}

/// Queues the checkpoint that is being taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueCheckpoint {
    /// Where to write it, relative to the run folder or absolute.
    pub path: String,
    /// Paths of checkpoints that need not be written any more.
    #[serde(default)]
    pub instead_of: Vec<String>,
}

/// Puts an array into the history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArrayPut {
    /// The series.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its values, the last dimension fastest.
    pub values: Vec<f32>,
}

/// Sets a hyper-parameter; from then on its caller owns it, not the schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HyperParameterSet {
    /// The group; absent: every group that has it.
    #[serde(default)]
    pub group: Option<String>,
    /// The hyper-parameter.
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// Asks the loop for something, at its next safe point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlRequest {
    /// What.
    pub action: Control,
    /// The reason, shown to people.
    #[serde(default)]
    pub reason: String,
}

/// Which tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TensorsRequest {
    /// The set.
    pub set: TensorSet,
    /// The names in it; empty: all, in the model's order.
    #[serde(default)]
    pub names: Vec<String>,
}

/// Named copies of the weights, or of the whole training state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CopyRequest {
    /// The copy's name.
    pub name: String,
    /// What to do.
    pub action: CopyAction,
}

/// Trains `steps` updates that do not affect the run's history, position and data order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TrainSteps {
    /// How many updates.
    pub steps: u64,
    /// The batch of the first one, counted from 0 over epochs: where an earlier request ended, for several that go through
    /// the data together.
    #[serde(default)]
    pub first: u64,
}

/// Asks for outputs in inference mode: of the request's tensor `inputs`, of several tensors for a model that takes several
/// inputs, each under its name, or of batches of a split.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Predict {
    /// The split; absent: the request's tensor.
    #[serde(default)]
    pub split: Option<String>,
    /// How many batches of the split.
    #[serde(default)]
    pub batches: u64,
    /// Nodes of the graph whose values are returned besides the output, under their names.
    #[serde(default)]
    pub nodes: Vec<String>,
}

/// Asks for metrics over a split.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measure {
    /// The split.
    pub split: String,
    /// Which; empty: the loss and those of the run's `[eval]`.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// The named copy of the weights; absent: the model as it is.
    #[serde(default)]
    pub weights: Option<String>,
    /// Over how many batches of the split, the first ones; absent: all.
    #[serde(default)]
    pub batches: Option<u64>,
}

/// Adds other data as a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSplit {
    /// The split's name; none of the run's.
    pub name: String,
    /// A file or folder in the format of the run's data, absolute or relative to the run folder.
    pub path: String,
}

/// Asks for a new estimate of the batch-norm statistics.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recalibrate {
    /// The split whose inputs are used.
    pub split: String,
    /// How many batches of it.
    pub batches: u64,
}

/// Asks for a batch of a split, in the split's own order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchRequest {
    /// The split.
    pub split: String,
    /// Which batch, from 0.
    pub index: u64,
    /// Whether the reply has every input of the batch, not only its samples, beside the targets.
    #[serde(default)]
    pub all: bool,
}

/// Asks for the value of an expression, in the language of the run file's `if`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluate {
    /// The expression.
    pub expression: String,
    /// The caller's own names in it; any other name is a position or a metric.
    #[serde(default)]
    pub variables: BTreeMap<String, f64>,
    /// Whether it is actions, which are not done but returned.
    #[serde(default)]
    pub actions: bool,
}

/// A custom event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Custom {
    /// Its name.
    pub name: String,
    /// What it carries.
    #[serde(default)]
    pub payload: Blob,
}

/// Freezes parameters, or lets frozen ones learn again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Patterns of their names, in which `*` stands for any text.
    pub patterns: Vec<String>,
    /// Whether they are frozen from now on.
    pub frozen: bool,
    /// Whether the statistics of a batch norm whose parameters are all frozen go on following the batches.
    #[serde(default)]
    pub moving_statistics: bool,
}

/// Takes only the first batches of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitBatches {
    /// The split.
    pub split: String,
    /// How many; absent: all again.
    #[serde(default)]
    pub batches: Option<u64>,
}

/// A path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Path {
    /// Relative to the run folder, or absolute.
    pub path: String,
}

/// Something that was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// `best_checkpoint`, `last_checkpoint`, `metrics`, `export`, or a name of the plugin's own.
    pub kind: String,
    /// Where, relative to the run folder or absolute.
    pub path: String,
}

/// A line for the console.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The text, without a line break.
    pub text: String,
}

/// Asks for lines of the console.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LinesAfter {
    /// The number of the last line that the caller has; 0: none.
    pub after: u64,
}

/// A status line for the console.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusLine {
    /// Which line; a plugin may have several.
    pub name: String,
    /// Its text; empty removes it.
    pub text: String,
    /// Progress from 0 to 1, if there is one.
    #[serde(default)]
    pub progress: Option<f64>,
}
