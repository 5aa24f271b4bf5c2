//! Execution of a graph with libtorch's operators.
//!
//! Names are resolved once, into a plan of indices; a forward pass looks nothing up and allocates only one vector in
//! addition to the tensors.
//!
//! On the CPU, images are stored with their channels innermost from the first 2-d convolution on, which is fastest for
//! its kernels: a step of the CNN of the benchmarks takes a seventh less. The model's output is row-major.

use std::collections::HashMap;

use tch::{Kind, TchError, Tensor};

use super::{
    batch::ModelBatch,
    error::ModelError,
    graph::Graph,
    named_tensor::NamedTensor,
    op::{Comparison, GeluApproximation, Op, Recurrent, TensorSpec, UpsampleMode},
};
use crate::torch::c10d::Group;
use crate::torch::sync_batch_norm::{BatchNorm, sync_batch_norm};
use crate::torch::{TorchError, activations, attention, fused, gru, layout, values};

/// Whether layers behave as in training or in evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout drops; batch normalization uses the batch and updates its running statistics.
    Train,
    /// Dropout is the identity; batch normalization uses its running statistics.
    Evaluate,
}

/// The tensors that a graph computes with, in its order.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) graph: &'a Graph,
    pub(super) parameters: &'a [NamedTensor],
    pub(super) buffers: &'a [NamedTensor],
    /// Whether a buffer is a frozen batch norm's, in the order of `buffers`.
    pub(super) still: &'a [bool],
    /// What takes the places of some parameters, by these places, in order.
    pub(super) sums: &'a [(usize, Tensor)],
    /// The ranks whose samples batch normalization counts together in training.
    pub(super) statistics: Option<&'a Group>,
}

impl<'a> Weights<'a> {
    fn parameter(self, place: usize) -> &'a Tensor {
        match self.sums.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(found) => &self.sums[found].1,
            Err(_) => &self.parameters[place].tensor,
        }
    }
}

/// A graph with its names resolved.
#[derive(Debug)]
pub(super) struct ExecutionPlan {
    /// One for each node.
    steps: Vec<Step>,
    output: Source,
    /// The number of inputs.
    inputs: usize,
}

/// The source of a value.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// The samples, or one of the inputs beside them, from 1 on.
    Input(usize),
    Node(usize),
}

#[derive(Debug)]
struct Step {
    op: Op,
    inputs: Vec<Source>,
    /// The indices of its parameters and buffers among the network's.
    parameters: Vec<usize>,
    buffers: Vec<usize>,
    /// The shape of its output for one sample.
    shape: Vec<i64>,
    /// The nodes that this node reads last: their values are dropped after it, unless autograd keeps them.
    release: Vec<usize>,
    /// Of a sum of two values of one shape: the first layer normalization that reads it, which may be computed with it.
    normalization: Option<usize>,
}

