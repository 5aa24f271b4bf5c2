//! The graph of a model: inputs, nodes in executable order, one output.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{
    error::{LayerPath, ModelError},
    op::{
        Cost, Dtype, Input, Misfit, Op, OutputShape, OwnedTensor, OwnedTensors, TensorSpec, WeightInitialization,
        element_count,
    },
};

/// The most nodes that a run file can unfold to, far above real models.
const MAXIMUM_NODES: usize = 100_000;

/// A checked graph: names are unique, every node reads earlier values, shapes fit, and each node lists the tensors that
/// its operator owns. It is immutable, since these facts depend on each other.
///
/// It crosses the plugin interface and is stored in checkpoints as JSON; reading it checks all of this again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Graph {
    inputs: Vec<Input>,
    nodes: Vec<Node>,
    output: String,
    /// The index of each node.
    #[serde(skip_serializing)]
    positions: HashMap<String, usize>,
}

/// An operator applied to earlier values. A node produces one value, which has the node's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique in the graph: `conv1`, `residual1.bn2`.
    pub name: String,
    /// The operator.
    pub op: Op,
    /// The names of the inputs or nodes whose values it reads.
    pub inputs: Vec<String>,
    /// The shape of its output for one sample, without the batch dimension.
    pub shape: Vec<i64>,
    /// The tensors that training changes.
    pub parameters: Vec<TensorSpec>,
    /// The other tensors of the model's state.
    pub buffers: Vec<TensorSpec>,
    /// The initialization of its weights, if it is not PyTorch's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialization: Option<WeightInitialization>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    inputs: Vec<Input>,
    nodes: Vec<Node>,
    output: String,
}

impl TryFrom<Unchecked> for Graph {
    type Error = ModelError;

    fn try_from(read: Unchecked) -> Result<Graph, ModelError> {
        let mut builder = GraphBuilder::default();
        for input in read.inputs {
            builder.input(input)?;
        }
        for node in read.nodes {
            let inputs: Vec<&str> = node.inputs.iter().map(String::as_str).collect();
            let tensors: Vec<&str> =
                node.parameters.iter().chain(&node.buffers).map(|tensor| tensor.name.as_str()).collect();
            let (name, op) = (node.name.clone(), node.op.clone());
            builder.add(&LayerPath::default(), name, op, &inputs, node.initialization, Some(&tensors))?;
            let derived = builder.nodes.last();
            for (what, same) in [
                ("shape", derived.is_some_and(|derived| derived.shape == node.shape)),
                ("parameters", derived.is_some_and(|derived| derived.parameters == node.parameters)),
                ("buffers", derived.is_some_and(|derived| derived.buffers == node.buffers)),
            ] {
                if !same {
                    return Err(ModelError::Inconsistent { node: node.name, what });
                }
            }
        }
        builder.finish(&read.output)
    }
}

impl Graph {
    /// The inputs of the model, in the order of a batch: the samples first.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The nodes, each after those that it reads.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The name of the model's output value.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// The shape of the output for one sample.
    pub fn output_shape(&self) -> &[i64] {
        self.shape(&self.output).unwrap_or_default()
    }

    /// The index of a node in [`Graph::nodes`].
    pub fn node_index(&self, name: &str) -> Result<usize, ModelError> {
        self.positions.get(name).copied().ok_or_else(|| ModelError::UnknownNode { name: name.to_owned() })
    }

