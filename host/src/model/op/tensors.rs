//! The tensors that operators own, and their initial values.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cost::element_count;
use super::{Dtype, Op, Recurrent};

/// The initialization of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initialization {
    /// Uniform on `[-bound, bound)`.
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// Normal around 0.
    Normal {
        /// The standard deviation.
        std: f64,
    },
    /// One constant.
    Constant(f64),
    /// One constant, after drawing as many random values: PyTorch's module draws them and overwrites them, and later
    /// draws must stay the same.
    DrawnConstant(f64),
}

/// How a layer's weights are initialized, in place of PyTorch's default. Biases, and the scales and shifts of norms,
/// keep theirs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum WeightInitialization {
    /// Normal around 0 (`torch.nn.init.normal_`).
    Normal {
        /// The standard deviation.
        std: f64,
    },
    /// Uniform around 0 (`torch.nn.init.uniform_`).
    Uniform {
        /// The largest magnitude.
        bound: f64,
    },
    /// Normal with a variance of 2 over the inputs of an output (`torch.nn.init.kaiming_normal_` for ReLU).
    KaimingNormal {},
    /// Uniform with a variance of 2 over the inputs of an output and the outputs of an input
    /// (`torch.nn.init.xavier_uniform_`).
    XavierUniform {},
    /// Zeros (`torch.nn.init.zeros_`).
    Zeros {},
}

impl WeightInitialization {
    /// For a weight of `shape`.
    pub(in crate::model) fn of(self, shape: &[i64]) -> Initialization {
        match self {
            WeightInitialization::Normal { std } => Initialization::Normal { std },
            WeightInitialization::Uniform { bound } => Initialization::Uniform { bound },
            WeightInitialization::KaimingNormal {} => Initialization::Normal { std: (2.0 / fan_in(shape)).sqrt() },
            WeightInitialization::XavierUniform {} => xavier_uniform(shape),
            WeightInitialization::Zeros {} => Initialization::Constant(0.0),
        }
    }

    /// Whether its number is valid for an initialization.
    pub(in crate::model) fn is_valid(self) -> bool {
        match self {
            WeightInitialization::Normal { std: value } | WeightInitialization::Uniform { bound: value } => {
                value >= 0.0 && value.is_finite()
            }
            _ => true,
        }
    }
}

/// A tensor that an operator owns: its name in the node, shape, dtype and initialization.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::model) struct OwnedTensor {
    pub(in crate::model) name: String,
    pub(in crate::model) shape: Vec<i64>,
    pub(in crate::model) dtype: Dtype,
    pub(in crate::model) initialization: Initialization,
    /// Whether it is drawn after the node's other tensors, as in PyTorch's module.
    pub(in crate::model) is_drawn_last: bool,
}

/// Whether [`WeightInitialization`] applies to a tensor of this name in its node: a matrix or a kernel.
pub(in crate::model) fn is_weight(tensor: &OwnedTensor) -> bool {
    tensor.name.contains("weight") && tensor.shape.len() > 1
}

/// The number of inputs of one output of a weight.
fn fan_in(shape: &[i64]) -> f64 {
    element_count(shape.get(1..).unwrap_or_default()).max(1) as f64
}

/// Bound of `torch.nn.init.xavier_uniform_`, step by step.
fn xavier_uniform(shape: &[i64]) -> Initialization {
    let field = element_count(shape.get(2..).unwrap_or_default()).max(1) as f64;
    let length = |dim: usize| shape.get(dim).copied().unwrap_or(1) as f64;
    let std = (2.0 / (length(1) * field + length(0) * field)).sqrt();
    Initialization::Uniform { bound: 3.0_f64.sqrt() * std }
}

/// `kaiming_uniform_(a=√5)`; equal to `1 / √fan_in` but for rounding, which follows `torch.nn.init` step by step.
fn kaiming_uniform(shape: &[i64]) -> Initialization {
    let gain = (2.0 / (1.0 + 5.0_f64.sqrt().powi(2))).sqrt();
    Initialization::Uniform { bound: 3.0_f64.sqrt() * (gain / fan_in(shape).sqrt()) }
}