impl ExecutionPlan {
    pub(super) fn new(graph: &Graph) -> Result<ExecutionPlan, ModelError> {
        let inputs = graph.inputs().iter().enumerate();
        let mut sources: HashMap<&str, Source> =
            inputs.map(|(place, input)| (input.name.as_str(), Source::Input(place))).collect();
        let mut steps: Vec<Step> = Vec::with_capacity(graph.nodes().len());
        let mut last_reader: Vec<Option<usize>> = vec![None; graph.nodes().len()];
        // The network has them in this order, each once.
        let (parameters, buffers) = (places(graph.parameters()), places(graph.buffers()));
        let source = |sources: &HashMap<&str, Source>, reader: &str, value: &str| {
            sources
                .get(value)
                .copied()
                .ok_or_else(|| ModelError::UnknownValue { node: reader.to_owned(), value: value.to_owned() })
        };
        for (index, node) in graph.nodes().iter().enumerate() {
            let inputs =
                node.inputs.iter().map(|value| source(&sources, &node.name, value)).collect::<Result<Vec<_>, _>>()?;
            for input in &inputs {
                if let Source::Node(read) = input {
                    last_reader[*read] = Some(index);
                }
            }
            let (least, most) = node.op.input_counts();
            if !(least..=most).contains(&inputs.len()) {
                return Err(ModelError::InputCount {
                    node: node.name.clone(),
                    operator: node.op.name(),
                    expected: least,
                    found: inputs.len(),
                });
            }
            let (op, shape) = (node.op.clone(), node.shape.clone());
            let of = |specs: &[TensorSpec], places: &HashMap<&str, usize>| {
                specs.iter().filter_map(|spec| places.get(spec.name.as_str()).copied()).collect()
            };
            let (parameters, buffers) = (of(&node.parameters, &parameters), of(&node.buffers, &buffers));
            if let (Op::LayerNorm { .. }, [Source::Node(sum)]) = (&op, inputs.as_slice())
                && is_sum_of_one_shape(graph, *sum)
            {
                steps[*sum].normalization.get_or_insert(index);
            }
            steps.push(Step { op, inputs, parameters, buffers, shape, release: Vec::new(), normalization: None });
            sources.insert(&node.name, Source::Node(index));
        }
        let output = source(&sources, "output", graph.output())?;
        for (node, reader) in last_reader.iter().enumerate() {
            let is_output = matches!(output, Source::Node(output) if output == node);
            if let (Some(reader), false) = (reader, is_output) {
                steps[*reader].release.push(node);
            }
        }
        Ok(ExecutionPlan { steps, output, inputs: graph.inputs().len() })
    }

    fn check(&self, batch: ModelBatch<'_>) -> Result<(), ModelError> {
        if batch.others.len() + 1 >= self.inputs {
            return Ok(());
        }
        let message = format!("the graph takes {} inputs, and is given {}", self.inputs, batch.others.len() + 1);
        Err(ModelError::Forward { message })
    }

    /// The output for a batch, whose inputs are in the order of the graph's.
    pub(super) fn run(&self, weights: Weights<'_>, batch: ModelBatch<'_>, mode: Mode) -> Result<Tensor, ModelError> {
        self.check(batch)?;
        let mut values: Vec<Option<Tensor>> = self.steps.iter().map(|_| None).collect();
        for (index, step) in self.steps.iter().enumerate() {
            self.compute(index, weights, batch, &mut values, mode)?;
            for node in &step.release {
                values[*node] = None;
            }
        }
        self.take_output(weights, batch, values)
    }

    pub(super) fn run_with(
        &self,
        weights: Weights<'_>,
        batch: ModelBatch<'_>,
        mode: Mode,
        wanted: &[usize],
    ) -> Result<(Tensor, Vec<Tensor>), ModelError> {
        self.check(batch)?;
        let mut values: Vec<Option<Tensor>> = self.steps.iter().map(|_| None).collect();
        for index in 0..self.steps.len() {
            self.compute(index, weights, batch, &mut values, mode)?;
        }
        let intermediate = wanted
            .iter()
            .map(|node| match values.get(*node) {
                Some(Some(value)) => row_major(value.shallow_clone()).map_err(|failure| failure.at(weights, *node)),
                _ => Err(ModelError::UnknownNode { name: node.to_string() }),
            })
            .collect::<Result<_, _>>()?;
        Ok((self.take_output(weights, batch, values)?, intermediate))
    }

    /// Writes the value of a node into its place, unless it was computed together with one before it.
    fn compute(
        &self,
        index: usize,
        weights: Weights<'_>,
        batch: ModelBatch<'_>,
        values: &mut [Option<Tensor>],
        mode: Mode,
    ) -> Result<(), ModelError> {
        if values[index].is_some() {
            return Ok(());
        }
        let step = &self.steps[index];
        if let Some(reader) = step.normalization
            && let Op::LayerNorm { eps, .. } = self.steps[reader].op
        {
            let operands = [0, 1].map(|place| Values { batch, values }.get(step.inputs[place]));
            let [weight, bias] = [0, 1].map(|place| weights.parameter(self.steps[reader].parameters[place]));
            let computed = fused::add_and_layer_norm(operands, weight, bias, eps);
            if let Some((normalized, sum)) = computed.map_err(|error| Failure::from(error).at(weights, index))? {
                values[reader] = Some(normalized);
                values[index] = Some(sum);
                return Ok(());
            }
        }
        let value = step.run(weights, Values { batch, values }, mode);
        values[index] = Some(value.map_err(|failure| failure.at(weights, index))?);
        Ok(())
    }

