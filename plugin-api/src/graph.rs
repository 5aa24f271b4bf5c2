//! The model's graph as plain data: named nodes, each an operator of a closed set applied to earlier values.
//!
//! [`Run::graph`](crate::Run::graph) gives it. Exporters and drawings read it; the values of parameters and buffers are
//! tensors of [`Run::tensors`](crate::Run::tensors), under the names that [`Node::parameters`] and [`Node::buffers`] give.
//!
//! Shapes are those of one sample, without the batch dimension; images are `[channels, height, width]`, sequences
//! `[length, features]`. Dimensions are counted within a sample, from 0.
//!
//! An operator that this version of the SDK does not know, or with an unknown attribute, is an error when the graph is
//! read: leaving it out would give another model.

use serde::{Deserialize, Serialize};

/// A model: inputs, nodes in an order in which they can be executed, one output. Names are unique.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// The inputs of the model, in the order of a batch: the samples, and those beside them under their names in a batch.
    pub inputs: Vec<Input>,
    /// The nodes, each after those that it reads.
    pub nodes: Vec<Node>,
    /// The name of the output.
    pub output: String,
}

impl Graph {
    /// The shape of a value, of an input or a node; `None` if there is no such name.
    pub fn shape(&self, value: &str) -> Option<&[i64]> {
        let node = self.nodes.iter().find(|node| node.name == value).map(|node| &node.shape);
        node.or_else(|| Some(&self.inputs.iter().find(|input| input.name == value)?.shape)).map(Vec::as_slice)
    }
}

/// An input of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// The shape of one sample, without the batch dimension.
    pub shape: Vec<i64>,
    /// Its dtype.
    pub dtype: Dtype,
}

/// An operator applied to earlier values. A node has one value, with the node's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique in the graph: `conv1`, `residual1.bn2`.
    pub name: String,
    /// The operator.
    pub op: Op,
    /// The names of the inputs or nodes whose values it reads.
    pub inputs: Vec<String>,
    /// The shape of its value for one sample, without the batch dimension.
    pub shape: Vec<i64>,
    /// The tensors that training changes, in the order of [`Op::parameter_names`].
    pub parameters: Vec<TensorSpec>,
    /// The other tensors of the model's state, in the order of [`Op::buffer_names`].
    pub buffers: Vec<TensorSpec>,
}

impl Node {
    /// The parameter or buffer that the operator calls `own`, such as `weight`; `None` if it has none of this name.
    pub fn tensor(&self, own: &str) -> Option<&TensorSpec> {
        let place = |names: Vec<String>| names.iter().position(|name| name == own);
        let parameter = place(self.op.parameter_names()).and_then(|place| self.parameters.get(place));
        parameter.or_else(|| self.buffers.get(place(self.op.buffer_names())?))
    }
}

/// A parameter or buffer of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Its name in the model's state. In a graph of layers, it is `<node>.<tensor>`, with PyTorch's name for the tensor:
    /// `conv1.weight`. In that of an exported program, it is PyTorch's name in the state dict, and nodes with the same name share
    /// the tensor (tied weights). [`Node::tensor`] finds it by the operator's own name for it.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its dtype.
    pub dtype: Dtype,
}

/// The dtype of a value or a tensor of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
    /// 64-bit signed integer.
    I64,
}

/// How a GELU is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GeluApproximation {
    /// By the error function.
    #[default]
    None,
    /// By a hyperbolic tangent.
    Tanh,
}

/// How values between pixels are interpolated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpsampleMode {
    /// That of the nearest pixel.
    #[default]
    Nearest,
    /// Linear in both directions, pixels being areas (`align_corners = False`).
    Bilinear,
}

/// How a value is compared with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// `torch.eq`.
    Equal,
    /// `torch.ne`.
    NotEqual,
    /// `torch.lt`.
    Less,
    /// `torch.le`.
    LessEqual,
    /// `torch.gt`.
    Greater,
    /// `torch.ge`.
    GreaterEqual,
}

