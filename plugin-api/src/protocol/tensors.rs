//! Sets of tensors, and taps.

use serde::{Deserialize, Serialize, Serializer};

/// A set of named tensors.
///
/// Written as `parameters`, `buffers`, `gradients`, `optimizer`, `batch` (`inputs`, `targets`),
/// `outputs`, `taps`, `event`, or `copy:<name>` for a named copy of the weights.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TensorSet {
    /// The model's parameters, frozen ones too. With `[model] lora`, those of the base and of the adapters; a callback with the
    /// hook `on_export` reads the sums in place of adapted weights, and adapters by their names only.
    Parameters,
    /// The model's other state, such as batch-norm statistics.
    Buffers,
    /// The gradients of the parameters, by the parameters' names; from `gradients` to `step_end`, and in `trigger` those
    /// of the last step, as the optimizer used them. In f16, those of a step that did not fit are not finite, and not used.
    Gradients,
    /// The optimizer's state, such as `exp_avg.<parameter>`.
    Optimizer,
    /// The current batch: `inputs` and `targets`; where the data names several inputs, all of them under those names.
    Batch,
    /// The model's output for it: `outputs`.
    Outputs,
    /// The values that were requested in `setup`; from `gradients` to `step_end`, in `trigger` those of the last step, and of
    /// activations in `eval_step_end`.
    Taps,
    /// What a custom event carries, by the names that its author gave; in `custom`.
    Event,
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
            Self::Event => formatter.write_str("event"),
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
            "event" => Self::Event,
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

/// The description of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its element type: `f32`, `i64`, ….
    pub dtype: String,
}

/// A value to be fetched with each step, or each step of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// The value's name in the set `taps`.
    pub name: String,
    /// A node of the graph, or a parameter's name for its gradient.
    pub node: String,
    /// The node's value, or the parameter's gradient.
    pub of: TapOf,
    /// The reduction of the value.
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

/// The reduction of a tapped value.
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