    fn take_output(
        &self,
        weights: Weights<'_>,
        batch: ModelBatch<'_>,
        mut values: Vec<Option<Tensor>>,
    ) -> Result<Tensor, ModelError> {
        let node = match self.output {
            Source::Node(node) => node,
            Source::Input(place) => return Ok(input(batch, place).shallow_clone()),
        };
        let output = values[node].take().unwrap_or_else(|| batch.inputs.shallow_clone());
        row_major(output).map_err(|failure| failure.at(weights, node))
    }
}

/// The values so far.
#[derive(Clone, Copy)]
struct Values<'a> {
    batch: ModelBatch<'a>,
    values: &'a [Option<Tensor>],
}

impl<'a> Values<'a> {
    /// The value of a node that has run: the graph's order is checked, and values are released only after their last
    /// reader.
    fn get(self, source: Source) -> &'a Tensor {
        match source {
            Source::Input(place) => input(self.batch, place),
            Source::Node(node) => self.values[node].as_ref().unwrap_or(self.batch.inputs),
        }
    }
}

/// An input of a batch, which is checked to have as many as the graph.
fn input(batch: ModelBatch<'_>, place: usize) -> &Tensor {
    place.checked_sub(1).and_then(|other| batch.others.get(other)).unwrap_or(batch.inputs)
}

/// Why a kernel failed; [`Failure::at`] adds the node's name, off the path of success.
enum Failure {
    Torch(TorchError),
    SingleValuePerChannel,
}

impl From<TchError> for Failure {
    fn from(error: TchError) -> Failure {
        Failure::Torch(error.into())
    }
}

impl Failure {
    fn at(self, weights: Weights<'_>, index: usize) -> ModelError {
        let node = weights.graph.nodes().get(index);
        let node = node.map_or_else(String::new, |node| node.name.clone());
        match self {
            Failure::Torch(source) => ModelError::Execution { node, source },
            Failure::SingleValuePerChannel => ModelError::SingleValuePerChannel { node },
        }
    }
}

impl From<TorchError> for Failure {
    fn from(error: TorchError) -> Failure {
        Failure::Torch(error)
    }
}