    /// Every parameter and buffer with its shape, in the order of the nodes: one that nodes share is there once.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorSpec> {
        once(self.nodes.iter().flat_map(|node| node.parameters.iter().chain(&node.buffers)))
    }

    /// Every parameter, as in [`Graph::tensors`].
    pub fn parameters(&self) -> impl Iterator<Item = &TensorSpec> {
        once(self.nodes.iter().flat_map(|node| &node.parameters))
    }

    /// Every buffer, as in [`Graph::tensors`].
    pub fn buffers(&self) -> impl Iterator<Item = &TensorSpec> {
        once(self.nodes.iter().flat_map(|node| &node.buffers))
    }

    /// The number of values that training changes.
    pub fn parameter_count(&self) -> u64 {
        self.parameters().fold(0, |count: u64, parameter| count.saturating_add(element_count(&parameter.shape)))
    }

    /// The first node that normalizes by the batch and has one value of each channel in a sample: it cannot train on a
    /// batch of one sample.
    pub fn normalizes_single_values(&self) -> Option<&Node> {
        let is_single = |node: &&Node| node.shape.iter().skip(1).all(|length| *length == 1);
        self.nodes.iter().filter(|node| matches!(node.op, Op::BatchNorm { .. })).find(is_single)
    }

    /// Floating-point operations of one forward pass over one sample; a multiplication and an addition count as two.
    pub fn flops_per_sample(&self) -> u64 {
        self.nodes.iter().fold(0, |flops: u64, node| flops.saturating_add(self.node_flops(node)))
    }

    /// Floating-point operations of one of its nodes in one forward pass over one sample.
    pub fn node_flops(&self, node: &Node) -> u64 {
        let input = node.inputs.first().and_then(|value| self.shape(value)).unwrap_or_default();
        node.op.flops(input, &node.shape)
    }

    /// The shape of a value: of an input, or of a node's output.
    pub fn shape(&self, value: &str) -> Option<&[i64]> {
        let node = self.positions.get(value).and_then(|index| self.nodes.get(*index)).map(|node| &node.shape);
        node.or_else(|| Some(&self.inputs.iter().find(|input| input.name == value)?.shape)).map(Vec::as_slice)
    }
}

/// Builds a [`Graph`] node by node, each checked as it is added.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    inputs: Vec<Input>,
    nodes: Vec<Node>,
    /// The shape and dtype of every value by its name.
    values: HashMap<String, (Vec<i64>, Dtype)>,
    /// The tensors so far, and whether each is a buffer.
    tensors: HashMap<String, (TensorSpec, bool)>,
    /// Of all of them.
    bytes: i64,
}

impl GraphBuilder {
    /// Adds an input.
    pub fn input(&mut self, input: Input) -> Result<(), ModelError> {
        self.declare(&input.name, input.shape.clone(), input.dtype)?;
        self.inputs.push(input);
        Ok(())
    }

    /// Adds a node that reads the values `inputs`. `path` is its place in the run file, for errors; `initialization` is
    /// that of its weights, if it is not PyTorch's default.
    pub fn node(
        &mut self,
        path: &LayerPath,
        name: String,
        op: Op,
        inputs: &[&str],
        initialization: Option<WeightInitialization>,
    ) -> Result<(), ModelError> {
        self.add(path, name, op, inputs, initialization, None)
    }

    /// Adds a node over tensors with names of their own, parameters first; nodes with the same name share the tensor.
    pub fn node_over(&mut self, name: String, op: Op, inputs: &[&str], tensors: &[&str]) -> Result<(), ModelError> {
        self.add(&LayerPath::default(), name, op, inputs, None, Some(tensors))
    }

