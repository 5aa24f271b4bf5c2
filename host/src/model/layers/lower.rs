//! Turns layers into the nodes of a graph.

use std::collections::HashMap;

use super::{Combine, Layer, ModelOptions};
use crate::model::{
    error::{LayerPath, ModelError},
    graph::{Graph, GraphBuilder},
    op::{Dtype, Input, Op, Recurrent, WeightInitialization},
};

/// The name of the value that the first layer reads.
const INPUT: &str = "inputs";

impl ModelOptions {
    /// The graph of these layers for samples of `sample_shape` and `dtype`, every shape checked.
    pub fn lower(&self, sample_shape: &[i64], dtype: Dtype) -> Result<Graph, ModelError> {
        let mut builder = GraphBuilder::default();
        builder.input(Input { name: INPUT.to_owned(), shape: sample_shape.to_vec(), dtype })?;
        let mut lowering = Lowering { builder, path: LayerPath::default() };
        let output = lowering.all("layers", &self.layers, &mut Scope::new(String::new()), INPUT.to_owned())?;
        lowering.builder.finish(&output)
    }
}

/// The names in a block: the block's own name as prefix, and a count for each kind.
struct Scope {
    prefix: String,
    counts: HashMap<&'static str, usize>,
}

impl Scope {
    fn new(prefix: String) -> Scope {
        Scope { prefix, counts: HashMap::new() }
    }

    /// The full name of the next layer of a kind. A layer with its own name counts too, so that naming one does not
    /// rename the others.
    fn name(&mut self, kind: &'static str, given: Option<&String>, path: &LayerPath) -> Result<String, ModelError> {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        match given {
            None => Ok(format!("{}{kind}{count}", self.prefix)),
            Some(name) if is_name(name) => Ok(format!("{}{name}", self.prefix)),
            Some(name) => Err(ModelError::InvalidName { path: path.clone(), name: name.clone() }),
        }
    }
}

/// Whether it is a name, or a path of names as PyTorch's modules have: `net.0`.
fn is_name(name: &str) -> bool {
    let fits = |character: char| character.is_ascii_alphanumeric() || character == '_';
    name.split('.').all(|part| !part.is_empty() && part.chars().all(fits))
}

struct Lowering {
    builder: GraphBuilder,
    /// The place of the current layer in the run file.
    path: LayerPath,
}

/// A layer that becomes one node.
struct Single<'a> {
    /// The kind in its name, if it has no name of its own.
    kind: &'static str,
    name: Option<&'a String>,
    op: Op,
    initialization: Option<WeightInitialization>,
}

impl Lowering {
    /// Lowers layers one after another, the first reading `value`; returns the output value of the last. `list` is the
    /// layers' name in the run file.
    fn all(
        &mut self,
        list: &'static str,
        layers: &[Layer],
        scope: &mut Scope,
        mut value: String,
    ) -> Result<String, ModelError> {
        for (index, layer) in layers.iter().enumerate() {
            self.path.0.push((list, index));
            value = self.one(layer, scope, value)?;
            self.path.0.pop();
        }
        Ok(value)
    }

