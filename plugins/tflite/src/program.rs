//! A program of the runtime: tensors, and operators in the order in which they run.

use std::borrow::Cow;
use std::sync::Arc;

use export::Weights;
use plugin_api::Result;

use crate::builtin::{Activation, Builtin, Scalar};
use crate::lower::permuted;

/// The index of a tensor in a program.
pub(crate) type TensorId = usize;

/// Computes a constant from the weights during an export; it borrows what it does not change.
pub(crate) type Recipe = Arc<dyn for<'w> Fn(&Weights<'w>) -> Result<Cow<'w, [f32]>> + Send + Sync>;

/// What is added to the name of a weight that is stored in 16 bits.
pub(crate) const HALF: &str = "/half";

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    I8,
    I32,
    I64,
    Bool,
}

impl Element {
    /// Its number in the format.
    pub(crate) fn code(self) -> i8 {
        match self {
            Element::F32 => 0,
            Element::F16 => 1,
            Element::I32 => 2,
            Element::I64 => 4,
            Element::Bool => 6,
            Element::I8 => 9,
        }
    }

    pub(crate) fn bytes(self) -> u64 {
        match self {
            Element::I8 | Element::Bool => 1,
            Element::F16 => 2,
            Element::F32 | Element::I32 => 4,
            Element::I64 => 8,
        }
    }
}

/// The content of a constant.
#[derive(Clone)]
pub(crate) enum Content {
    F32(Vec<f32>),
    I8(Vec<i8>),
    I32(Vec<i32>),
    Weight(Recipe),
}

/// How integers represent numbers: one scale, or one for each index along `axis`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantization {
    pub(crate) scales: Vec<f32>,
    pub(crate) zero_point: i32,
    pub(crate) axis: usize,
}

/// The node of the graph whose value a tensor has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) node: String,
    pub(crate) operator: &'static str,
    /// For each dimension of the tensor, that of the node's value, the batch first; `None` if the elements of a
    /// flattened value are in another order.
    pub(crate) dims: Option<Vec<usize>>,
}

/// A value or a constant.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// With a batch of 1 first, if there is a batch.
    pub(crate) shape: Vec<i32>,
    pub(crate) element: Element,
    /// `None`: a value that the program computes.
    pub(crate) content: Option<Content>,
    /// Whether the first dimension is the batch.
    pub(crate) is_batched: bool,
    pub(crate) quantization: Option<Quantization>,
    /// `None`: a value that is not in the graph.
    pub(crate) origin: Option<Origin>,
}

impl Tensor {
    /// The name of the node that a weight belongs to.
    pub(crate) fn weight_name(&self) -> &str {
        let name = self.name.strip_suffix(HALF).unwrap_or(&self.name);
        name.rsplit_once('/').map_or(name, |(node, _)| node)
    }

    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().map(|length| u64::from(length.unsigned_abs())).product()
    }
}

/// An operator with its inputs and outputs.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub(crate) builtin: Builtin,
    /// Slot and value, without the activation.
    pub(crate) options: Vec<(u16, Scalar)>,
    pub(crate) activation: Activation,
    /// `None`: an optional input that is missing.
    pub(crate) inputs: Vec<Option<TensorId>>,
    pub(crate) outputs: Vec<TensorId>,
    /// The node of the graph that it is a part of.
    pub(crate) node: String,
}

/// The whole program.
#[derive(Clone, Default)]
pub(crate) struct Program {
    pub(crate) tensors: Vec<Tensor>,
    /// Before the model: the normalization of the data, if it is included. It computes `taken` from the input.
    pub(crate) front: Vec<Operator>,
    /// The model: it computes `given` from `taken`.
    pub(crate) operators: Vec<Operator>,
    /// After the model: what turns its output into probabilities, and then into classes, if they are included.
    pub(crate) ending: Vec<Operator>,
    pub(crate) inputs: Vec<TensorId>,
    pub(crate) taken: TensorId,
    pub(crate) given: TensorId,
    pub(crate) output: TensorId,
    /// The prefix of new tensors' names.
    pub(crate) scope: String,
}

impl Program {
    /// Adds a tensor named after the node that is being lowered.
    pub(crate) fn tensor(&mut self, shape: &[i32], element: Element, content: Option<Content>) -> TensorId {
        let id = self.tensors.len();
        let name = format!("{}/{id}", self.scope);
        let is_batched = content.is_none();
        let shape = shape.to_vec();
        self.tensors.push(Tensor { name, shape, element, content, is_batched, quantization: None, origin: None });
        id
    }

    pub(crate) fn integers(&mut self, values: &[i32]) -> TensorId {
        self.tensor(&[values.len() as i32], Element::I32, Some(Content::I32(values.to_vec())))
    }

    pub(crate) fn numbers(&mut self, shape: &[i32], values: Vec<f32>) -> TensorId {
        self.tensor(shape, Element::F32, Some(Content::F32(values)))
    }

    pub(crate) fn weight(&mut self, shape: &[i32], recipe: Recipe) -> TensorId {
        self.tensor(shape, Element::F32, Some(Content::Weight(recipe)))
    }

    /// Adds an operator with one output of `shape`, which is f32.
    pub(crate) fn apply(
        &mut self,
        builtin: Builtin,
        options: &[(u16, Scalar)],
        inputs: &[TensorId],
        shape: &[i32],
    ) -> TensorId {
        let output = self.tensor(shape, Element::F32, None);
        let inputs = inputs.iter().copied().map(Some).collect();
        self.push(builtin, options, inputs, vec![output]);
        output
    }