    fn add(
        &mut self,
        path: &LayerPath,
        name: String,
        op: Op,
        inputs: &[&str],
        initialization: Option<WeightInitialization>,
        tensors: Option<&[&str]>,
    ) -> Result<(), ModelError> {
        if self.nodes.len() == MAXIMUM_NODES {
            return Err(ModelError::TooManyNodes { limit: MAXIMUM_NODES });
        }
        let (least, most) = op.input_counts();
        if !(least..=most).contains(&inputs.len()) {
            return Err(ModelError::InputCount {
                node: name,
                operator: op.name(),
                expected: least,
                found: inputs.len(),
            });
        }
        let shapes = inputs.iter().map(|value| self.shape(&name, value)).collect::<Result<Vec<_>, _>>()?;
        for value in inputs {
            let dtype = self.values.get(*value).map_or(Dtype::F32, |(_, dtype)| *dtype);
            if dtype != op.input_dtype() {
                return Err(ModelError::Dtype { path: path.clone(), name, operator: op.name(), found: dtype });
            }
        }
        if initialization.is_some_and(|initialization| !initialization.is_valid()) {
            return Err(ModelError::Option {
                path: path.clone(),
                name,
                operator: op.name(),
                option: "initialization",
                value: "its number".to_owned(),
                expected: "at least 0 and finite",
            });
        }
        let shape = op.output_shape(&shapes).map_err(|misfit| placed(misfit, path, &name, &op))?;
        let (mut parameters, mut buffers) =
            (specifications(&name, op.parameters()), specifications(&name, op.buffers()));
        if let Some(tensors) = tensors {
            let own = parameters.iter_mut().chain(&mut buffers);
            if own.zip(tensors).map(|(own, given)| (*given).clone_into(&mut own.name)).count() != tensors.len()
                || tensors.len() != parameters.len() + buffers.len()
            {
                return Err(ModelError::Inconsistent { node: name, what: "tensors" });
            }
        }
        let too_large = |what: &str, shape: &[i64]| ModelError::TooLarge {
            path: path.clone(),
            name: name.clone(),
            operator: op.name(),
            what: what.to_owned(),
            shape: shape.to_vec(),
        };
        bytes(&shape).ok_or_else(|| too_large("an output", &shape))?;
        for (place, tensor) in parameters.iter().chain(&buffers).enumerate() {
            let is_buffer = place >= parameters.len();
            match self.tensors.get(&tensor.name) {
                // Shared with another node.
                Some((known, is_known_buffer)) if known == tensor && is_buffer == *is_known_buffer => continue,
                Some(_) => return Err(ModelError::Inconsistent { node: name, what: "tensors" }),
                None => self.tensors.insert(tensor.name.clone(), (tensor.clone(), is_buffer)),
            };
            let all = bytes(&tensor.shape).and_then(|bytes| self.bytes.checked_add(bytes));
            self.bytes = all.ok_or_else(|| too_large(&format!("`{}`", tensor.name), &tensor.shape))?;
        }
        self.declare(&name, shape.clone(), op.output_dtype())?;
        self.nodes.push(Node {
            parameters,
            buffers,
            inputs: inputs.iter().map(|input| (*input).to_owned()).collect(),
            name,
            op,
            shape,
            initialization,
        });
        Ok(())
    }

    /// The shape of a value; the error for a missing value names `reader`.
    pub fn shape(&self, reader: &str, value: &str) -> Result<&[i64], ModelError> {
        self.values
            .get(value)
            .map(|(shape, _)| shape.as_slice())
            .ok_or_else(|| ModelError::UnknownValue { node: reader.to_owned(), value: value.to_owned() })
    }

    /// The dtype of a value.
    pub fn dtype(&self, value: &str) -> Option<Dtype> {
        self.values.get(value).map(|(_, dtype)| *dtype)
    }

    /// The graph whose output is the value `output`.
    pub fn finish(self, output: &str) -> Result<Graph, ModelError> {
        if self.nodes.is_empty() {
            return Err(ModelError::Empty);
        }
        self.shape("output", output)?;
        let positions = self.nodes.iter().enumerate().map(|(index, node)| (node.name.clone(), index)).collect();
        Ok(Graph { inputs: self.inputs, nodes: self.nodes, output: output.to_owned(), positions })
    }

    fn declare(&mut self, name: &str, shape: Vec<i64>, dtype: Dtype) -> Result<(), ModelError> {
        match self.values.insert(name.to_owned(), (shape, dtype)) {
            None => Ok(()),
            Some(_) => Err(ModelError::DuplicateName { name: name.to_owned() }),
        }
    }
}

/// The bytes of so many numbers of 64 bits, the largest that a tensor has; `None` if libtorch's `int64_t` cannot count them.
fn bytes(shape: &[i64]) -> Option<i64> {
    shape.iter().try_fold(size_of::<i64>() as i64, |bytes, size| bytes.checked_mul(*size))
}

/// Those of different names.
fn once<'g>(tensors: impl Iterator<Item = &'g TensorSpec>) -> impl Iterator<Item = &'g TensorSpec> {
    let mut names = HashSet::new();
    tensors.filter(move |tensor| names.insert(tensor.name.as_str()))
}

fn specifications(node: &str, tensors: Vec<OwnedTensor>) -> Vec<TensorSpec> {
    tensors
        .into_iter()
        .map(|tensor| TensorSpec { name: format!("{node}.{}", tensor.name), shape: tensor.shape, dtype: tensor.dtype })
        .collect()
}

fn placed(misfit: Misfit, path: &LayerPath, name: &str, op: &Op) -> ModelError {
    let (path, name, operator) = (path.clone(), name.to_owned(), op.name());
    match misfit {
        Misfit::Shape { expected, found } => ModelError::Shape { path, name, operator, expected, found },
        Misfit::Option { option, value, expected } => {
            ModelError::Option { path, name, operator, option, value, expected }
        }
    }
}
