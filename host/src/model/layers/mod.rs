//! `[model]` of the run file.

mod lower;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plugin_api::protocol::requests::Freeze;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::initial_weights::InitFrom;
use super::lora::LoraOptions;
use super::op::{GeluApproximation, UpsampleMode, WeightInitialization};

/// `[model]`: the model to train.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelOptions {
    /// The layers, first to last. The first reads the sample; sizes of inputs follow from the layer before. Not given
    /// when the program has its own model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    /// A file with a TorchScript module to train in place of layers, relative to the run file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torchscript: Option<PathBuf>,
    /// A file with a program of `torch.export.save` to train in place of layers, relative to the run file. It keeps the
    /// program's weights and PyTorch's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exported: Option<PathBuf>,
    /// A file with the same program exported in evaluation mode, relative to the run file: for one whose evaluation differs by
    /// more than dropout and batch norm. It computes with the tensors of `exported`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exported_eval: Option<PathBuf>,
    /// Which of several tensors that `exported` returns is the model's output: its key, such as `logits`, or its position,
    /// counted from 0; within another container after a dot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// What the arguments of `exported` get, by their names: an input of a batch, as `[data] inputs` names it, or `targets`. One
    /// that is not named here gets the input of its own name, and the only argument of a program gets the only input.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// Weights that replace the initial ones where the names agree: a path, relative to the run file, or a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<InitFrom>,
    /// Parameters that training leaves as they are: patterns of their names, in which `*` stands for any text, such as
    /// `conv*` or `*.bias`. A batch norm all of whose parameters are frozen normalizes with its statistics, which stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Whether the statistics of frozen batch norms go on following the batches, which are then normalized by themselves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moving_statistics: bool,
    /// Low-rank adapters, which are trained in place of the model's own parameters (LoRA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraOptions>,
}

impl ModelOptions {
    /// What is frozen from the beginning.
    pub fn frozen_first(&self) -> Freeze {
        Freeze { patterns: self.freeze.clone(), frozen: true, moving_statistics: self.moving_statistics }
    }

    /// Makes the relative paths absolute, as seen from the `folder` of the run file.
    ///
    /// # Errors
    ///
    /// When `folder` is relative and the working folder is not known.
    pub fn make_absolute(&mut self, folder: &Path) -> std::io::Result<()> {
        if let Some(path) = self.init_from.as_mut().map(InitFrom::path_mut) {
            *path = std::path::absolute(folder.join(&*path))?;
        }
        for (_, path) in self.files_mut() {
            *path = std::path::absolute(folder.join(&*path))?;
        }
        Ok(())
    }
}