fn float(name: &str, shape: Vec<i64>, initialization: Initialization) -> OwnedTensor {
    OwnedTensor { name: name.to_owned(), shape, dtype: Dtype::F32, initialization, is_drawn_last: false }
}

/// A weight, and a bias of `outputs` values if there is one, initialized as in `Linear` and `_ConvNd`.
fn weight_and_bias(shape: Vec<i64>, outputs: i64, bias: bool) -> Vec<OwnedTensor> {
    let bound = 1.0 / fan_in(&shape).sqrt();
    let mut tensors = vec![float("weight", shape.clone(), kaiming_uniform(&shape))];
    if bias {
        tensors.push(float("bias", vec![outputs], Initialization::Uniform { bound }));
    }
    tensors
}

fn scale_and_shift(shape: &[i64]) -> Vec<OwnedTensor> {
    vec![
        float("weight", shape.to_vec(), Initialization::Constant(1.0)),
        float("bias", shape.to_vec(), Initialization::Constant(0.0)),
    ]
}

/// The tensors of an operator.
pub(in crate::model) trait OwnedTensors {
    /// The tensors that training changes, in PyTorch's order.
    ///
    /// They are initialized as in `reset_parameters` of PyTorch's modules: `Linear` and `_ConvNd` draw weights from
    /// `kaiming_uniform_(a=√5)` (He et al. 2015) and biases from a uniform distribution with the bound `1 / √fan_in`;
    /// norms start at one and zero; `Embedding` draws from the standard normal distribution; `MultiheadAttention` draws
    /// its input projection from `xavier_uniform_` (Glorot and Bengio 2010) and has biases of zero; `RNNBase` draws all
    /// from a uniform distribution with the bound `1 / √hidden_size`.
    fn parameters(&self) -> Vec<OwnedTensor>;

    /// The tensors that are part of the model's state and have no gradient, in PyTorch's order.
    fn buffers(&self) -> Vec<OwnedTensor>;
}

impl OwnedTensors for Op {
    fn parameters(&self) -> Vec<OwnedTensor> {
        match self {
            Op::Linear { in_features, out_features, bias, transposed: false } => {
                weight_and_bias(vec![*out_features, *in_features], *out_features, *bias)
            }
            // As `Conv1D` of GPT-2 starts it.
            Op::Linear { in_features, out_features, bias, transposed: true } => {
                let weight = float("weight", vec![*in_features, *out_features], Initialization::Normal { std: 0.02 });
                let zeros = || float("bias", vec![*out_features], Initialization::Constant(0.0));
                std::iter::once(weight).chain(bias.then(zeros)).collect()
            }
            Op::Parameter { shape, is_buffer: false } => {
                vec![float("value", shape.clone(), Initialization::Constant(0.0))]
            }
            Op::Conv1d { in_channels, out_channels, kernel_size, groups, bias, .. } => {
                let shape = vec![*out_channels, in_channels / (*groups).max(1), *kernel_size];
                weight_and_bias(shape, *out_channels, *bias)
            }
            Op::Conv2d { in_channels, out_channels, kernel_size: [height, width], groups, bias, .. } => {
                let shape = vec![*out_channels, in_channels / (*groups).max(1), *height, *width];
                weight_and_bias(shape, *out_channels, *bias)
            }
            Op::ConvTranspose2d { in_channels, out_channels, kernel_size: [height, width], groups, bias, .. } => {
                let shape = vec![*in_channels, out_channels / (*groups).max(1), *height, *width];
                weight_and_bias(shape, *out_channels, *bias)
            }
            Op::BatchNorm { num_features: count, .. } | Op::GroupNorm { num_channels: count, .. } => {
                scale_and_shift(&[*count])
            }
            Op::LayerNorm { normalized_shape, .. } => scale_and_shift(normalized_shape),
            Op::RmsNorm { normalized_shape, .. } => {
                vec![float("weight", normalized_shape.clone(), Initialization::Constant(1.0))]
            }
            Op::Embedding { num_embeddings: rows, embedding_dim }
            | Op::PositionalEmbedding { max_length: rows, embedding_dim } => {
                vec![float("weight", vec![*rows, *embedding_dim], Initialization::Normal { std: 1.0 })]
            }
            Op::MultiHeadAttention { embed_dim, bias, .. } => attention(*embed_dim, *bias),
            Op::Lstm(recurrent) => recurrent_parameters(recurrent, 4),
            Op::Gru(recurrent) => recurrent_parameters(recurrent, 3),
            Op::MaxPool2d { .. }
            | Op::AvgPool2d { .. }
            | Op::AdaptiveAvgPool2d { .. }
            | Op::Relu
            | Op::LeakyRelu { .. }
            | Op::Elu { .. }
            | Op::HardSwish
            | Op::HardSigmoid
            | Op::Gelu { .. }
            | Op::Silu
            | Op::Tanh
            | Op::Sigmoid
            | Op::Softmax { .. }
            | Op::Flatten
            | Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Dropout { .. }
            | Op::Upsample { .. }
            | Op::Add
            | Op::Subtract
            | Op::Multiply
            | Op::Divide
            | Op::AddScalar { .. }
            | Op::MultiplyScalar { .. }
            | Op::Pow { .. }
            | Op::ToFloat
            | Op::Compare { .. }
            | Op::Clamp { .. }
            | Op::Mean { .. }
            | Op::Slice { .. }
            | Op::Select { .. }
            | Op::Matmul
            | Op::ScaledDotProductAttention { .. }
            | Op::Parameter { is_buffer: true, .. }
            | Op::Constant { .. }
            | Op::Concat { .. } => Vec::new(),
        }
    }

