//! The written form of what crosses: descriptors, and the requests and replies of the services.
//!
//! Every struct here is a MessagePack map with named keys (a descriptor: a JSON object). Fields are
//! only ever added, with a default; unknown keys are ignored. So both sides may be of different
//! minor versions, and a plugin in C needs no more than a MessagePack library.

mod record;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

pub use record::{Blob, HyperParameter, Record, RecordValue};

/// What a kind of callback is: the JSON document that `describe` gives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Descriptor {
    /// The kind's name, `[a-z0-9-]+`.
    pub kind: String,
    /// The version of the plugin.
    #[serde(default)]
    pub version: String,
    /// What it does, in one line.
    #[serde(default)]
    pub summary: String,
    /// Its licence, an SPDX expression.
    #[serde(default)]
    pub licence: String,
    /// The events that it wants, by name; see [`EventKind`](crate::abi::kinds::EventKind).
    #[serde(default)]
    pub hooks: Vec<String>,
    /// What its hooks need beyond position and metrics.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// The least minor version of the ABI that it works with.
    #[serde(default)]
    pub requires_minor: u32,
    /// The JSON Schema of its options, with defaults.
    #[serde(default)]
    pub options: Option<serde_json::Value>,
    /// When `trigger` comes unless the run says otherwise; absent: after each epoch.
    #[serde(default)]
    pub when: Option<serde_json::Value>,
    /// `inline` or `background`, unless the run says otherwise.
    #[serde(default = "inline")]
    pub dispatch: String,
    /// Whether it runs when its library is in the folder, without being named in the run.
    #[serde(default = "yes")]
    pub by_default: bool,
    /// `zero` or `all`: on which ranks of a distributed run it works.
    #[serde(default = "zero")]
    pub ranks: String,
    /// Metrics that it puts.
    #[serde(default)]
    pub produces: Vec<String>,
    /// Metrics that it reads.
    #[serde(default)]
    pub reads: Vec<String>,
    /// The next minor's field: where the plugin is documented.
    #[cfg(feature = "next-minor")]
    #[serde(default)]
    pub homepage: String,
}

fn inline() -> String {
    "inline".to_owned()
}

fn zero() -> String {
    "zero".to_owned()
}

fn yes() -> bool {
    true
}

/// Something that a hook needs beyond position and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The hook, by its event's name; empty: every hook.
    #[serde(default)]
    pub hook: String,
    /// A set of tensors (`parameters`, `gradients`, …), `training_state`, or the name of a service.
    pub what: String,
    /// Whether it writes there.
    #[serde(default)]
    pub write: bool,
}

/// Why a service or a hook failed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Failure {
    /// What happened, in one line.
    pub message: String,
    /// Where a panic happened, `file:line:column`.
    #[serde(default)]
    pub place: String,
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

/// A value of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The epoch in which it was put, from 1.
    pub epoch: u64,
    /// The global step after which it was put.
    pub global_step: u64,
    /// The value.
    pub value: f64,
}

/// An array of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArrayPoint {
    /// The epoch in which it was put, from 1.
    pub epoch: u64,
    /// The global step after which it was put.
    pub global_step: u64,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its values, the last dimension fastest.
    pub values: Vec<f32>,
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

/// A parameter group of the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterGroup {
    /// Its name.
    pub name: String,
    /// Its hyper-parameters: `learning_rate`, `weight_decay`, ….
    pub values: BTreeMap<String, f64>,
    /// Who owns each value that the host's schedule no longer sets.
    #[serde(default)]
    pub owners: BTreeMap<String, String>,
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
    /// Why; shown to people.
    #[serde(default)]
    pub reason: String,
}

/// What a callback can ask of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Control {
    /// End the run; it counts as stopped, not as failed.
    Stop,
    /// End the epoch after this step; its evaluation still comes.
    EndEpoch,
    /// Leave out this step's update; in `gradients` only.
    SkipUpdate,
    /// Evaluate at the next safe point.
    Evaluate,
    /// Take a checkpoint at the next safe point.
    Checkpoint,
    /// Hold the loop at the next safe point, until `resume`.
    Pause,
    /// End a pause.
    Resume,
}

