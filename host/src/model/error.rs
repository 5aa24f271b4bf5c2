//! What can be wrong with a model.

use std::fmt;

use super::op::Dtype;
use crate::torch::TorchError;

/// Where a layer stands in the run file: lists and indices from the outermost `layers` inwards. A list without a name is
/// one within a list, such as a branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerPath(pub Vec<(&'static str, usize)>);

impl LayerPath {
    /// The layer's place below `[model]` as a JSON pointer: `/layers/2/branches/0/1`.
    pub fn pointer(&self) -> String {
        let step = |(list, index): &(&str, usize)| match *list {
            "" => format!("/{index}"),
            list => format!("/{list}/{index}"),
        };
        self.0.iter().map(step).collect()
    }
}

impl fmt::Display for LayerPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, (list, index)) in self.0.iter().enumerate() {
            let dot = if depth == 0 || list.is_empty() { "" } else { "." };
            write!(formatter, "{dot}{list}[{index}]")?;
        }
        Ok(())
    }
}

/// A model that cannot be built, or a tensor that does not fit it.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum ModelError {
    /// `[model] layers` is empty.
    #[error("the model has no layers")]
    Empty,
    /// A layer cannot take what the layer before it gives.
    #[error("`{path}` (`{name}`, {operator}) expects {expected}, but gets {found}", found = shape_text(found))]
    Shape {
        /// Its place in the run file; empty for a graph that was read from a file.
        path: LayerPath,
        /// The node's name.
        name: String,
        /// The operator.
        operator: &'static str,
        /// What it takes.
        expected: String,
        /// The shape of one sample that it is given.
        found: Vec<i64>,
    },
    /// A layer reads tokens as numbers, or numbers as tokens.
    #[error("`{path}` (`{name}`, {operator}) {}", match found {
        Dtype::I64 => "expects numbers, but gets tokens: an `embedding` makes vectors of them",
        Dtype::F32 => "expects tokens, but gets numbers",
    })]
    Dtype {
        /// Its place in the run file; empty for a graph that was read from a file.
        path: LayerPath,
        /// The node's name.
        name: String,
        /// The operator.
        operator: &'static str,
        /// What it is given.
        found: Dtype,
    },
    /// A layer's option is out of range.
    #[error("`{path}` (`{name}`, {operator}) has `{option}` = `{value}`, which must be {expected}")]
    Option {
        /// Its place in the run file; empty for a graph that was read from a file.
        path: LayerPath,
        /// The node's name.
        name: String,
        /// The operator.
        operator: &'static str,
        /// The option.
        option: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A layer's `name` holds other characters than names may.
    #[error("`{path}` has the name `{name}`; a name starts with a letter and holds letters, digits and `_`")]
    InvalidName {
        /// Its place in the run file.
        path: LayerPath,
        /// The name.
        name: String,
    },
    /// Two nodes have one name.
    #[error("two nodes of the model are named `{name}`")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A block repeats more than a model can hold.
    #[error("the model has more than {limit} nodes")]
    TooManyNodes {
        /// The limit.
        limit: usize,
    },
    /// A graph names a value that no input and no earlier node gives.
    #[error("node `{node}` of the graph reads `{value}`, which nothing before it gives")]
    UnknownValue {
        /// The node, or `output`.
        node: String,
        /// The value.
        value: String,
    },
    /// A node has the wrong number of inputs.
    #[error("node `{node}` ({operator}) takes {expected} inputs and has {found}")]
    InputCount {
        /// The node.
        node: String,
        /// The operator.
        operator: &'static str,
        /// How many it takes.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// A graph that was read states another shape or tensor than its operators give.
    #[error("the {what} of node `{node}` is not what its operator gives; the graph was edited or is damaged")]
    Inconsistent {
        /// The node.
        node: String,
        /// `shape`, `parameters` or `buffers`.
        what: &'static str,
    },
    /// No parameter or buffer has this name.
    #[error("the model has no tensor `{name}`")]
    UnknownTensor {
        /// The name.
        name: String,
    },
    /// The graph has no node of this name.
    #[error("the model has no node `{name}`")]
    UnknownNode {
        /// The name.
        name: String,
    },
    /// The model is no graph, so that it has no nodes to look at.
    #[error("the model has no graph: it is a program's own, or a TorchScript module")]
    NoGraph,
    /// A program's forward pass, or that of a TorchScript module, failed.
    #[error("the model's forward pass failed: {message}")]
    Forward {
        /// What it said.
        message: String,
    },
    /// A model's output is not one value for each sample.
    #[error(
        "the model gives {found:?} for a batch of {samples} samples; the first dimension must be that of the batch"
    )]
    Output {
        /// The samples of the batch.
        samples: i64,
        /// The shape of the output.
        found: Vec<i64>,
    },
    /// A name that a tensor of a model cannot have.
    #[error("a tensor of the model is named `{name}`; a name is not empty and holds no `/`")]
    TensorName {
        /// The name.
        name: String,
    },
    /// Two tensors have one name.
    #[error("two tensors of the model are named `{name}`")]
    DuplicateTensor {
        /// The name.
        name: String,
    },
    /// No tensor of the model requires a gradient.
    #[error("no tensor of the model requires a gradient, so that there is nothing to train")]
    NothingToTrain,
    /// A tensor that is to be written has another shape or dtype.
    #[error(
        "tensor `{name}` has shape {expected:?} and dtype {expected_kind:?}, the value given has {found:?} and {found_kind:?}"
    )]
    TensorMismatch {
        /// The tensor's name.
        name: String,
        /// Its shape.
        expected: Vec<i64>,
        /// Its dtype.
        expected_kind: tch::Kind,
        /// The value's shape.
        found: Vec<i64>,
        /// The value's dtype.
        found_kind: tch::Kind,
    },
    /// The statistics of a batch need two values.
    #[error(
        "`{node}` (batch_norm) got one value per channel to train on; use a larger batch, or data whose last batch holds more than one sample"
    )]
    SingleValuePerChannel {
        /// The node.
        node: String,
    },
    /// libtorch failed while a node was executed.
    #[error("node `{node}` failed: {source}")]
    Execution {
        /// The node.
        node: String,
        /// What libtorch said.
        source: TorchError,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl ModelError {
    /// The layer that it is about, where there is one.
    pub fn path(&self) -> Option<&LayerPath> {
        match self {
            ModelError::Shape { path, .. }
            | ModelError::Dtype { path, .. }
            | ModelError::Option { path, .. }
            | ModelError::InvalidName { path, .. } => Some(path),
            _ => None,
        }
    }
}

impl From<tch::TchError> for ModelError {
    fn from(error: tch::TchError) -> ModelError {
        ModelError::Torch(error.into())
    }
}

/// A shape as it is written in a run file; a single number is called a vector.
fn shape_text(shape: &[i64]) -> String {
    match shape {
        [] => "a single number".to_owned(),
        [length] => format!("a vector of {length} values"),
        dimensions => format!("shape {dimensions:?}"),
    }
}