    fn buffers(&self) -> Vec<OwnedTensor> {
        match self {
            Op::BatchNorm { num_features, .. } => vec![
                float("running_mean", vec![*num_features], Initialization::Constant(0.0)),
                float("running_var", vec![*num_features], Initialization::Constant(1.0)),
                OwnedTensor {
                    dtype: Dtype::I64,
                    ..float("num_batches_tracked", Vec::new(), Initialization::Constant(0.0))
                },
            ],
            Op::Parameter { shape, is_buffer: true } => {
                vec![float("value", shape.clone(), Initialization::Constant(0.0))]
            }
            _ => Vec::new(),
        }
    }
}

/// `MultiheadAttention` draws its output projection, a `Linear`, before the input's, and then sets the biases to zero.
fn attention(embed_dim: i64, bias: bool) -> Vec<OwnedTensor> {
    let input = vec![3 * embed_dim, embed_dim];
    let output = vec![embed_dim, embed_dim];
    let biases = |name, count| bias.then(|| float(name, vec![count], Initialization::Constant(0.0)));
    let mut tensors =
        vec![OwnedTensor { is_drawn_last: true, ..float("in_proj_weight", input.clone(), xavier_uniform(&input)) }];
    tensors.extend(biases("in_proj_bias", 3 * embed_dim));
    tensors.push(float("out_proj.weight", output.clone(), kaiming_uniform(&output)));
    tensors.extend(
        biases("out_proj.bias", embed_dim)
            .map(|tensor| OwnedTensor { initialization: Initialization::DrawnConstant(0.0), ..tensor }),
    );
    tensors
}

fn recurrent_parameters(recurrent: &Recurrent, gates: i64) -> Vec<OwnedTensor> {
    let Recurrent { input_size, hidden_size, num_layers, .. } = *recurrent;
    let bound = if hidden_size > 0 { 1.0 / (hidden_size as f64).sqrt() } else { 0.0 };
    let mut tensors = Vec::new();
    for layer in 0..num_layers {
        let size = if layer == 0 { input_size } else { hidden_size * recurrent.directions() };
        for direction in ["", "_reverse"].into_iter().take(recurrent.directions() as usize) {
            for (name, shape) in [
                ("weight_ih", vec![gates * hidden_size, size]),
                ("weight_hh", vec![gates * hidden_size, hidden_size]),
                ("bias_ih", vec![gates * hidden_size]),
                ("bias_hh", vec![gates * hidden_size]),
            ] {
                let name = format!("{name}_l{layer}{direction}");
                tensors.push(float(&name, shape, Initialization::Uniform { bound }));
            }
        }
    }
    tensors
}