    fn one(&mut self, layer: &Layer, scope: &mut Scope, value: String) -> Result<String, ModelError> {
        match layer {
            Layer::Residual { name, layers, shortcut } => {
                let block = scope.name("residual", name.as_ref(), &self.path)?;
                if layers.is_empty() {
                    return Err(self.option(block, "residual", "layers", "[]", "at least one layer"));
                }
                let body = self.all("layers", layers, &mut Scope::new(format!("{block}.")), value.clone())?;
                let other = self.all("shortcut", shortcut, &mut Scope::new(format!("{block}.shortcut.")), value)?;
                let sum = format!("{block}.add");
                self.of_one_shape(&sum, &Op::Add, [&other, &body], false)?;
                self.node(sum, Op::Add, &[&other, &body])
            }
            Layer::Repeat { name, times, layers } => {
                let block = scope.name("repeat", name.as_ref(), &self.path)?;
                if *times == 0 {
                    return Err(self.option(block, "repeat", "times", "0", "at least 1"));
                }
                let mut value = value;
                for time in 0..*times {
                    value = self.all("layers", layers, &mut Scope::new(format!("{block}.{time}.")), value)?;
                }
                Ok(value)
            }
            Layer::Concat { name, branches, dim } => {
                let block = scope.name("concat", name.as_ref(), &self.path)?;
                let values = self.branches(branches, &block, "concat", &value)?;
                let rank = self.builder.shape(&block, &values[0])?.len();
                let dim = self.dimension(*dim, rank, &block, "concat")?;
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                self.node(format!("{block}.concat"), Op::Concat { dim }, &values)
            }
            Layer::Parallel { name, branches, combine } => {
                let block = scope.name("parallel", name.as_ref(), &self.path)?;
                let values = self.branches(branches, &block, "parallel", &value)?;
                let (op, kind) = match combine {
                    Combine::Add => (Op::Add, "add"),
                    Combine::Multiply => (Op::Multiply, "multiply"),
                };
                let mut values = values.into_iter();
                let mut combined = values.next().unwrap_or(value);
                for (count, other) in values.enumerate() {
                    let name = format!("{block}.{kind}{}", count + 1);
                    self.of_one_shape(&name, &op, [&combined, &other], true)?;
                    combined = self.node(name, op.clone(), &[&combined, &other])?;
                }
                Ok(combined)
            }
            single => {
                let Single { kind, name, op, initialization } = self.single(single, &value)?;
                let name = scope.name(kind, name, &self.path)?;
                self.builder.node(&self.path, name.clone(), op, &[&value], initialization)?;
                Ok(name)
            }
        }
    }

    fn branches(
        &mut self,
        branches: &[Vec<Layer>],
        block: &str,
        operator: &'static str,
        value: &str,
    ) -> Result<Vec<String>, ModelError> {
        if branches.len() < 2 {
            let found = branches.len().to_string();
            return Err(self.option(block.to_owned(), operator, "branches", &found, "at least two"));
        }
        let mut values = Vec::with_capacity(branches.len());
        for (index, layers) in branches.iter().enumerate() {
            self.path.0.push(("branches", index));
            values.push(self.all("", layers, &mut Scope::new(format!("{block}.{index}.")), value.to_owned())?);
            self.path.0.pop();
        }
        Ok(values)
    }

    /// Refuses values of two shapes, which the operator would broadcast: in a model of layers, that is a mistake. Where one may
    /// have a single value for each channel, it may be `[channels, 1, 1]` beside an image.
    fn of_one_shape(&self, name: &str, op: &Op, values: [&str; 2], may_scale_channels: bool) -> Result<(), ModelError> {
        let [left, right] = values.map(|value| self.builder.shape(name, value));
        let (left, right) = (left?, right?);
        let scales = |one: &[i64], image: &[i64]| {
            may_scale_channels && matches!((one, image), ([channels, 1, 1], [all, _, _]) if channels == all)
        };
        if left == right || scales(left, right) || scales(right, left) {
            return Ok(());
        }
        Err(ModelError::Shape {
            path: self.path.clone(),
            name: name.to_owned(),
            operator: op.name(),
            expected: format!("two values of one shape, the first {left:?}"),
            found: right.to_vec(),
        })
    }

    fn node(&mut self, name: String, op: Op, inputs: &[&str]) -> Result<String, ModelError> {
        self.builder.node(&self.path, name.clone(), op, inputs, None)?;
        Ok(name)
    }