impl Step {
    /// The value for a batch. Dimensions of a sample follow the batch dimension.
    fn run(&self, weights: Weights<'_>, values: Values<'_>, mode: Mode) -> Result<Tensor, Failure> {
        // Of an operator that reads nothing, the input of the model tells the batch.
        let input = self.inputs.first().map_or(values.batch.inputs, |source| values.get(*source));
        let parameter = |place: usize| weights.parameter(self.parameters[place]);
        let optional = |place: usize, is_there: bool| is_there.then(|| parameter(place));
        let buffer = |place: usize| &weights.buffers[self.buffers[place]].tensor;
        let training = mode == Mode::Train;
        let value = match &self.op {
            Op::Linear { bias, transposed: false, .. } => input.f_linear(parameter(0), optional(1, *bias))?,
            Op::Linear { bias, .. } => input.f_linear(&parameter(0).f_transpose(0, 1)?, optional(1, *bias))?,
            Op::Conv1d { stride, padding, dilation, groups, bias, .. } => {
                input.f_conv1d(parameter(0), optional(1, *bias), *stride, *padding, *dilation, *groups)?
            }
            Op::Conv2d { stride, padding, dilation, groups, bias, .. } => {
                let moved = layout::channels_last(input)?;
                let input = moved.as_ref().unwrap_or(input);
                input.f_conv2d(parameter(0), optional(1, *bias), stride, padding, dilation, *groups)?
            }
            Op::ConvTranspose2d { stride, padding, output_padding, dilation, groups, bias, .. } => input
                .f_conv_transpose2d(
                    parameter(0),
                    optional(1, *bias),
                    stride,
                    padding,
                    output_padding,
                    *groups,
                    dilation,
                )?,
            Op::BatchNorm { eps, momentum, .. } => {
                let training = training && !weights.still[self.buffers[0]];
                if let (true, Some(group)) = (training, weights.statistics) {
                    values::add_one(buffer(2))?;
                    let norm = BatchNorm {
                        weight: parameter(0),
                        bias: parameter(1),
                        running_mean: buffer(0),
                        running_variance: buffer(1),
                        momentum: *momentum,
                        epsilon: *eps,
                    };
                    return Ok(sync_batch_norm(group, input, norm)?);
                }
                if training {
                    // The unbiased variance of a single value is NaN and would stay in the running statistics;
                    // torch.nn.functional.batch_norm rejects it too.
                    let size = input.size();
                    if size.first() == Some(&1) && size.iter().skip(2).all(|length| *length == 1) {
                        return Err(Failure::SingleValuePerChannel);
                    }
                    values::add_one(buffer(2))?;
                }
                let (weight, bias) = (Some(parameter(0)), Some(parameter(1)));
                let (mean, variance) = (Some(buffer(0)), Some(buffer(1)));
                input.f_batch_norm(weight, bias, mean, variance, training, *momentum, *eps, true)?
            }
            Op::LayerNorm { normalized_shape, eps } => {
                let [weight, bias] = [0, 1].map(parameter);
                match fused::layer_norm(input, weight, bias, *eps)? {
                    Some(output) => output,
                    None => input.f_layer_norm(normalized_shape, Some(weight), Some(bias), *eps, true)?,
                }
            }
            Op::RmsNorm { normalized_shape, eps } => input.f_rms_norm(normalized_shape, Some(parameter(0)), *eps)?,
            Op::GroupNorm { num_groups, eps, .. } => {
                input.f_group_norm(*num_groups, Some(parameter(0)), Some(parameter(1)), *eps, true)?
            }
            Op::MaxPool2d { kernel_size, stride, padding } => {
                input.f_max_pool2d(kernel_size, stride, padding, [1i64, 1], false)?
            }
            Op::AvgPool2d { kernel_size, stride, padding, count_include_pad } => {
                input.f_avg_pool2d(kernel_size, stride, padding, false, *count_include_pad, None)?
            }
            Op::AdaptiveAvgPool2d { output_size } => input.f_adaptive_avg_pool2d(output_size)?,
            Op::Relu => input.f_relu()?,
            Op::LeakyRelu { negative_slope } => activations::leaky_relu(input, *negative_slope)?,
            Op::Elu { alpha } => activations::elu(input, *alpha)?,
            Op::HardSwish => input.f_hardswish()?,
            Op::HardSigmoid => input.f_hardsigmoid()?,
            Op::Gelu { approximate: GeluApproximation::None } => match fused::gelu(input)? {
                Some(output) => output,
                None => input.f_gelu("none")?,
            },
            Op::Gelu { approximate: GeluApproximation::Tanh } => input.f_gelu("tanh")?,
            Op::Silu => input.f_silu()?,
            Op::Tanh => input.f_tanh()?,
            Op::Sigmoid => input.f_sigmoid()?,
            Op::Softmax { dim } => input.f_softmax(batched(*dim), None)?,
            // A vector is already flat; a view of it would cost a dispatch.
            Op::Flatten if input.dim() == 2 => input.shallow_clone(),
            Op::Flatten => layout::row_major(input)?.as_ref().unwrap_or(input).f_flatten(1, -1)?,
            Op::Reshape { shape } => input.f_reshape(with_batch(input, shape))?,
            Op::Permute { dims } => {
                input.f_permute(std::iter::once(0).chain(dims.iter().copied().map(batched)).collect::<Vec<_>>())?
            }
            Op::Dropout { p } if training && *p > 0.0 => input.f_dropout(*p, true)?,
            Op::Dropout { .. } => input.shallow_clone(),
            Op::Embedding { .. } => Tensor::f_embedding(parameter(0), input, -1, false, false)?,
            Op::PositionalEmbedding { .. } => input.f_add(&parameter(0).f_narrow(0, 0, self.shape[0])?)?,
            Op::MultiHeadAttention { num_heads, causal, dropout, bias, .. } => {
                let [projection, out_projection] = if *bias { [0, 2] } else { [0, 1] };
                let [length, features] = [self.shape[0], self.shape[1]];
                let projected = input.f_linear(parameter(projection), optional(projection + 1, *bias))?.f_view([
                    -1,
                    length,
                    3,
                    *num_heads,
                    features / num_heads,
                ])?;
                let p = if training { *dropout } else { 0.0 };
                attention::attend_projected(&projected, p, *causal)?
                    .f_linear(parameter(out_projection), optional(out_projection + 1, *bias))?
            }
            Op::Lstm(recurrent) | Op::Gru(recurrent) => {
                let count = 4 * recurrent.num_layers * recurrent.directions();
                let parameters: Vec<&Tensor> = (0..count as usize).map(parameter).collect();
                let Recurrent { num_layers, dropout, bidirectional, .. } = *recurrent;
                let drawn = if training { dropout } else { 0.0 };
                let output = if matches!(self.op, Op::Lstm(_)) {
                    let state = initial_state(recurrent, input)?;
                    let states = [&state, &state];
                    input.f_lstm(&states, &parameters, true, num_layers, dropout, training, bidirectional, true)?.0
                } else if let Some(output) = (gru::Layers { bidirectional, dropout: drawn }).run(input, &parameters)? {
                    output
                } else {
                    let state = initial_state(recurrent, input)?;
                    input.f_gru(&state, &parameters, true, num_layers, dropout, training, bidirectional, true)?.0
                };
                if recurrent.last_only { output.f_select(1, -1)? } else { output }
            }
            Op::Upsample { mode, .. } => {
                let size = &self.shape[1..];
                match mode {
                    UpsampleMode::Nearest => input.f_upsample_nearest2d(size, None, None)?,
                    UpsampleMode::Bilinear => input.f_upsample_bilinear2d(size, false, None, None)?,
                }
            }
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide => {
                let other = values.get(self.inputs[1]);
                let rank = input.dim().max(other.dim());
                let (left, right) = (of_rank(input, rank)?, of_rank(other, rank)?);
                let (left, right) = (left.as_ref().unwrap_or(input), right.as_ref().unwrap_or(other));
                match self.op {
                    Op::Add => left.f_add(right)?,
                    Op::Subtract => left.f_sub(right)?,
                    Op::Multiply => left.f_mul(right)?,
                    _ => left.f_div(right)?,
                }
            }
            Op::AddScalar { other } => input.f_add_scalar(*other)?,
            Op::MultiplyScalar { other } => input.f_mul_scalar(*other)?,
            Op::Pow { exponent } => input.f_pow_tensor_scalar(*exponent)?,
            Op::ToFloat => input.f_to_kind(Kind::Float)?,
            Op::Compare { comparison, other } => match comparison {
                Comparison::Equal => input.f_eq(*other)?,
                Comparison::NotEqual => input.f_ne(*other)?,
                Comparison::Less => input.f_lt(*other)?,
                Comparison::LessEqual => input.f_le(*other)?,
                Comparison::Greater => input.f_gt(*other)?,
                Comparison::GreaterEqual => input.f_ge(*other)?,
            }
            .f_to_kind(Kind::Float)?,
            Op::Clamp { min: Some(min), max: Some(max) } => input.f_clamp(*min, *max)?,
            Op::Clamp { min: Some(min), max: None } => input.f_clamp_min(*min)?,
            Op::Clamp { min: None, max: Some(max) } => input.f_clamp_max(*max)?,
            Op::Clamp { .. } => input.shallow_clone(),
            Op::Mean { dims, keepdim } => {
                let dims: Vec<i64> = dims.iter().copied().map(batched).collect();
                input.f_mean_dim(dims, *keepdim, None)?
            }
            Op::Slice { dim, start, end, step } => input.f_slice(batched(*dim), *start, *end, *step)?,
            Op::Select { dim, index } => input.f_select(batched(*dim), *index)?,
            Op::Matmul => input.f_matmul(values.get(self.inputs[1]))?,
            Op::ScaledDotProductAttention { is_causal, scale, dropout, is_boolean } => {
                let p = if training { *dropout } else { 0.0 };
                let [key, value] = [1, 2].map(|place| values.get(self.inputs[place]));
                let mask = match self.inputs.get(3).map(|source| values.get(*source)) {
                    Some(mask) => {
                        let mask = of_rank(mask, input.dim())?.unwrap_or_else(|| mask.shallow_clone());
                        Some(if *is_boolean { mask.f_to_kind(Kind::Bool)? } else { mask })
                    }
                    None => None,
                };
                Tensor::f_scaled_dot_product_attention(input, key, value, mask, p, *is_causal, *scale, false)?
            }
            Op::Parameter { is_buffer, .. } => {
                let tensor = if *is_buffer { buffer(0) } else { parameter(0) };
                for_each(tensor, &self.shape, input)?
            }
            Op::Constant { values, .. } => {
                for_each(&Tensor::f_from_slice(values)?.f_to_device(input.device())?, &self.shape, input)?
            }
            Op::Concat { dim } => {
                let all: Vec<&Tensor> = self.inputs.iter().map(|source| values.get(*source)).collect();
                Tensor::f_cat(&all, batched(*dim))?
            }
        };
        Ok(value)
    }
}

