//! Lowers the model's graph to ONNX's nodes, in inference mode.

mod attention;
mod builder;
mod convolution;
mod elementwise;
mod normalization;
mod pooling;
mod recurrent;
mod shape;

use std::collections::{HashMap, HashSet};

use export::{Added, Ending, Normalization, Weights};
use plugin_api::graph::{Dtype, Graph, Input, Node, Op, TensorSpec};
use plugin_api::{Error, Result};
use verify::Point;

pub use builder::{Builder, Elements, Initializer};

use crate::options::Opset;
use crate::proto::{Attribute, element};

/// A model in ONNX, with borrowed weights.
pub struct Lowered<'a> {
    pub builder: Builder<'a>,
    /// The inputs of the file, those of the samples first.
    pub inputs: Vec<Input>,
    /// The first input of the model: that of the file, or its normalized value.
    pub taken: String,
    /// The output of the model: that of the file, or what its ending reads.
    pub given: String,
    /// The name of the file's output, its shape for a sample, and what it contains.
    pub output: String,
    pub output_shape: Vec<i64>,
    pub ending: Ending,
    /// Values of the model that are also values of the file.
    pub points: Vec<Point>,
}

/// The graph to lower, and how.
pub struct Request<'a> {
    pub graph: &'a Graph,
    pub opset: Opset,
    /// Whether batch norms become part of the convolutions before them.
    pub fold_batch_norm: bool,
    /// What is added before the model.
    pub normalization: Option<&'a Normalization>,
    /// What is added after it.
    pub ending: Ending,
}

/// The state of lowering a graph.
pub(crate) struct Lowering<'a, 'w> {
    graph: &'a Graph,
    weights: &'a Weights<'w>,
    opset: Opset,
    builder: Builder<'w>,
    /// For each value of the graph, its value in ONNX: another one if a node does nothing in inference.
    values: HashMap<&'a str, String>,
    /// Batch norms that are part of a convolution.
    folded: HashMap<&'a str, &'a Node>,
    /// The nodes whose value in ONNX has a batch of 1, since it is the same for each sample.
    same: HashSet<&'a str>,
    /// The tensors of several nodes.
    shared: HashSet<&'a str>,
}

/// Whether every operator of a graph can be exported.
///
/// # Errors
///
/// The first node that cannot be exported, with its operator.
pub fn check(graph: &Graph) -> Result<()> {
    if graph.inputs.is_empty() {
        return Err(Error::new("the model has no input"));
    }
    let mut names = HashSet::new();
    let all = graph.nodes.iter().map(|node| &node.name).chain(graph.inputs.iter().map(|input| &input.name));
    // Nodes may share a tensor.
    let tensors: HashSet<&String> = tensors(graph).map(|tensor| &tensor.name).collect();
    for name in all.chain(tensors) {
        if name.is_empty() || name.contains('\0') {
            return Err(Error::new(format!("the graph has the name {name:?}, which ONNX does not allow")));
        }
        if !names.insert(name) {
            return Err(Error::new(format!("the graph has the name `{name}` twice, but names in ONNX must be unique")));
        }
    }
    Ok(())
}

/// The tensors of all nodes, one after another.
fn tensors(graph: &Graph) -> impl Iterator<Item = &TensorSpec> {
    graph.nodes.iter().flat_map(|node| node.parameters.iter().chain(&node.buffers))
}