    pub(crate) fn push(
        &mut self,
        builtin: Builtin,
        options: &[(u16, Scalar)],
        inputs: Vec<Option<TensorId>>,
        outputs: Vec<TensorId>,
    ) {
        let (options, node) = (options.to_vec(), self.scope.clone());
        self.operators.push(Operator { builtin, options, activation: Activation::None, inputs, outputs, node });
    }

    pub(crate) fn shape(&self, tensor: TensorId) -> &[i32] {
        &self.tensors[tensor].shape
    }

    /// All operators, in the order in which they run.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Operator> {
        self.front.iter().chain(&self.operators).chain(&self.ending)
    }

    /// The same with nothing before and after the model.
    pub(crate) fn model_only(mut self) -> Program {
        self.inputs = vec![self.taken];
        self.front.clear();
        self.without_ending()
    }

    /// The same with nothing after the model.
    pub(crate) fn without_ending(mut self) -> Program {
        self.output = self.given;
        self.ending.clear();
        self
    }

    /// The operator of the part in progress that computes a tensor.
    pub(crate) fn producer(&self, tensor: TensorId) -> Option<usize> {
        self.operators.iter().rposition(|operator| operator.outputs.contains(&tensor))
    }

    /// An operator on one value that keeps its shape.
    pub(crate) fn unary(&mut self, builtin: Builtin, options: &[(u16, Scalar)], input: TensorId) -> TensorId {
        let shape = self.shape(input).to_vec();
        self.apply(builtin, options, &[input], &shape)
    }

    /// An operator on two values with the shape of the first, to which the second is broadcast.
    pub(crate) fn binary(&mut self, builtin: Builtin, left: TensorId, right: TensorId) -> TensorId {
        let shape = self.shape(left).to_vec();
        self.apply(builtin, &[], &[left, right], &shape)
    }

    /// The same values in another shape, whose first dimension is the batch. Two reshapes in a row become one.
    pub(crate) fn reshape(&mut self, input: TensorId, shape: &[i32]) -> TensorId {
        // A constant is stored in the other shape.
        if self.shape(input) != shape
            && let Some(content) = self.tensors[input].content.clone()
        {
            return self.tensor(shape, self.tensors[input].element, Some(content));
        }
        let mut source = input;
        while let Some(operator) = self.producer(source).map(|place| &self.operators[place])
            && operator.builtin == Builtin::Reshape
            && let Some(Some(before)) = operator.inputs.first()
        {
            source = *before;
        }
        if self.shape(input) == shape {
            return input;
        }
        if self.shape(source) == shape {
            return source;
        }
        let target: Vec<i32> = std::iter::once(-1).chain(shape.iter().skip(1).copied()).collect();
        let target = self.integers(&target);
        self.apply(Builtin::Reshape, &[], &[source, target], shape)
    }

    /// The dimensions in another order: for each of the output, that of the input. The batch stays first. If only
    /// dimensions of length 1 move, it is a reshape.
    pub(crate) fn transpose(&mut self, input: TensorId, dims: &[usize]) -> TensorId {
        let shape: Vec<i32> = dims.iter().map(|dim| self.shape(input)[*dim]).collect();
        let long: Vec<usize> = dims.iter().copied().filter(|dim| *dim == 0 || self.shape(input)[*dim] != 1).collect();
        if long.is_sorted() {
            return self.reshape(input, &shape);
        }
        // A constant is stored in the other order.
        if let Some(Content::Weight(recipe)) = &self.tensors[input].content {
            let lengths = self.shape(input).iter().map(|length| i64::from(*length)).collect();
            let recipe = permuted(Arc::clone(recipe), lengths, dims.to_vec());
            return self.weight(&shape, recipe);
        }
        let dims: Vec<i32> = dims.iter().map(|dim| *dim as i32).collect();
        let dims = self.integers(&dims);
        self.apply(Builtin::Transpose, &[], &[input, dims], &shape)
    }

    /// Removes unused operators, and then unused tensors.
    pub(crate) fn prune(&mut self) {
        let mut is_read = vec![false; self.tensors.len()];
        for tensor in
            self.ending.iter().chain(&self.front).flat_map(|part| part.inputs.iter().flatten().chain(&part.outputs))
        {
            is_read[*tensor] = true;
        }
        is_read[self.given] = true;
        is_read[self.output] = true;
        let mut kept = Vec::with_capacity(self.operators.len());
        for operator in std::mem::take(&mut self.operators).into_iter().rev() {
            if operator.outputs.iter().any(|output| is_read[*output]) {
                for tensor in operator.inputs.iter().flatten().chain(&operator.outputs) {
                    is_read[*tensor] = true;
                }
                kept.push(operator);
            }
        }
        kept.reverse();
        for input in self.inputs.iter().chain([&self.taken]) {
            is_read[*input] = true;
        }
        let mut places = vec![0; self.tensors.len()];
        let mut tensors = Vec::new();
        for (place, tensor) in std::mem::take(&mut self.tensors).into_iter().enumerate() {
            if is_read[place] {
                places[place] = tensors.len();
                tensors.push(tensor);
            }
        }
        for operator in self.front.iter_mut().chain(&mut kept).chain(&mut self.ending) {
            operator.inputs.iter_mut().flatten().chain(&mut operator.outputs).for_each(|place| *place = places[*place]);
        }
        let ends = [&mut self.taken, &mut self.given, &mut self.output];
        self.inputs.iter_mut().chain(ends).for_each(|place| *place = places[*place]);
        (self.tensors, self.operators) = (tensors, kept);
    }
}