/// An operator and its attributes. The names and meanings are PyTorch's (`torch.nn`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// `y = x Wᵀ + b` over the last dimension (`torch.nn.Linear`); `weight` is `[out_features, in_features]`, or
    /// `[in_features, out_features]` where it is `transposed` (`torch.addmm`).
    Linear {
        /// Length of the last dimension of the input.
        in_features: i64,
        /// Length of the last dimension of the output.
        out_features: i64,
        /// Whether there is a `bias` of `[out_features]`.
        bias: bool,
        /// Whether `weight` is stored as `Wᵀ`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        transposed: bool,
    },
    /// Cross-correlation over `[channels, length]` (`torch.nn.Conv1d`); `weight` is
    /// `[out_channels, in_channels / groups, kernel_size]`.
    Conv1d {
        /// Channels of the input.
        in_channels: i64,
        /// Channels of the output.
        out_channels: i64,
        /// Length of the kernel.
        kernel_size: i64,
        /// Step.
        stride: i64,
        /// Zeros on each side.
        padding: i64,
        /// Distance between the kernel's elements.
        dilation: i64,
        /// Channel groups; each sees `in_channels / groups` channels.
        groups: i64,
        /// Whether there is a `bias` of `[out_channels]`.
        bias: bool,
    },
    /// Cross-correlation over images (`torch.nn.Conv2d`); `weight` is `[out_channels, in_channels / groups, h, w]`.
    Conv2d {
        /// Channels of the input.
        in_channels: i64,
        /// Channels of the output.
        out_channels: i64,
        /// Height and width of the kernel.
        kernel_size: [i64; 2],
        /// Step in height and width.
        stride: [i64; 2],
        /// Zeros on each side in height and width.
        padding: [i64; 2],
        /// Distance between the kernel's elements in height and width.
        dilation: [i64; 2],
        /// Channel groups; each sees `in_channels / groups` channels.
        groups: i64,
        /// Whether there is a `bias` of `[out_channels]`.
        bias: bool,
    },
    /// The gradient of a convolution by its input, which makes images larger (`torch.nn.ConvTranspose2d`); `weight` is
    /// `[in_channels, out_channels / groups, h, w]`.
    ConvTranspose2d {
        /// Channels of the input.
        in_channels: i64,
        /// Channels of the output.
        out_channels: i64,
        /// Height and width of the kernel.
        kernel_size: [i64; 2],
        /// Step in height and width.
        stride: [i64; 2],
        /// What each side of the output loses in height and width.
        padding: [i64; 2],
        /// What one side of the output gains in height and width; below the stride or the dilation.
        output_padding: [i64; 2],
        /// Distance between the kernel's elements in height and width.
        dilation: [i64; 2],
        /// Channel groups.
        groups: i64,
        /// Whether there is a `bias` of `[out_channels]`.
        bias: bool,
    },
    /// Normalization over the batch, by channel (`torch.nn.BatchNorm1d` and `BatchNorm2d`; Ioffe and Szegedy 2015).
    /// The parameters `weight` and `bias` and the buffers `running_mean` and `running_var` are `[num_features]`;
    /// `num_batches_tracked` is a single i64.
    BatchNorm {
        /// Length of the first dimension of a sample.
        num_features: i64,
        /// Added to the variance.
        eps: f64,
        /// Share of the newest batch in the running statistics.
        momentum: f64,
    },
    /// Normalization of each sample over its last dimensions (`torch.nn.LayerNorm`; Ba, Kiros and Hinton 2016);
    /// `weight` and `bias` have the shape of those dimensions.
    LayerNorm {
        /// The last dimensions of a sample.
        normalized_shape: Vec<i64>,
        /// Added to the variance.
        eps: f64,
    },
    /// As [`Op::LayerNorm`] by the root of the mean square only, with a `weight` (`torch.nn.RMSNorm`; Zhang and
    /// Sennrich 2019).
    RmsNorm {
        /// The last dimensions of a sample.
        normalized_shape: Vec<i64>,
        /// Added to the mean square.
        eps: f64,
    },
    /// Normalization of each sample over groups of channels (`torch.nn.GroupNorm`; Wu and He 2018); `weight` and
    /// `bias` are `[num_channels]`.
    GroupNorm {
        /// Groups; a divisor of the channels.
        num_groups: i64,
        /// Length of the first dimension of a sample.
        num_channels: i64,
        /// Added to the variance.
        eps: f64,
    },
    /// The largest value in a window (`torch.nn.MaxPool2d`).
    MaxPool2d {
        /// Height and width of the window.
        kernel_size: [i64; 2],
        /// Step in height and width.
        stride: [i64; 2],
        /// Implicit −∞ on each side, at most half the window.
        padding: [i64; 2],
    },
    /// The mean of a window (`torch.nn.AvgPool2d`).
    AvgPool2d {
        /// Height and width of the window.
        kernel_size: [i64; 2],
        /// Step in height and width.
        stride: [i64; 2],
        /// Zeros on each side, at most half the window.
        padding: [i64; 2],
        /// Whether those zeros count in the mean.
        count_include_pad: bool,
    },
    /// The means of windows that divide an image into `output_size` (`torch.nn.AdaptiveAvgPool2d`).
    AdaptiveAvgPool2d {
        /// Height and width of the output.
        output_size: [i64; 2],
    },
    /// `max(x, 0)` (`torch.nn.ReLU`).
    Relu,
    /// `x` above 0, else `negative_slope · x` (`torch.nn.LeakyReLU`).
    LeakyRelu {
        /// The slope below 0.
        negative_slope: f64,
    },
    /// `x` above 0, else `alpha (eˣ − 1)` (`torch.nn.ELU`).
    Elu {
        /// Minus the limit at −∞.
        alpha: f64,
    },
    /// `x · min(max(x + 3, 0), 6) / 6` (`torch.nn.Hardswish`).
    HardSwish,
    /// `min(max(x + 3, 0), 6) / 6` (`torch.nn.Hardsigmoid`).
    HardSigmoid,
    /// `x Φ(x)` with the normal distribution Φ (`torch.nn.GELU`).
    Gelu {
        /// How Φ is computed.
        approximate: GeluApproximation,
    },
    /// `x σ(x)` with the logistic function σ (`torch.nn.SiLU`).
    Silu,
    /// The hyperbolic tangent (`torch.nn.Tanh`).
    Tanh,
    /// The logistic function (`torch.nn.Sigmoid`).
    Sigmoid,
    /// `eˣ` over the sum of them along a dimension (`torch.nn.Softmax`).
    Softmax {
        /// The dimension.
        dim: usize,
    },
    /// All dimensions of a sample as one (`torch.nn.Flatten`).
    Flatten,
    /// The same values in another shape (`torch.Tensor.reshape`).
    Reshape {
        /// The shape of the output.
        shape: Vec<i64>,
    },
    /// The dimensions in another order (`torch.permute`).
    Permute {
        /// For each dimension of the output, that of the input.
        dims: Vec<usize>,
    },
    /// In training, zeroes each value with probability `p` and scales the rest by `1 / (1 - p)`; the identity
    /// otherwise (`torch.nn.Dropout`).
    Dropout {
        /// Probability.
        p: f64,
    },
    /// The row of `weight`, `[num_embeddings, embedding_dim]`, for each i64 index (`torch.nn.Embedding`).
    Embedding {
        /// Rows; indices are below.
        num_embeddings: i64,
        /// Length of a row.
        embedding_dim: i64,
    },
    /// Adds the first rows of `weight`, `[max_length, embedding_dim]`, to a sequence: one learned vector for each
    /// position (`torch.nn.Embedding` of `arange`; Gehring et al. 2017).
    PositionalEmbedding {
        /// Rows; sequences are no longer.
        max_length: i64,
        /// Length of a row.
        embedding_dim: i64,
    },
    /// Self-attention over a sequence (`torch.nn.MultiheadAttention` with one input for query, key and value,
    /// `batch_first`; Vaswani et al. 2017). Parameters: `in_proj_weight` `[3 embed_dim, embed_dim]` (query, key, value),
    /// `in_proj_bias`, `out_proj.weight`, `out_proj.bias`.
    MultiHeadAttention {
        /// Length of the last dimension, a multiple of `num_heads`.
        embed_dim: i64,
        /// Heads, each of `embed_dim / num_heads`.
        num_heads: i64,
        /// Whether a position sees only itself and those before it.
        causal: bool,
        /// Probability with which an attention weight is zeroed in training.
        dropout: f64,
        /// Whether the projections have biases.
        bias: bool,
    },
    /// Long short-term memory over a sequence (`torch.nn.LSTM`, `batch_first`; Hochreiter and Schmidhuber 1997), from
    /// states of zero. Parameters of layer `k`: `weight_ih_lk`, `weight_hh_lk`, `bias_ih_lk`, `bias_hh_lk`, with gates
    /// in the order input, forget, cell, output; `_reverse` after those of the other direction.
    Lstm(Recurrent),
    /// Gated recurrent units over a sequence (`torch.nn.GRU`, `batch_first`; Cho et al. 2014), as [`Op::Lstm`] with
    /// gates in the order reset, update, new.
    Gru(Recurrent),
    /// Makes an image larger by a whole factor (`torch.nn.Upsample`).
    Upsample {
        /// Factors of height and width.
        scale_factor: [i64; 2],
        /// How values between pixels are interpolated.
        mode: UpsampleMode,
    },
    /// The sum of two values (`torch.add`): the end of a residual block. Shapes of samples are broadcast as PyTorch does it:
    /// they are aligned at the last dimension, and where one has a length of 1 or no dimension, its values are repeated.
    Add,
    /// The first value minus the second, as [`Op::Add`] (`torch.sub`).
    Subtract,
    /// The product of two values, element by element, as [`Op::Add`] (`torch.mul`). A value `[channels, 1, 1]` scales the
    /// channels of an image (squeeze and excitation; Hu et al. 2018).
    Multiply,
    /// The first value over the second, as [`Op::Add`] (`torch.div`).
    Divide,
    /// Adds a number (`torch.add` of a number).
    AddScalar {
        /// The number.
        other: f64,
    },
    /// Multiplies by a number (`torch.mul` of a number).
    MultiplyScalar {
        /// The number.
        other: f64,
    },
    /// `x` to the power of `exponent` (`torch.pow`): roots, reciprocals, and `torch.rsqrt` too.
    Pow {
        /// The exponent.
        exponent: f64,
    },
    /// Whole numbers as floating point (`torch.Tensor.to(torch.float32)`); those of a magnitude above 2²⁴ are rounded. It reads
    /// i64.
    ToFloat,
    /// 1 where a comparison with a number holds, and 0 elsewhere (`torch.eq`, `torch.ne`, `torch.lt`, `torch.le`, `torch.gt`,
    /// `torch.ge`): truth values are numbers.
    Compare {
        /// The comparison.
        comparison: Comparison,
        /// The number on its right.
        other: f64,
    },
    /// At least `min` and at most `max` (`torch.clamp`): `torch.nn.ReLU6` and `torch.nn.Hardtanh` too.
    Clamp {
        /// The least value, if there is one.
        min: Option<f64>,
        /// The greatest value, if there is one.
        max: Option<f64>,
    },
    /// The mean over dimensions (`torch.mean`).
    Mean {
        /// The dimensions, in ascending order.
        dims: Vec<usize>,
        /// Whether they are kept, with a length of 1.
        keepdim: bool,
    },
    /// Every `step`th value along a dimension from `start` to before `end` (`torch.Tensor.__getitem__`).
    Slice {
        /// The dimension.
        dim: usize,
        /// The first index.
        start: i64,
        /// The index after the last, at most the length.
        end: i64,
        /// The distance between two, at least 1.
        step: i64,
    },
    /// The values at one index of a dimension, which goes away (`torch.select`).
    Select {
        /// The dimension.
        dim: usize,
        /// The index.
        index: i64,
    },
    /// The product of matrices `[…, n, k]` and `[…, k, m]`, whose other dimensions are the same (`torch.matmul`).
    Matmul,
    /// Attention, with one value `[…, length, features]` each for query, key and value
    /// (`torch.nn.functional.scaled_dot_product_attention`; Vaswani et al. 2017): `softmax(scale · Q Kᵀ + mask) V`. Key and
    /// value may have another length than the query, and the value other features. A fourth value, which may be broadcast, is
    /// the mask: it is added, or tells what is seen.
    ScaledDotProductAttention {
        /// Whether a position sees only itself and those before it; then all lengths are the same.
        is_causal: bool,
        /// The factor of the products.
        scale: f64,
        /// Probability with which an attention weight is zeroed in training.
        dropout: f64,
        /// Whether the mask is not added, but has 1 where a position is seen and 0 where it is hidden (`torch.bool`). Where all
        /// are hidden, the value is 0 or of any of them.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_boolean: bool,
    },
    /// A parameter as a value that is the same for each sample (`torch.nn.Parameter`); it reads nothing. Its tensor,
    /// `value`, has `shape`, of which a first dimension of 1 stands for the batch: a sample's value does not have it.
    Parameter {
        /// The shape of the tensor.
        shape: Vec<i64>,
        /// Whether it is a buffer, which training does not change (`torch.nn.Buffer`).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_buffer: bool,
    },
    /// Whole numbers that are the same for each sample, such as positions (`torch.tensor`); it reads nothing. Its value is i64.
    Constant {
        /// The shape of a sample's value.
        shape: Vec<i64>,
        /// The numbers, in row-major order.
        values: Vec<i64>,
    },
    /// Values concatenated along a dimension, the only one in which their shapes differ (`torch.cat`).
    Concat {
        /// The dimension.
        dim: usize,
    },
}