/// Lowers a graph that [`check`] has accepted.
///
/// # Errors
///
/// A missing weight.
pub fn lower<'w>(request: &Request<'_>, weights: &Weights<'w>) -> Result<Lowered<'w>> {
    let graph = request.graph;
    let input = graph.inputs.first().ok_or_else(|| Error::new("the model has no input"))?;
    let mut lowering = Lowering {
        graph,
        weights,
        opset: request.opset,
        builder: Builder::default(),
        values: graph.inputs.iter().map(|input| (input.name.as_str(), input.name.clone())).collect(),
        folded: if request.fold_batch_norm { convolution::foldable(graph) } else { HashMap::new() },
        same: HashSet::new(),
        shared: HashSet::new(),
    };
    let mut once = HashSet::new();
    lowering.shared = tensors(graph).map(|tensor| tensor.name.as_str()).filter(|name| !once.insert(*name)).collect();
    if let Some(normalization) = request.normalization.filter(|_| input.dtype == Dtype::F32) {
        let normalized = lowering.normalize(input, normalization);
        lowering.values.insert(&input.name, normalized);
    }
    for node in &graph.nodes {
        let value =
            lowering.node(node).map_err(|error| error.context(format!("node `{}` ({})", node.name, node.op.name())))?;
        lowering.values.insert(&node.name, value);
        if node.inputs.iter().all(|input| lowering.same.contains(input.as_str())) {
            lowering.same.insert(&node.name);
        }
    }
    let shape = request.ending.shape(graph.shape(&graph.output).unwrap_or_default());
    lowering.finish(shape, request.ending)
}

impl<'a, 'w> Lowering<'a, 'w> {
    /// Lowers a node, and returns its value.
    fn node(&mut self, node: &'a Node) -> Result<String> {
        match &node.op {
            Op::Linear { bias, transposed, .. } => self.linear(node, *bias, *transposed),
            Op::Conv1d { .. } | Op::Conv2d { .. } | Op::ConvTranspose2d { .. } => self.convolution(node),
            Op::BatchNorm { .. } | Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::GroupNorm { .. } => self.norm(node),
            Op::MaxPool2d { .. } | Op::AvgPool2d { .. } | Op::AdaptiveAvgPool2d { .. } => self.pool(node),
            Op::Relu
            | Op::LeakyRelu { .. }
            | Op::Elu { .. }
            | Op::HardSwish
            | Op::HardSigmoid
            | Op::Gelu { .. }
            | Op::Silu
            | Op::Tanh
            | Op::Sigmoid
            | Op::Softmax { .. }
            | Op::Add
            | Op::Subtract
            | Op::Multiply
            | Op::Divide
            | Op::AddScalar { .. }
            | Op::MultiplyScalar { .. }
            | Op::Pow { .. }
            | Op::ToFloat
            | Op::Compare { .. }
            | Op::Clamp { .. } => self.elementwise(node),
            Op::Flatten
            | Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Upsample { .. }
            | Op::Concat { .. }
            | Op::Slice { .. }
            | Op::Select { .. } => self.reshaped(node),
            Op::Mean { dims, keepdim } => self.mean(node, dims, *keepdim),
            Op::Matmul => {
                let inputs = self.inputs(node)?;
                Ok(self.builder.node("MatMul", &node.name, &inputs, Vec::new()))
            }
            Op::ScaledDotProductAttention { .. } => self.scaled_attention(node),
            Op::Parameter { .. } => {
                let dims: Vec<i64> = std::iter::once(1).chain(node.shape.iter().copied()).collect();
                self.weight(node, "value", Some(&dims))
            }
            Op::Constant { values, .. } => {
                let dims: Vec<i64> = std::iter::once(1).chain(node.shape.iter().copied()).collect();
                Ok(self.builder.add(&node.name, &dims, Elements::I64(values.clone()), false))
            }
            // It does something only in training.
            Op::Dropout { .. } => self.input(node),
            Op::Embedding { .. } | Op::PositionalEmbedding { .. } => self.embedding(node),
            Op::MultiHeadAttention { .. } => self.attention(node),
            Op::Lstm(recurrent) => self.recurrent(node, recurrent, &recurrent::LSTM),
            Op::Gru(recurrent) => self.recurrent(node, recurrent, &recurrent::GRU),
        }
    }

    /// The first input of a node.
    fn input(&self, node: &Node) -> Result<String> {
        let name = node.inputs.first().ok_or_else(|| Error::new("it has no inputs"))?;
        self.value(name)
    }

    /// All inputs of a node.
    fn inputs(&self, node: &Node) -> Result<Vec<String>> {
        node.inputs.iter().map(|input| self.value(input)).collect()
    }

