//! Stand-ins for the sections that belong to `data`, `model` and `train`: deleted when those modules arrive.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the samples come from and how they are split.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataOptions {
    /// The file's format.
    pub format: String,
    /// The file, relative to the run file.
    pub path: String,
    /// Whether the first row names the columns.
    #[serde(default)]
    pub header: bool,
    /// The column of the target: its index, or its name.
    pub target: Target,
    /// The shape of one sample.
    pub shape: Vec<u64>,
    /// The number of classes.
    pub classes: u64,
    /// How inputs are normalised.
    #[serde(default)]
    pub normalise: Normalise,
    /// The splits; what remains is `train`.
    #[serde(default)]
    pub splits: std::collections::BTreeMap<String, Split>,
}

/// A column.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Target {
    /// By index from 0.
    Index(u64),
    /// By name.
    Name(String),
}

/// How inputs are normalised.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// Not at all.
    #[default]
    None,
    /// To mean 0 and variance 1.
    Standard,
    /// To 0 … 1.
    Range,
}

/// A part of the data.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Its share, 0 to 1.
    pub fraction: f64,
    /// Whether it has the same share of every class.
    #[serde(default)]
    pub stratified: bool,
}

/// The model.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelOptions {
    /// The layers, first to last.
    pub layers: Vec<Layer>,
}

/// One layer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// A convolution.
    Conv2d {
        /// Channels of the output.
        out_channels: u64,
        /// Side of the kernel.
        kernel_size: u64,
        /// Zeros around the input.
        #[serde(default)]
        padding: u64,
    },
    /// Maximum pooling.
    MaxPool2d {
        /// Side of the window.
        kernel_size: u64,
    },
    /// Batch normalisation.
    BatchNorm,
    /// max(x, 0).
    Relu,
    /// All dimensions but the first become one.
    Flatten,
    /// Dropout.
    Dropout {
        /// The share of values set to zero.
        p: f64,
    },
    /// A fully connected layer.
    Linear {
        /// Features of the output.
        out_features: u64,
    },
    /// Layers, several times.
    Repeat {
        /// How often.
        times: u64,
        /// The layers.
        layers: Vec<Layer>,
    },
}

/// The optimizer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerOptions {
    /// SGD.
    Sgd {
        /// The learning rate.
        learning_rate: f64,
        /// The momentum.
        #[serde(default)]
        momentum: f64,
    },
    /// AdamW.
    Adamw {
        /// The learning rate.
        learning_rate: f64,
        /// The weight decay.
        #[serde(default)]
        weight_decay: f64,
    },
}

/// The schedule of the learning rate.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleOptions {
    /// Always the same.
    #[default]
    Constant,
    /// Half a cosine, down to zero.
    Cosine,
}

/// The loss.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LossOptions {
    /// Cross-entropy.
    CrossEntropy,
}