/// What [`Op::Lstm`] and [`Op::Gru`] have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recurrent {
    /// Length of the last dimension of the input.
    pub input_size: i64,
    /// Length of a state.
    pub hidden_size: i64,
    /// Layers, each reading the one before.
    pub num_layers: i64,
    /// Whether a second one reads the sequence backwards; their outputs are concatenated.
    pub bidirectional: bool,
    /// Probability with which a value between two layers is zeroed in training.
    pub dropout: f64,
    /// Whether the output is only that of the last position, `[hidden_size]`.
    pub last_only: bool,
}

impl Recurrent {
    /// Directions in which the sequence is read.
    pub fn directions(&self) -> i64 {
        if self.bidirectional { 2 } else { 1 }
    }

    /// The names of the parameters, in PyTorch's order.
    fn parameter_names(&self) -> Vec<String> {
        let directions: &[&str] = if self.bidirectional { &["", "_reverse"] } else { &[""] };
        // No net has more layers, and a number that a graph says is not trusted with memory.
        (0..self.num_layers.clamp(0, 1024))
            .flat_map(|layer| directions.iter().map(move |direction| format!("l{layer}{direction}")))
            .flat_map(|end| ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|name| format!("{name}_{end}")))
            .collect()
    }
}

impl Op {
    /// The operator's name, as it is written in a graph.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Linear { .. } => "linear",
            Op::Conv1d { .. } => "conv1d",
            Op::Conv2d { .. } => "conv2d",
            Op::ConvTranspose2d { .. } => "conv_transpose2d",
            Op::BatchNorm { .. } => "batch_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::RmsNorm { .. } => "rms_norm",
            Op::GroupNorm { .. } => "group_norm",
            Op::MaxPool2d { .. } => "max_pool2d",
            Op::AvgPool2d { .. } => "avg_pool2d",
            Op::AdaptiveAvgPool2d { .. } => "adaptive_avg_pool2d",
            Op::Relu => "relu",
            Op::LeakyRelu { .. } => "leaky_relu",
            Op::Elu { .. } => "elu",
            Op::HardSwish => "hard_swish",
            Op::HardSigmoid => "hard_sigmoid",
            Op::Gelu { .. } => "gelu",
            Op::Silu => "silu",
            Op::Tanh => "tanh",
            Op::Sigmoid => "sigmoid",
            Op::Softmax { .. } => "softmax",
            Op::Flatten => "flatten",
            Op::Reshape { .. } => "reshape",
            Op::Permute { .. } => "permute",
            Op::Dropout { .. } => "dropout",
            Op::Embedding { .. } => "embedding",
            Op::PositionalEmbedding { .. } => "positional_embedding",
            Op::MultiHeadAttention { .. } => "multi_head_attention",
            Op::Lstm(_) => "lstm",
            Op::Gru(_) => "gru",
            Op::Upsample { .. } => "upsample",
            Op::Add => "add",
            Op::Subtract => "subtract",
            Op::Multiply => "multiply",
            Op::Divide => "divide",
            Op::AddScalar { .. } => "add_scalar",
            Op::MultiplyScalar { .. } => "multiply_scalar",
            Op::Pow { .. } => "pow",
            Op::ToFloat => "to_float",
            Op::Compare { .. } => "compare",
            Op::Clamp { .. } => "clamp",
            Op::Mean { .. } => "mean",
            Op::Slice { .. } => "slice",
            Op::Select { .. } => "select",
            Op::Matmul => "matmul",
            Op::ScaledDotProductAttention { .. } => "scaled_dot_product_attention",
            Op::Parameter { .. } => "parameter",
            Op::Constant { .. } => "constant",
            Op::Concat { .. } => "concat",
        }
    }

    /// The least and the greatest number of values that it takes.
    pub fn input_counts(&self) -> (usize, usize) {
        match self {
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::Matmul => (2, 2),
            Op::Concat { .. } => (2, usize::MAX),
            Op::ScaledDotProductAttention { .. } => (3, 4),
            Op::Parameter { .. } | Op::Constant { .. } => (0, 0),
            _ => (1, 1),
        }
    }

    /// The dtype of the values that it takes.
    pub fn input_dtype(&self) -> Dtype {
        match self {
            Op::Embedding { .. } | Op::ToFloat => Dtype::I64,
            _ => Dtype::F32,
        }
    }

    /// The dtype of its value.
    pub fn output_dtype(&self) -> Dtype {
        match self {
            Op::Constant { .. } => Dtype::I64,
            _ => Dtype::F32,
        }
    }

    /// Its own names for its parameters, which are PyTorch's.
    pub fn parameter_names(&self) -> Vec<String> {
        let names: &[&str] = match self {
            Op::Linear { bias, .. }
            | Op::Conv1d { bias, .. }
            | Op::Conv2d { bias, .. }
            | Op::ConvTranspose2d { bias, .. } => {
                if *bias {
                    &["weight", "bias"]
                } else {
                    &["weight"]
                }
            }
            Op::BatchNorm { .. } | Op::LayerNorm { .. } | Op::GroupNorm { .. } => &["weight", "bias"],
            Op::RmsNorm { .. } | Op::Embedding { .. } | Op::PositionalEmbedding { .. } => &["weight"],
            Op::MultiHeadAttention { bias: true, .. } => {
                &["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]
            }
            Op::MultiHeadAttention { .. } => &["in_proj_weight", "out_proj.weight"],
            Op::Parameter { is_buffer: false, .. } => &["value"],
            Op::Lstm(recurrent) | Op::Gru(recurrent) => return recurrent.parameter_names(),
            _ => &[],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Its own names for its buffers, which are PyTorch's.
    pub fn buffer_names(&self) -> Vec<String> {
        let names: &[&str] = match self {
            Op::BatchNorm { .. } => &["running_mean", "running_var", "num_batches_tracked"],
            Op::Parameter { is_buffer: true, .. } => &["value"],
            _ => &[],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }
}