    /// An input of a node as a value whose samples have `rank` dimensions, the first ones of length 1. ONNX aligns values at
    /// their last dimension, so that one with a batch of 1 stays as it is.
    fn of_rank(&mut self, node: &Node, place: usize, rank: usize) -> Result<String> {
        let name = node.inputs.get(place).ok_or_else(|| Error::new(format!("it has no input {place}")))?;
        let value = self.value(name)?;
        let own = self.graph.shape(name).map_or(rank, <[i64]>::len);
        if own >= rank || self.same.contains(name.as_str()) {
            return Ok(value);
        }
        let axes: Vec<i64> = (1..=(rank - own) as i64).collect();
        let axes = self.builder.integers(&format!("{}/axes{place}", node.name), &axes);
        Ok(self.builder.node("Unsqueeze", &format!("{}/aligned{place}", node.name), &[value, axes], Vec::new()))
    }

    /// A value with a batch of 1, `[1, …]` of so many dimensions, for as many samples as the model's input has; new values
    /// begin with `name`.
    fn for_each(&mut self, name: &str, value: &str, rank: usize) -> Result<String> {
        let input = self.graph.inputs.first().ok_or_else(|| Error::new("the model has no input"))?;
        let until = vec![Attribute::int("start", 0), Attribute::int("end", 1)];
        let batch = self.builder.node("Shape", &format!("{name}/batch"), &[self.value(&input.name)?], until);
        let ones = self.builder.integers(&format!("{name}/ones"), &vec![1; rank - 1]);
        let axis = vec![Attribute::int("axis", 0)];
        let shape = self.builder.node("Concat", &format!("{name}/shape"), &[batch, ones], axis);
        Ok(self.builder.node("Expand", &format!("{name}/expanded"), &[value, &shape], Vec::new()))
    }

    fn value(&self, name: &str) -> Result<String> {
        self.values.get(name).cloned().ok_or_else(|| Error::new(format!("no earlier node has the value `{name}`")))
    }

