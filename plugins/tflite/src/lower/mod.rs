//! Lowers the model's graph to a program of the runtime.

mod arithmetic;
mod attention;
mod convolution;
mod elementwise;
mod ends;
mod linear;
mod normalization;
mod pooling;
mod recipe;
mod recurrent;
mod shape;

use std::collections::{HashMap, HashSet};

use export::{Added, Ending, Normalization};
use plugin_api::graph::{Dtype, Graph, Node, Op};
use plugin_api::{Error, Result};

pub(crate) use ends::output_name;
pub(crate) use recipe::permuted;

use crate::builtin::Builtin;
use crate::layout::Layout;
use crate::options::ImageLayout;
use crate::program::{Element, Origin, Program, TensorId};

/// The most elements of a tensor before the indices of the runtime's kernels overflow.
const MOST_ELEMENTS: i64 = i32::MAX as i64;

/// A value of the graph in the program.
#[derive(Clone, Debug)]
struct Value {
    tensor: TensorId,
    /// The shape in the graph.
    shape: Vec<i64>,
    layout: Layout,
    /// Whether more than one reader, or the caller, uses it: then nothing may be fused into the operator that computes
    /// it.
    is_shared: bool,
    /// Whether it is the same for each sample: then its batch is 1, whatever that of the input is.
    is_same: bool,
}

/// The lowering of one graph.
struct Lowering<'g> {
    graph: &'g Graph,
    program: Program,
    values: HashMap<&'g str, Value>,
    /// How often each value is read; the model's output counts once more.
    readers: HashMap<&'g str, usize>,
    /// Nodes that became part of the one before.
    absorbed: HashSet<&'g str>,
    /// Reordered copies of values, by what each dimension was.
    reordered: HashMap<(TensorId, Vec<usize>), TensorId>,
    /// Weights that are stored as they are, by name and shape: several nodes may read one.
    stored: HashMap<(String, Vec<i32>), TensorId>,
    /// The numbers of constants, by the nodes' names.
    constants: HashMap<&'g str, &'g [i64]>,
}

/// What to lower a graph with.
pub(crate) struct Request<'a> {
    /// The layout of the file's images.
    pub(crate) images: ImageLayout,
    /// What is added before the model.
    pub(crate) normalization: Option<&'a Normalization>,
    /// What is added after it.
    pub(crate) ending: Ending,
}

/// Lowers a graph. It reads no weights: a program gets them when it is written.
///
/// # Errors
///
/// The first node that cannot be exported, with its operator.
pub(crate) fn lower(graph: &Graph, request: &Request<'_>) -> Result<Program> {
    if graph.inputs.len() != 1 {
        return Err(Error::new(format!("the model has {} inputs, but only one can be exported", graph.inputs.len())));
    }
    let mut readers: HashMap<&str, usize> = HashMap::new();
    for name in graph.nodes.iter().flat_map(|node| &node.inputs).chain([&graph.output]) {
        *readers.entry(name).or_default() += 1;
    }
    let mut lowering = Lowering {
        graph,
        program: Program::default(),
        values: HashMap::new(),
        readers,
        absorbed: HashSet::new(),
        reordered: HashMap::new(),
        stored: HashMap::new(),
        constants: HashMap::new(),
    };
    lowering.take_inputs(request)?;
    for node in &graph.nodes {
        lowering.node(node).map_err(|error| error.context(format!("node `{}` (`{}`)", node.name, node.op.name())))?;
    }
    lowering.give_output(request)?;
    Ok(lowering.program)
}