/// A layer or a block of layers.
///
/// A layer without a name is named after its kind and its position among layers of that kind, counted from 1: `conv1`,
/// `bn1`, `fc2`. In a block, the count restarts after the block's own name: `residual1.conv1`, `repeat1.0.conv1`.
/// Tensors are named `<layer>.<tensor>`, with PyTorch's names for the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// A fully connected layer over the last dimension (`torch.nn.Linear`).
    Linear {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The number of output values.
        out_features: u32,
        /// Whether a bias is added.
        #[serde(default = "yes")]
        bias: bool,
        /// The initialization of its weights; PyTorch's default if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initialization: Option<WeightInitialization>,
    },
    /// A convolution over `[channels, length]` (`torch.nn.Conv1d`).
    Conv1d {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The number of output channels.
        out_channels: u32,
        /// The length of the kernel.
        kernel_size: u32,
        /// The step of the kernel.
        #[serde(default = "one_length")]
        stride: u32,
        /// Zeros added on each side.
        #[serde(default)]
        padding: u32,
        /// The distance between the kernel's elements.
        #[serde(default = "one_length")]
        dilation: u32,
        /// The number of channel groups; a divisor of the channels of input and output.
        #[serde(default = "one_length")]
        groups: u32,
        /// Whether a bias is added.
        #[serde(default = "yes")]
        bias: bool,
        /// The initialization of its weights; PyTorch's default if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initialization: Option<WeightInitialization>,
    },
    /// A convolution over images (`torch.nn.Conv2d`).
    Conv2d {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The number of output channels.
        out_channels: u32,
        /// The size of the kernel.
        kernel_size: Size2d,
        /// The step of the kernel.
        #[serde(default = "one")]
        stride: Size2d,
        /// Zeros added on each side.
        #[serde(default = "zero")]
        padding: Size2d,
        /// The distance between the kernel's elements.
        #[serde(default = "one")]
        dilation: Size2d,
        /// The number of channel groups; a divisor of the channels of input and output. As many as channels: depthwise.
        #[serde(default = "one_length")]
        groups: u32,
        /// Whether a bias is added.
        #[serde(default = "yes")]
        bias: bool,
        /// The initialization of its weights; PyTorch's default if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initialization: Option<WeightInitialization>,
    },
    /// A transposed convolution, which makes images larger (`torch.nn.ConvTranspose2d`).
    ConvTranspose2d {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The number of output channels.
        out_channels: u32,
        /// The size of the kernel.
        kernel_size: Size2d,
        /// The distance between the values of the input.
        #[serde(default = "one")]
        stride: Size2d,
        /// What is cut from each side of the output.
        #[serde(default = "zero")]
        padding: Size2d,
        /// What is added to one side of the output.
        #[serde(default = "zero")]
        output_padding: Size2d,
        /// The distance between the kernel's elements.
        #[serde(default = "one")]
        dilation: Size2d,
        /// The number of channel groups; a divisor of the channels of input and output.
        #[serde(default = "one_length")]
        groups: u32,
        /// Whether a bias is added.
        #[serde(default = "yes")]
        bias: bool,
        /// The initialization of its weights; PyTorch's default if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initialization: Option<WeightInitialization>,
    },
    /// Batch normalization of vectors, sequences or images (`torch.nn.BatchNorm1d`, `BatchNorm2d`).
    BatchNorm {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Added to the variance.
        #[serde(default = "norm_eps")]
        eps: f64,
        /// The share of the newest batch in the running statistics.
        #[serde(default = "batch_norm_momentum")]
        momentum: f64,
    },
    /// Normalization of each sample over its last dimensions (`torch.nn.LayerNorm`).
    LayerNorm {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// How many of the last dimensions.
        #[serde(default = "one_length")]
        dimensions: u32,
        /// Added to the variance.
        #[serde(default = "norm_eps")]
        eps: f64,
    },
    /// Scaling of each sample by the root of its mean square over its last dimensions (`torch.nn.RMSNorm`).
    RmsNorm {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// How many of the last dimensions.
        #[serde(default = "one_length")]
        dimensions: u32,
        /// Added to the mean square; PyTorch's default is the dtype's epsilon.
        #[serde(default = "rms_norm_eps")]
        eps: f64,
    },
    /// Normalization of each sample over groups of its channels (`torch.nn.GroupNorm`).
    GroupNorm {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The number of groups, a divisor of the channels.
        num_groups: u32,
        /// Added to the variance.
        #[serde(default = "norm_eps")]
        eps: f64,
    },
    /// The largest value in a window (`torch.nn.MaxPool2d`).
    MaxPool2d {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The size of the window.
        kernel_size: Size2d,
        /// The step of the window; its size if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Size2d>,
        /// Added on each side, at most half of the window.
        #[serde(default = "zero")]
        padding: Size2d,
    },
    /// The mean of a window (`torch.nn.AvgPool2d`).
    AvgPool2d {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The size of the window.
        kernel_size: Size2d,
        /// The step of the window; its size if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Size2d>,
        /// Zeros added on each side, at most half of the window.
        #[serde(default = "zero")]
        padding: Size2d,
        /// Whether those zeros count in the mean.
        #[serde(default = "yes")]
        count_include_pad: bool,
    },
    /// The means of the parts of an image, as many as `output_size` (`torch.nn.AdaptiveAvgPool2d`).
    AdaptiveAvgPool2d {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Height and width of the output.
        #[serde(default = "one")]
        output_size: Size2d,
    },
    /// The rectifier, `max(x, 0)` (`torch.nn.ReLU`).
    Relu {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// `x` above 0, else a fraction of it (`torch.nn.LeakyReLU`).
    LeakyRelu {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The slope below 0.
        #[serde(default = "leaky_slope")]
        negative_slope: f64,
    },
    /// `x` above 0, else `alpha (eˣ − 1)` (`torch.nn.ELU`).
    Elu {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Minus the limit at −∞.
        #[serde(default = "elu_alpha")]
        alpha: f64,
    },
    /// `x · min(max(x + 3, 0), 6) / 6` (`torch.nn.Hardswish`).
    HardSwish {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// `min(max(x + 3, 0), 6) / 6` (`torch.nn.Hardsigmoid`).
    HardSigmoid {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// `x Φ(x)` with the normal distribution Φ (`torch.nn.GELU`).
    Gelu {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// How Φ is computed.
        #[serde(default)]
        approximate: GeluApproximation,
    },
    /// `x σ(x)` with the logistic function σ, also called swish (`torch.nn.SiLU`).
    Silu {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// The hyperbolic tangent (`torch.nn.Tanh`).
    Tanh {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// The logistic function (`torch.nn.Sigmoid`).
    Sigmoid {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Probabilities along a dimension (`torch.nn.Softmax`); cross-entropy needs the values before it.
    Softmax {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The dimension of a sample, from 0; negative ones count from the last.
        #[serde(default = "last_dimension")]
        dim: i64,
    },
    /// Flattens a sample to one vector (`torch.nn.Flatten`).
    Flatten {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// The same values in another shape (`torch.reshape`).
    Reshape {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The shape of a sample; one length may be -1, to be computed from the others.
        shape: Vec<i64>,
    },
    /// The dimensions of a sample in another order (`torch.permute`).
    Permute {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// For each dimension of the output, the one of the input, from 0.
        dims: Vec<usize>,
    },
    /// Sets values to zero at random while training (`torch.nn.Dropout`).
    Dropout {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The probability that a value is set to zero.
        #[serde(default = "dropout_probability")]
        p: f64,
    },
    /// A learned vector for each token (`torch.nn.Embedding`).
    Embedding {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The number of tokens; at least the data's vocabulary.
        num_embeddings: u32,
        /// The length of a vector.
        embedding_dim: u32,
        /// The initialization of its weights; PyTorch's default if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initialization: Option<WeightInitialization>,
    },
    /// Adds a learned vector for each position of a sequence.
    PositionalEmbedding {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The longest sequence; the data's if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_length: Option<u32>,
        /// The initialization of its weights; PyTorch's default if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initialization: Option<WeightInitialization>,
    },
    /// Self-attention over a sequence (`torch.nn.MultiheadAttention`).
    MultiHeadAttention {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The number of heads, a divisor of the features.
        num_heads: u32,
        /// Whether a position attends only to itself and those before it.
        #[serde(default)]
        causal: bool,
        /// The probability that an attention weight is set to zero while training.
        #[serde(default)]
        dropout: f64,
        /// Whether the projections have biases.
        #[serde(default = "yes")]
        bias: bool,
        /// The initialization of its weights; PyTorch's default if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initialization: Option<WeightInitialization>,
    },
    /// Long short-term memory over a sequence (`torch.nn.LSTM`).
    Lstm {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The length of the hidden state.
        hidden_size: u32,
        /// Layers, each reading the one before.
        #[serde(default = "one_length")]
        num_layers: u32,
        /// Whether a second layer reads the sequence backward.
        #[serde(default)]
        bidirectional: bool,
        /// The probability that a value between two layers is set to zero while training.
        #[serde(default)]
        dropout: f64,
        /// Whether the output is only that of the last position.
        #[serde(default)]
        last_only: bool,
        /// The initialization of its weights; PyTorch's default if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initialization: Option<WeightInitialization>,
    },
    /// Gated recurrent units over a sequence (`torch.nn.GRU`).
    Gru {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The length of the hidden state.
        hidden_size: u32,
        /// Layers, each reading the one before.
        #[serde(default = "one_length")]
        num_layers: u32,
        /// Whether a second layer reads the sequence backward.
        #[serde(default)]
        bidirectional: bool,
        /// The probability that a value between two layers is set to zero while training.
        #[serde(default)]
        dropout: f64,
        /// Whether the output is only that of the last position.
        #[serde(default)]
        last_only: bool,
        /// The initialization of its weights; PyTorch's default if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initialization: Option<WeightInitialization>,
    },
    /// Makes an image larger by an integer factor (`torch.nn.Upsample`).
    Upsample {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The factors of height and width.
        scale_factor: Size2d,
        /// How values between pixels are computed.
        #[serde(default)]
        mode: UpsampleMode,
    },
    /// Adds the output of its layers to their input (He et al. 2016). Both must have one shape, unless `shortcut`
    /// converts the input to that of the output.
    Residual {
        /// The block's name, the prefix of its layers' names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The layers of the block.
        layers: Vec<Layer>,
        /// Layers of the shortcut; without any, it is the identity. Their names start with `shortcut`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shortcut: Vec<Layer>,
    },
    /// The same layers several times one after another, each time with their own weights.
    Repeat {
        /// The block's name, the prefix of its layers' names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The number of repetitions.
        times: u32,
        /// The layers of the block.
        layers: Vec<Layer>,
    },
    /// Several branches that read one value; their outputs are concatenated. An empty branch is the value itself. The
    /// branches' names start with their index.
    Concat {
        /// The block's name, the prefix of its layers' names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The branches, each a list of layers.
        branches: Vec<Vec<Layer>>,
        /// The dimension of a sample, from 0; negative ones count from the last. 0 is the channels of an image.
        #[serde(default)]
        dim: i64,
    },
    /// Several branches that read one value; their outputs, of one shape, are combined element by element. That of a branch
    /// may also have a single value for each channel of the others' images, as in squeeze and excitation. An empty branch is
    /// the value itself. The branches' names start with their index.
    Parallel {
        /// The block's name, the prefix of its layers' names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The branches, each a list of layers.
        branches: Vec<Vec<Layer>>,
        /// Whether the outputs are added or multiplied.
        #[serde(default)]
        combine: Combine,
    },
}

/// How a `parallel` block combines its branches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// Their sum.
    #[default]
    Add,
    /// Their product.
    Multiply,
}

/// One length for height and width, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a whole number or [height, width]")]
pub enum Size2d {
    /// The same for height and width.
    Square(u32),
    /// Height and width.
    Each([u32; 2]),
}

impl Size2d {
    /// Height and width.
    fn pair(self) -> [i64; 2] {
        match self {
            Size2d::Square(length) => [i64::from(length); 2],
            Size2d::Each(lengths) => lengths.map(i64::from),
        }
    }
}

fn yes() -> bool {
    true
}

fn zero() -> Size2d {
    Size2d::Square(0)
}

fn one() -> Size2d {
    Size2d::Square(1)
}

fn one_length() -> u32 {
    1
}

fn last_dimension() -> i64 {
    -1
}

fn norm_eps() -> f64 {
    1e-5
}

fn rms_norm_eps() -> f64 {
    f64::from(f32::EPSILON)
}

fn batch_norm_momentum() -> f64 {
    0.1
}

fn dropout_probability() -> f64 {
    0.5
}

fn leaky_slope() -> f64 {
    0.01
}

fn elu_alpha() -> f64 {
    1.0
}