    /// The shape of a sample of a node's first input.
    fn input_shape(&self, node: &Node) -> Result<&'a [i64]> {
        let name = node.inputs.first().map_or("", String::as_str);
        self.graph.shape(name).ok_or_else(|| Error::new(format!("there is no value `{name}`")))
    }

    /// Adds a weight of a node under its name in the state dict, in another shape if `dims` are given. What several nodes read
    /// is there once, unless one needs another shape.
    fn weight(&mut self, node: &Node, tensor: &str, dims: Option<&[i64]>) -> Result<String> {
        let name = tensor_name(node, tensor)?;
        let weight = self.weights.get(name)?;
        let values = self.weights.f32(name)?;
        let dims = dims.unwrap_or(weight.shape);
        if dims != weight.shape && self.shared.contains(name) {
            return Ok(self.builder.weight(&format!("{}/{tensor}", node.name), dims, values));
        }
        Ok(self.builder.weight(name, dims, values))
    }

    /// `x Wᵀ + b` over the last dimension, with tensors of these names; the result is called `name`.
    fn affine(&mut self, node: &Node, name: &str, input: &str, weight: &str, bias: Option<&str>) -> Result<String> {
        let weight = self.weight(node, weight, None)?;
        let transposed = format!("{weight}/transposed");
        // Another node may read it.
        if !self.builder.nodes.iter().any(|made| made.name == transposed) {
            self.builder.node("Transpose", &transposed, &[&weight], Vec::new());
        }
        self.product(node, name, input, &transposed, bias)
    }

    /// `x Wᵀ + b` of the transposed weight, which is a value.
    fn product(
        &mut self,
        node: &Node,
        name: &str,
        input: &str,
        transposed: &str,
        bias: Option<&str>,
    ) -> Result<String> {
        let Some(bias) = bias else {
            return Ok(self.builder.node("MatMul", name, &[input, transposed], Vec::new()));
        };
        let product = self.builder.node("MatMul", &format!("{name}/product"), &[input, transposed], Vec::new());
        let bias = self.weight(node, bias, None)?;
        Ok(self.builder.node("Add", name, &[product, bias], Vec::new()))
    }

    fn linear(&mut self, node: &'a Node, bias: bool, is_transposed: bool) -> Result<String> {
        let input = self.input(node)?;
        if self.input_shape(node)?.len() != 1 {
            if is_transposed {
                let weight = self.weight(node, "weight", None)?;
                return self.product(node, &node.name, &input, &weight, bias.then_some("bias"));
            }
            return self.affine(node, &node.name, &input, "weight", bias.then_some("bias"));
        }
        let mut inputs = vec![input, self.weight(node, "weight", None)?];
        if bias {
            inputs.push(self.weight(node, "bias", None)?);
        }
        Ok(self.builder.node("Gemm", &node.name, &inputs, vec![Attribute::int("transB", i64::from(!is_transposed))]))
    }

    /// The data's normalization, as the first nodes.
    fn normalize(&mut self, input: &Input, normalization: &Normalization) -> String {
        let dims: Vec<i64> =
            input.shape.iter().enumerate().map(|(axis, length)| if axis == 0 { *length } else { 1 }).collect();
        let offset = self.builder.constant("normalize/offset", &dims, normalization.offset.clone());
        let scale = self.builder.constant("normalize/scale", &dims, normalization.scale.clone());
        let shifted = self.builder.node("Sub", "normalize/shifted", &[&input.name, &offset], Vec::new());
        self.builder.node("Div", "normalize/scaled", &[shifted, scale], Vec::new())
    }

    /// The nodes of the graph, and their values in the file. A convolution that includes a norm has the norm's value.
    fn points(&self) -> Vec<Point> {
        let has_own_value =
            |node: &&Node| !self.folded.contains_key(node.name.as_str()) && !self.same.contains(node.name.as_str());
        let nodes = self.graph.nodes.iter().filter(has_own_value);
        let point = |node: &Node| {
            let value = self.values.get(node.name.as_str())?.clone();
            let dims = (0..=node.shape.len()).collect();
            Some(Point { node: node.name.clone(), operator: node.op.name().to_owned(), value, dims })
        };
        nodes.filter_map(point).collect()
    }

    /// Adds the nodes after the model.
    fn finish(mut self, output_shape: Vec<i64>, ending: Ending) -> Result<Lowered<'w>> {
        let mut given = self.value(&self.graph.output)?;
        if self.same.contains(self.graph.output.as_str()) {
            let rank = self.graph.shape(&self.graph.output).map_or(0, <[i64]>::len) + 1;
            given = self.for_each("output", &given, rank)?;
        }
        let last = || vec![Attribute::int("axis", -1)];
        let mut value = match ending.added {
            Added::Nothing => given.clone(),
            Added::Softmax => self.builder.node("Softmax", "probabilities", &[&given], last()),
            Added::Sigmoid => self.builder.node("Sigmoid", "probabilities", &[&given], Vec::new()),
            Added::Largest => {
                let attributes = [last(), vec![Attribute::int("keepdims", 0)]].concat();
                self.builder.node("ArgMax", "class", &[&given], attributes)
            }
            Added::AboveZero => {
                let zero = self.builder.constant("class/zero", &[], vec![0.0]);
                let axes = self.builder.integers("class/axes", &[-1]);
                let is_above = self.builder.node("Greater", "class/is_second", &[&given, &zero], Vec::new());
                let to = vec![Attribute::int("to", i64::from(element::INT64))];
                let number = self.builder.node("Cast", "class/number", &[is_above], to);
                self.builder.node("Squeeze", "class", &[number, axes], Vec::new())
            }
        };
        // An input or a weight cannot itself be an output.
        if !self.builder.nodes.iter().any(|node| node.output.contains(&value)) {
            value = self.builder.node("Identity", "output", &[value], Vec::new());
        }
        let points = self.points();
        let inputs = self.graph.inputs.clone();
        let taken = inputs.first().map(|input| self.value(&input.name)).transpose()?.unwrap_or_default();
        Ok(Lowered { builder: self.builder, inputs, taken, given, output: value, output_shape, ending, points })
    }
}

/// The name of the parameter or buffer that a node calls `tensor`.
fn tensor_name<'n>(node: &'n Node, tensor: &str) -> Result<&'n str> {
    let spec = node.tensor(tensor).ok_or_else(|| Error::new(format!("it has no tensor `{tensor}`")))?;
    Ok(&spec.name)
}