impl<'g> Lowering<'g> {
    fn take_inputs(&mut self, request: &Request<'_>) -> Result<()> {
        for input in &self.graph.inputs {
            let layout = match request.images {
                ImageLayout::Nhwc if input.shape.len() == 3 => Layout::channels_last(3),
                _ => Layout::plain(input.shape.len()),
            };
            let element = match input.dtype {
                Dtype::F32 => Element::F32,
                Dtype::I64 => Element::I64,
            };
            let shape = memory_shape(&input.shape, &layout).map_err(|error| error.context(&input.name))?;
            let tensor = self.program.tensor(&shape, element, None);
            self.program.tensors[tensor].name.clone_from(&input.name);
            self.program.inputs.push(tensor);
            let tensor = match request.normalization {
                Some(normalization) if element == Element::F32 => self.normalized(tensor, &layout, normalization),
                _ => tensor,
            };
            self.program.taken = tensor;
            let shape = input.shape.clone();
            self.keep(&input.name, Value { tensor, shape, layout, is_shared: false, is_same: false })?;
        }
        Ok(())
    }

    fn give_output(&mut self, request: &Request<'_>) -> Result<()> {
        let value = self.value(&self.graph.output)?;
        if value.is_same {
            return Err(Error::new("its output does not depend on its input"));
        }
        self.program.scope = "output".to_owned();
        if request.ending.added != Added::Nothing && value.shape.len() > 2 {
            return Err(Error::new(format!(
                "`include` needs a model whose outputs are vectors or sequences, not of shape {:?}",
                value.shape
            )));
        }
        let tensor = match request.images {
            ImageLayout::Nhwc if value.shape.len() == 3 => self.ordered(&value, &[1, 2, 0]),
            _ => self.plain(&value),
        };
        // The output must be computed by an operator.
        let tensor = match self.program.producer(tensor) {
            Some(_) => tensor,
            None => {
                let shape = self.program.shape(tensor).to_vec();
                let target: Vec<i32> = std::iter::once(-1).chain(shape.iter().skip(1).copied()).collect();
                let target = self.program.integers(&target);
                self.program.apply(Builtin::Reshape, &[], &[tensor, target], &shape)
            }
        };
        self.program.tensors[tensor].name.clone_from(&self.graph.output);
        self.program.given = tensor;
        self.program.output = self.ended(tensor, request.ending.added);
        self.program.prune();
        Ok(())
    }