/// Whether a node adds two values whose samples have its own shape.
fn is_sum_of_one_shape(graph: &Graph, index: usize) -> bool {
    let sum = &graph.nodes()[index];
    let shape_of = |value: &String| {
        let node = graph.nodes().iter().find(|node| node.name == *value).map(|node| &node.shape);
        node.or_else(|| graph.inputs().iter().find(|input| input.name == *value).map(|input| &input.shape))
    };
    matches!(sum.op, Op::Add) && sum.inputs.iter().all(|value| shape_of(value) == Some(&sum.shape))
}

/// The index of each tensor by its name.
fn places<'g>(specs: impl Iterator<Item = &'g TensorSpec>) -> HashMap<&'g str, usize> {
    specs.enumerate().map(|(place, spec)| (spec.name.as_str(), place)).collect()
}

/// A batch of samples of fewer dimensions as one of `rank`, with lengths of 1 first; `None` if it is one.
fn of_rank(value: &Tensor, rank: usize) -> Result<Option<Tensor>, TchError> {
    let size = value.size();
    if size.len() >= rank {
        return Ok(None);
    }
    let (batch, sample) = size.split_first().unwrap_or((&1, &[]));
    let ones = std::iter::repeat_n(1, rank - size.len());
    let shape: Vec<i64> = std::iter::once(*batch).chain(ones).chain(sample.iter().copied()).collect();
    value.f_reshape(shape).map(Some)
}

/// A value for a sample as one for a batch of as many as `input` has.
fn for_each(value: &Tensor, shape: &[i64], input: &Tensor) -> Result<Tensor, TchError> {
    value.f_reshape(shape)?.f_unsqueeze(0)?.f_expand(with_batch(input, shape), false)
}

fn row_major(value: Tensor) -> Result<Tensor, Failure> {
    Ok(layout::row_major(&value)?.unwrap_or(value))
}

/// A dimension of a sample, in a batch.
fn batched(dim: usize) -> i64 {
    dim as i64 + 1
}

fn with_batch(input: &Tensor, shape: &[i64]) -> Vec<i64> {
    let batch = input.size().first().copied().unwrap_or(1);
    std::iter::once(batch).chain(shape.iter().copied()).collect()
}

/// Zeros, `[layers × directions, batch, hidden_size]`.
fn initial_state(recurrent: &Recurrent, input: &Tensor) -> Result<Tensor, TchError> {
    let batch = input.size().first().copied().unwrap_or(1);
    let shape = [recurrent.num_layers * recurrent.directions(), batch, recurrent.hidden_size];
    Tensor::f_zeros(shape, (input.kind(), input.device()))
}