    /// The operator of a layer that reads `value`. Sizes of inputs come from its shape; a shape that does not fit gives
    /// some size too, and then the operator's own check reports the error.
    fn single<'a>(&self, layer: &'a Layer, value: &str) -> Result<Single<'a>, ModelError> {
        let shape = self.builder.shape(INPUT, value)?;
        let first = shape.first().copied().unwrap_or(0);
        let last = shape.last().copied().unwrap_or(0);
        let plain = |kind, name: &'a Option<String>, op| Single { kind, name: name.as_ref(), op, initialization: None };
        let weighted = |kind, name: &'a Option<String>, op, initialization: &Option<WeightInitialization>| Single {
            kind,
            name: name.as_ref(),
            op,
            initialization: *initialization,
        };
        let trailing = |dimensions: u32| shape[shape.len().saturating_sub(dimensions as usize)..].to_vec();
        Ok(match layer {
            Layer::Linear { name, out_features, bias, initialization } => {
                let (in_features, out_features) = (last, i64::from(*out_features));
                let op = Op::Linear { in_features, out_features, bias: *bias, transposed: false };
                weighted("fc", name, op, initialization)
            }
            Layer::Conv1d {
                name,
                out_channels,
                kernel_size,
                stride,
                padding,
                dilation,
                groups,
                bias,
                initialization,
            } => {
                let op = Op::Conv1d {
                    in_channels: first,
                    out_channels: i64::from(*out_channels),
                    kernel_size: i64::from(*kernel_size),
                    stride: i64::from(*stride),
                    padding: i64::from(*padding),
                    dilation: i64::from(*dilation),
                    groups: i64::from(*groups),
                    bias: *bias,
                };
                weighted("conv", name, op, initialization)
            }
            Layer::Conv2d {
                name,
                out_channels,
                kernel_size,
                stride,
                padding,
                dilation,
                groups,
                bias,
                initialization,
            } => {
                let op = Op::Conv2d {
                    in_channels: first,
                    out_channels: i64::from(*out_channels),
                    kernel_size: kernel_size.pair(),
                    stride: stride.pair(),
                    padding: padding.pair(),
                    dilation: dilation.pair(),
                    groups: i64::from(*groups),
                    bias: *bias,
                };
                weighted("conv", name, op, initialization)
            }
            Layer::ConvTranspose2d {
                name,
                out_channels,
                kernel_size,
                stride,
                padding,
                output_padding,
                dilation,
                groups,
                bias,
                initialization,
            } => {
                let op = Op::ConvTranspose2d {
                    in_channels: first,
                    out_channels: i64::from(*out_channels),
                    kernel_size: kernel_size.pair(),
                    stride: stride.pair(),
                    padding: padding.pair(),
                    output_padding: output_padding.pair(),
                    dilation: dilation.pair(),
                    groups: i64::from(*groups),
                    bias: *bias,
                };
                weighted("conv_transpose", name, op, initialization)
            }
            Layer::BatchNorm { name, eps, momentum } => {
                plain("bn", name, Op::BatchNorm { num_features: first, eps: *eps, momentum: *momentum })
            }
            Layer::LayerNorm { name, dimensions, eps } => {
                plain("ln", name, Op::LayerNorm { normalized_shape: trailing(*dimensions), eps: *eps })
            }
            Layer::RmsNorm { name, dimensions, eps } => {
                plain("rms", name, Op::RmsNorm { normalized_shape: trailing(*dimensions), eps: *eps })
            }
            Layer::GroupNorm { name, num_groups, eps } => {
                let op = Op::GroupNorm { num_groups: i64::from(*num_groups), num_channels: first, eps: *eps };
                plain("gn", name, op)
            }
            Layer::MaxPool2d { name, kernel_size, stride, padding } => {
                let op = Op::MaxPool2d {
                    kernel_size: kernel_size.pair(),
                    stride: stride.unwrap_or(*kernel_size).pair(),
                    padding: padding.pair(),
                };
                plain("pool", name, op)
            }
            Layer::AvgPool2d { name, kernel_size, stride, padding, count_include_pad } => {
                let op = Op::AvgPool2d {
                    kernel_size: kernel_size.pair(),
                    stride: stride.unwrap_or(*kernel_size).pair(),
                    padding: padding.pair(),
                    count_include_pad: *count_include_pad,
                };
                plain("pool", name, op)
            }
            Layer::AdaptiveAvgPool2d { name, output_size } => {
                plain("pool", name, Op::AdaptiveAvgPool2d { output_size: output_size.pair() })
            }
            Layer::Relu { name } => plain("relu", name, Op::Relu),
            Layer::LeakyRelu { name, negative_slope } => {
                plain("leaky_relu", name, Op::LeakyRelu { negative_slope: *negative_slope })
            }
            Layer::Elu { name, alpha } => plain("elu", name, Op::Elu { alpha: *alpha }),
            Layer::HardSwish { name } => plain("hard_swish", name, Op::HardSwish),
            Layer::HardSigmoid { name } => plain("hard_sigmoid", name, Op::HardSigmoid),
            Layer::Gelu { name, approximate } => plain("gelu", name, Op::Gelu { approximate: *approximate }),
            Layer::Silu { name } => plain("silu", name, Op::Silu),
            Layer::Tanh { name } => plain("tanh", name, Op::Tanh),
            Layer::Sigmoid { name } => plain("sigmoid", name, Op::Sigmoid),
            Layer::Softmax { name, dim } => {
                let dim = self.dimension(*dim, shape.len(), name.as_deref().unwrap_or("softmax"), "softmax")?;
                plain("softmax", name, Op::Softmax { dim })
            }
            Layer::Flatten { name } => plain("flatten", name, Op::Flatten),
            Layer::Reshape { name, shape: wanted } => {
                plain("reshape", name, Op::Reshape { shape: completed(wanted, shape) })
            }
            Layer::Permute { name, dims } => plain("permute", name, Op::Permute { dims: dims.clone() }),
            Layer::Dropout { name, p } => plain("dropout", name, Op::Dropout { p: *p }),
            Layer::Embedding { name, num_embeddings, embedding_dim, initialization } => {
                let op = Op::Embedding {
                    num_embeddings: i64::from(*num_embeddings),
                    embedding_dim: i64::from(*embedding_dim),
                };
                weighted("embedding", name, op, initialization)
            }
            Layer::PositionalEmbedding { name, max_length, initialization } => {
                let op =
                    Op::PositionalEmbedding { max_length: max_length.map_or(first, i64::from), embedding_dim: last };
                weighted("position", name, op, initialization)
            }
            Layer::MultiHeadAttention { name, num_heads, causal, dropout, bias, initialization } => {
                let op = Op::MultiHeadAttention {
                    embed_dim: last,
                    num_heads: i64::from(*num_heads),
                    causal: *causal,
                    dropout: *dropout,
                    bias: *bias,
                };
                weighted("attention", name, op, initialization)
            }
            Layer::Lstm { name, hidden_size, num_layers, bidirectional, dropout, last_only, initialization }
            | Layer::Gru { name, hidden_size, num_layers, bidirectional, dropout, last_only, initialization } => {
                let recurrent = Recurrent {
                    input_size: last,
                    hidden_size: i64::from(*hidden_size),
                    num_layers: i64::from(*num_layers),
                    bidirectional: *bidirectional,
                    dropout: *dropout,
                    last_only: *last_only,
                };
                match layer {
                    Layer::Lstm { .. } => weighted("lstm", name, Op::Lstm(recurrent), initialization),
                    _ => weighted("gru", name, Op::Gru(recurrent), initialization),
                }
            }
            Layer::Upsample { name, scale_factor, mode } => {
                plain("upsample", name, Op::Upsample { scale_factor: scale_factor.pair(), mode: *mode })
            }
            Layer::Residual { name, .. }
            | Layer::Repeat { name, .. }
            | Layer::Concat { name, .. }
            | Layer::Parallel { name, .. } => {
                // Blocks become many nodes; `one` lowers them.
                return Err(self.option(name.clone().unwrap_or_default(), "block", "layers", "[]", "one layer"));
            }
        })
    }

    /// A negative dimension, which counts from the last, counted from the first.
    fn dimension(&self, dim: i64, rank: usize, name: &str, operator: &'static str) -> Result<usize, ModelError> {
        let counted = if dim < 0 { dim + rank as i64 } else { dim };
        match usize::try_from(counted) {
            Ok(dim) if dim < rank => Ok(dim),
            _ => Err(self.option(name.to_owned(), operator, "dim", &dim.to_string(), "a dimension of its input")),
        }
    }

    fn option(
        &self,
        name: String,
        operator: &'static str,
        option: &'static str,
        value: &str,
        expected: &'static str,
    ) -> ModelError {
        ModelError::Option { path: self.path.clone(), name, operator, option, value: value.to_owned(), expected }
    }
}

/// `wanted` with its -1 replaced by the length that remains of `shape`; the operator rejects a wrong result.
fn completed(wanted: &[i64], shape: &[i64]) -> Vec<i64> {
    let total = shape.iter().fold(1i64, |total, length| total.saturating_mul(*length));
    let known = wanted.iter().filter(|length| **length != -1).fold(1i64, |known, length| known.saturating_mul(*length));
    let missing = if known > 0 { total / known } else { -1 };
    let mut missing = Some(missing);
    wanted.iter().map(|&length| if length == -1 { missing.take().unwrap_or(-1) } else { length }).collect()
}