    fn node(&mut self, node: &'g Node) -> Result<()> {
        if self.absorbed.contains(node.name.as_str()) {
            return Ok(());
        }
        self.program.scope.clone_from(&node.name);
        if node.shape.iter().product::<i64>() > MOST_ELEMENTS {
            return Err(Error::new(format!("the shape {:?} has more values than the runtime can index", node.shape)));
        }
        let inputs = node.inputs.iter().map(|name| self.value(name)).collect::<Result<Vec<_>>>()?;
        let Some(input) = inputs.first() else {
            let tensor = self.constant(node)?;
            let layout = Layout::plain(node.shape.len());
            let value = Value { tensor, shape: node.shape.clone(), layout, is_shared: false, is_same: true };
            return self.keep(&node.name, value);
        };
        let (tensor, layout) = match &node.op {
            Op::Linear { .. } => self.linear(node, input)?,
            Op::Conv1d { .. } | Op::Conv2d { .. } => self.convolution(node, input)?,
            Op::ConvTranspose2d { .. } => self.transposed_convolution(node, input)?,
            Op::BatchNorm { num_features, eps, .. } => self.batch_norm(node, input, *num_features, *eps),
            Op::LayerNorm { normalized_shape, eps } => self.layer_norm(node, input, normalized_shape, *eps, true),
            Op::RmsNorm { normalized_shape, eps } => self.layer_norm(node, input, normalized_shape, *eps, false),
            Op::GroupNorm { num_groups, eps, .. } => self.group_norm(node, input, *num_groups, *eps),
            Op::MaxPool2d { kernel_size, stride, padding } => {
                self.max_pool(node, input, *kernel_size, *stride, *padding)
            }
            Op::AvgPool2d { kernel_size, stride, padding, count_include_pad } => {
                self.average_pool(node, input, *kernel_size, *stride, *padding, *count_include_pad)
            }
            Op::AdaptiveAvgPool2d { output_size } => self.adaptive_pool(input, *output_size),
            Op::Relu
            | Op::LeakyRelu { .. }
            | Op::Elu { .. }
            | Op::HardSwish
            | Op::HardSigmoid
            | Op::Gelu { .. }
            | Op::Silu
            | Op::Tanh
            | Op::Sigmoid => (self.activation(&node.op, input)?, input.layout.clone()),
            Op::Softmax { dim } => self.softmax(input, *dim),
            Op::Flatten => self.flatten(input),
            Op::Reshape { shape } => {
                let plain = self.plain(input);
                let layout = Layout::plain(shape.len());
                (self.program.reshape(plain, &memory_shape(shape, &layout)?), layout)
            }
            Op::Permute { dims } => self.permute(input, dims),
            Op::Dropout { .. } => (input.tensor, input.layout.clone()),
            Op::Embedding { .. } | Op::PositionalEmbedding { .. } => self.embedding(node, input)?,
            Op::MultiHeadAttention { .. } => self.attention(node, input)?,
            Op::Lstm(recurrent) => self.recurrent(node, input, recurrent, true)?,
            Op::Gru(recurrent) => self.recurrent(node, input, recurrent, false)?,
            Op::Upsample { mode, .. } => self.upsample(node, input, *mode),
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide => self.combine(node, &inputs)?,
            Op::AddScalar { other } => (self.with_number(Builtin::Add, input.tensor, *other), input.layout.clone()),
            Op::MultiplyScalar { other } => {
                (self.with_number(Builtin::Mul, input.tensor, *other), input.layout.clone())
            }
            Op::Pow { exponent } => (self.power(input.tensor, *exponent), input.layout.clone()),
            Op::Clamp { min, max } => (self.clamp(input.tensor, *min, *max), input.layout.clone()),
            Op::Mean { dims, keepdim } => self.mean_over(node, input, dims, *keepdim)?,
            Op::Slice { dim, start, end, step } => self.slice(input, *dim, [*start, *end, *step])?,
            Op::Select { dim, index } => self.select(node, input, *dim, *index)?,
            Op::Matmul => self.matmul(node, &inputs)?,
            Op::ScaledDotProductAttention { .. } => self.scaled_attention(node, &inputs)?,
            Op::ToFloat | Op::Compare { .. } => {
                return Err(Error::new("a mask that is made of the inputs is not exported as TFLite"));
            }
            Op::Parameter { .. } | Op::Constant { .. } => return Err(Error::new("reads a value")),
            Op::Concat { dim } => self.concatenation(node, &inputs, *dim)?,
        };
        let is_same = inputs.iter().all(|input| input.is_same);
        // A value that is passed on keeps its other readers.
        let is_shared = inputs.iter().any(|input| input.tensor == tensor && input.is_shared);
        // What has a batch of 1 is not compared with what has many samples.
        if !is_same {
            self.note_origin(node, tensor, &layout);
        }
        self.keep(&node.name, Value { tensor, shape: node.shape.clone(), layout, is_shared, is_same })
    }

    /// Records the node of a tensor: the last one, if several became one operator.
    fn note_origin(&mut self, node: &Node, tensor: TensorId, layout: &Layout) {
        let dims = match layout {
            Layout::Order(order) => Some(std::iter::once(0).chain(order.iter().map(|dim| dim + 1)).collect()),
            Layout::Flat { .. } => None,
        };
        let reads_node = |origin: &Origin| {
            self.absorbed.contains(origin.node.as_str())
                && self.graph.nodes.iter().any(|other| other.name == origin.node && other.inputs.contains(&node.name))
        };
        let slot = &mut self.program.tensors[tensor].origin;
        if !slot.as_ref().is_some_and(reads_node) {
            *slot = Some(Origin { node: node.name.clone(), operator: node.op.name(), dims });
        }
    }

    fn keep(&mut self, name: &'g str, mut value: Value) -> Result<()> {
        value.is_shared |= self.readers.get(name).is_some_and(|readers| *readers > 1);
        if self.values.insert(name, value).is_some() {
            return Err(Error::new(format!("the graph has the name `{name}` twice")));
        }
        Ok(())
    }