/// A set of named tensors.
///
/// Written as `parameters`, `buffers`, `gradients`, `optimizer`, `batch` (`inputs`, `targets`),
/// `outputs`, `taps`, or `copy:<name>` for a named copy of the weights.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TensorSet {
    /// What the optimizer trains.
    Parameters,
    /// What the model keeps besides, such as batch-norm statistics.
    Buffers,
    /// The gradients of the parameters, by the parameters' names; from `gradients` to `step_end`, and in `trigger` those
    /// of the last step, as the optimizer used them.
    Gradients,
    /// The optimizer's state, such as `exp_avg.<parameter>`.
    Optimizer,
    /// The batch at hand: `inputs` and `targets`.
    Batch,
    /// The model's output for it: `outputs`.
    Outputs,
    /// What was asked for in `setup`.
    Taps,
    /// A named copy of the weights.
    Copy(String),
}

impl std::fmt::Display for TensorSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Parameters => formatter.write_str("parameters"),
            Self::Buffers => formatter.write_str("buffers"),
            Self::Gradients => formatter.write_str("gradients"),
            Self::Optimizer => formatter.write_str("optimizer"),
            Self::Batch => formatter.write_str("batch"),
            Self::Outputs => formatter.write_str("outputs"),
            Self::Taps => formatter.write_str("taps"),
            Self::Copy(name) => write!(formatter, "copy:{name}"),
        }
    }
}

impl std::str::FromStr for TensorSet {
    type Err = crate::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "parameters" => Self::Parameters,
            "buffers" => Self::Buffers,
            "gradients" => Self::Gradients,
            "optimizer" => Self::Optimizer,
            "batch" => Self::Batch,
            "outputs" => Self::Outputs,
            "taps" => Self::Taps,
            _ => match text.strip_prefix("copy:") {
                Some(name) => Self::Copy(name.to_owned()),
                None => return Err(crate::Error::new(format!("there is no tensor set `{text}`"))),
            },
        })
    }
}

impl Serialize for TensorSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TensorSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Which tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TensorsRequest {
    /// The set.
    pub set: TensorSet,
    /// Which of it; empty: all, in the model's order.
    #[serde(default)]
    pub names: Vec<String>,
}

/// What a tensor is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its element type: `f32`, `i64`, ….
    pub dtype: String,
}

/// Named copies of weights, and snapshots of the training state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CopyRequest {
    /// The copy's name.
    pub name: String,
    /// What to do.
    pub action: CopyAction,
}

/// What to do with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyAction {
    /// Make it, or make it anew.
    Take,
    /// Put it back in place.
    Restore,
    /// Forget it.
    Drop,
}

/// Trains `steps` updates that the run's history, position and data order do not see.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrainSteps {
    /// How many updates.
    pub steps: u64,
}

/// Asks for outputs in inference mode: of the request's tensor `inputs`, or of batches of a split.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Predict {
    /// The split; absent: the request's tensor.
    #[serde(default)]
    pub split: Option<String>,
    /// How many batches of the split.
    #[serde(default)]
    pub batches: u64,
    /// Nodes of the graph whose values are wanted besides the output; the answer names them.
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
}

/// Asks for batch-norm statistics to be estimated anew.
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

/// A path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Path {
    /// Relative to the run folder, or absolute.
    pub path: String,
}

/// A checkpoint that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointWritten {
    /// The folder, absolute.
    pub path: String,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Whether it was there already, of the same position.
    #[serde(default)]
    pub existed: bool,
}

/// Something that was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// `best_checkpoint`, `last_checkpoint`, `metrics`, `export`, or a name of the plugin's own.
    pub kind: String,
    /// Where, relative to the run folder or absolute.
    pub path: String,
}