    fn value(&self, name: &str) -> Result<Value> {
        self.values.get(name).cloned().ok_or_else(|| Error::new(format!("reads `{name}`, which does not exist")))
    }

    /// The one node that reads `node`'s value, unless that is the model's output.
    fn only_reader(&self, node: &Node) -> Option<&'g Node> {
        if self.readers.get(node.name.as_str()) != Some(&1) || self.graph.output == node.name {
            return None;
        }
        self.graph.nodes.iter().find(|reader| reader.inputs.contains(&node.name))
    }

    /// The value with the dimensions in `order`.
    fn ordered(&mut self, value: &Value, order: &[usize]) -> TensorId {
        let (source, present) = match &value.layout {
            Layout::Order(present) => (value.tensor, present.clone()),
            Layout::Flat { shape, order } => {
                let whole = self.unflattened(value.tensor, shape, order);
                let flat = self.reordered_to(whole, order, &(0..shape.len()).collect::<Vec<_>>());
                let elements = value.shape.iter().product::<i64>() as i32;
                return self.program.reshape(flat, &[1, elements]);
            }
        };
        self.reordered_to(source, &present, order)
    }

    fn reordered_to(&mut self, tensor: TensorId, present: &[usize], order: &[usize]) -> TensorId {
        if present == order {
            return tensor;
        }
        let place = |dim: &usize| 1 + present.iter().position(|other| other == dim).unwrap_or(0);
        let dims: Vec<usize> = std::iter::once(0).chain(order.iter().map(place)).collect();
        let key = (tensor, dims.clone());
        if let Some(known) = self.reordered.get(&key) {
            return *known;
        }
        let reordered = self.program.transpose(tensor, &dims);
        self.reordered.insert(key, reordered);
        reordered
    }

    fn unflattened(&mut self, tensor: TensorId, shape: &[i64], order: &[usize]) -> TensorId {
        let lengths: Vec<i32> = std::iter::once(1).chain(order.iter().map(|dim| shape[*dim] as i32)).collect();
        self.program.reshape(tensor, &lengths)
    }

    /// The value in the graph's order.
    fn plain(&mut self, value: &Value) -> TensorId {
        let order: Vec<usize> = (0..value.shape.len()).collect();
        self.ordered(value, &order)
    }

    /// An image as `[batch, height, width, channels]`; a sequence `[channels, length]` as an image of height 1.
    fn image(&mut self, value: &Value) -> TensorId {
        let rank = value.shape.len();
        let order: Vec<usize> = (1..rank).chain([0]).collect();
        let tensor = self.ordered(value, &order);
        match value.shape.as_slice() {
            [channels, length] => self.program.reshape(tensor, &[1, 1, *length as i32, *channels as i32]),
            [channels] => self.program.reshape(tensor, &[1, 1, 1, *channels as i32]),
            _ => tensor,
        }
    }

    /// The source of [`Lowering::image`], and its result.
    fn imaged(&mut self, tensor: TensorId, shape: &[i64]) -> (TensorId, Layout) {
        let layout = Layout::channels_last(shape.len());
        let lengths = std::iter::once(1).chain(shape.iter().skip(1).chain(shape.first()).map(|length| *length as i32));
        let lengths: Vec<i32> = lengths.collect();
        (self.program.reshape(tensor, &lengths), layout)
    }
}

/// The shape in memory, with a batch of 1.
fn memory_shape(shape: &[i64], layout: &Layout) -> Result<Vec<i32>> {
    let length = |length: i64| {
        i32::try_from(length).map_err(|_| Error::new(format!("a length of {length} does not fit the format's 32 bits")))
    };
    let lengths = match layout {
        Layout::Order(order) => order.iter().map(|dim| length(shape[*dim])).collect::<Result<Vec<_>>>()?,
        Layout::Flat { .. } => shape.iter().map(|each| length(*each)).collect::<Result<Vec<_>>>()?,
    };
    Ok(std::iter::once(1).chain(lengths).collect())
}