/// What the run is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunInfo {
    /// The instance's own name.
    #[serde(default)]
    pub instance: String,
    /// The run's name.
    #[serde(default)]
    pub name: String,
    /// The run folder, absolute.
    #[serde(default)]
    pub folder: String,
    /// The resolved run file, as JSON text.
    #[serde(default)]
    pub plan: String,
    /// The host's version.
    #[serde(default)]
    pub host_version: String,
    /// `cpu` or `cuda:N`.
    #[serde(default)]
    pub device: String,
    /// Epochs planned; 0 when the run is planned in steps.
    #[serde(default)]
    pub epochs: u64,
    /// Steps of one epoch.
    #[serde(default)]
    pub steps_per_epoch: u64,
    /// Steps planned in all.
    #[serde(default)]
    pub total_steps: u64,
    /// Samples of the training split.
    #[serde(default)]
    pub training_samples: u64,
    /// What is trained on.
    #[serde(default)]
    pub data: DataInfo,
    /// The checkpoint that the run resumed from.
    #[serde(default)]
    pub resumed_from: Option<String>,
    /// Whether this is a trial (`--try`) that publishes nothing.
    #[serde(default)]
    pub trial: bool,
}

/// What a run is trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataInfo {
    /// The samples of each split.
    #[serde(default)]
    pub splits: BTreeMap<String, u64>,
    /// How many classes there are to choose from; 0 where numbers are predicted.
    #[serde(default)]
    pub classes: u64,
    /// What the classes, or the numbers that are predicted, are called, in order; empty where nobody said.
    #[serde(default)]
    pub target_names: Vec<String>,
    /// What was subtracted from every sample, one number for each index of its first dimension (features of a vector,
    /// channels of an image); empty where nothing was.
    #[serde(default)]
    pub offset: Vec<f32>,
    /// What every sample was then divided by, as `offset`.
    #[serde(default)]
    pub scale: Vec<f32>,
}

/// A line for the console.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The text, without a line break.
    pub text: String,
}

/// Asks for what the console showed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LinesAfter {
    /// The number of the last line that the asker has; 0: none.
    pub after: u64,
}

/// A line that the console showed: a callback's, a warning's, the host's own. The host keeps the newest ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConsoleLine {
    /// Counts the lines of this process, from 1.
    pub number: u64,
    /// Seconds since 1970, UTC.
    pub time: f64,
    /// The line, without its break.
    pub text: String,
}

/// What one hook of one callback has cost, in this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookTime {
    /// The instance's name.
    pub instance: String,
    /// The hook, by its event's name; `waiting` for time that the loop waited for a callback in the background.
    pub hook: String,
    /// Whether it ran beside the loop, which did not wait for it.
    pub background: bool,
    /// How many calls.
    pub calls: u64,
    /// Their time; an estimate for hooks of every step that take less than a quarter of a microsecond.
    pub seconds: f64,
    /// The longest of those that were timed.
    pub longest_seconds: f64,
}

/// A status line for the console.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusLine {
    /// Which line; a plugin may have several.
    pub name: String,
    /// Its text; empty takes it away.
    pub text: String,
    /// Progress from 0 to 1, where there is one.
    #[serde(default)]
    pub progress: Option<f64>,
}

/// A value to be fetched along with each step, or each step of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// Under which name the value is found in the set `taps`.
    pub name: String,
    /// A node of the graph, or a parameter's name for its gradient.
    pub node: String,
    /// The node's value, or the parameter's gradient.
    pub of: TapOf,
    /// The whole value or what it is reduced to.
    pub reduce: TapReduce,
}

/// What a tap reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapOf {
    /// A node's value.
    Activation,
    /// A parameter's gradient.
    Gradient,
}

/// What a tapped value is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapReduce {
    /// As it is.
    Whole,
    /// One number: its mean.
    Mean,
    /// One number: its L2 norm.
    Norm,
    /// Two numbers: its least and greatest element.
    MinMax,
    /// 64 counts between its least and greatest element.
    Histogram,
    /// One number: how many elements are NaN or infinite.
    NonFinite,
}
