//! Errors about a model.

use std::fmt;

use super::op::Dtype;
use crate::torch::TorchError;

/// The place of a layer in the run file: lists and indices from the outermost `layers` inward. A list without a name is
/// one inside another list, such as a branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerPath(pub Vec<(&'static str, usize)>);

impl LayerPath {
    /// The layer's place in `[model]` as a JSON pointer: `/layers/2/branches/0/1`.
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
    /// A layer does not accept the output of the layer before it.
    #[error("`{path}` (`{name}`, {operator}) expects {expected}, but gets {found}", found = shape_text(found))]
    Shape {
        /// Its place in the run file; empty for a graph from a file.
        path: LayerPath,
        /// The node's name.
        name: String,
        /// The operator.
        operator: &'static str,
        /// The shape that it accepts.
        expected: String,
        /// The shape of one sample that it gets.
        found: Vec<i64>,
    },
    /// A layer reads tokens as numbers, or numbers as tokens.
    #[error("`{path}` (`{name}`, {operator}) {}", match found {
        Dtype::I64 => "expects numbers, but gets tokens: an `embedding` turns them into vectors",
        Dtype::F32 => "expects tokens, but gets numbers",
    })]
    Dtype {
        /// Its place in the run file; empty for a graph from a file.
        path: LayerPath,
        /// The node's name.
        name: String,
        /// The operator.
        operator: &'static str,
        /// The dtype that it gets.
        found: Dtype,
    },
    /// A layer's option is out of range.
    #[error("`{path}` (`{name}`, {operator}) has `{option}` = `{value}`, which must be {expected}")]
    Option {
        /// Its place in the run file; empty for a graph from a file.
        path: LayerPath,
        /// The node's name.
        name: String,
        /// The operator.
        operator: &'static str,
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// The values that it may have.
        expected: &'static str,
    },
    /// A value or a tensor of a node has more bytes than libtorch can count, or all parameters together have.
    #[error("`{path}` (`{name}`, {operator}) makes {what} of shape {shape:?}: 64 bits cannot count its bytes")]
    TooLarge {
        /// Its place in the run file; empty for a graph from a file.
        path: LayerPath,
        /// The node's name.
        name: String,
        /// The operator.
        operator: &'static str,
        /// `an output`, or the tensor.
        what: String,
        /// Its shape; of an output, for one sample.
        shape: Vec<i64>,
    },
    /// A layer's `name` has characters that names cannot have.
    #[error(
        "`{path}` has the name `{name}`; a name consists of letters, digits and `_`, or is a path of such names, as in `net.0`"
    )]
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
    /// A graph reads a value that is neither an input nor that of an earlier node.
    #[error("node `{node}` of the graph reads `{value}`, which is neither an input nor an earlier node")]
    UnknownValue {
        /// The node, or `output`.
        node: String,
        /// The value.
        value: String,
    },
    /// A node has the wrong number of inputs.
    #[error("node `{node}` ({operator}) takes {expected} inputs, but has {found}")]
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
    /// A graph from a file states a shape or tensor that its operators do not produce.
    #[error("the {what} of node `{node}` does not match its operator; the graph was edited or is damaged")]
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
    /// The model is no graph and has none, so it has no nodes.
    #[error("the model has no graph: {reason}")]
    NoGraph {
        /// Why.
        reason: String,
    },
    /// A program's forward pass, that of a TorchScript module or of an exported program, failed.
    #[error("the model's forward pass failed: {message}")]
    Forward {
        /// The error's message.
        message: String,
    },
    /// A model's output does not have one value per sample.
    #[error(
        "the model returns shape {found:?} for a batch of {samples} samples; the first dimension must be the batch"
    )]
    Output {
        /// The samples of the batch.
        samples: i64,
        /// The shape of the output.
        found: Vec<i64>,
    },
    /// A program's own loss is no single number.
    #[error("the model's own loss has shape {found:?}; it must be a single number, the mean over the batch")]
    Loss {
        /// Its shape.
        found: Vec<i64>,
    },
    /// A name that a tensor of a model cannot have.
    #[error("a tensor of the model is named `{name}`; a name must not be empty or contain `/`")]
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
    #[error("no tensor of the model requires a gradient, so there is nothing to train")]
    NothingToTrain,
    /// A value for a tensor has another shape or dtype.
    #[error(
        "tensor `{name}` has shape {expected:?} and dtype {expected_kind:?}, but the value has {found:?} and {found_kind:?}"
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
        "`{node}` (batch_norm) cannot train on one value per channel; make `batch_size` larger, or leave out a last batch of one sample with `[data] drop_last = true`"
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
        /// The message of libtorch.
        source: TorchError,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl ModelError {
    /// The layer with the error, if there is one.
    pub fn path(&self) -> Option<&LayerPath> {
        match self {
            ModelError::Shape { path, .. }
            | ModelError::Dtype { path, .. }
            | ModelError::Option { path, .. }
            | ModelError::TooLarge { path, .. }
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

/// A shape as written in a run file; a single number is called a vector.
fn shape_text(shape: &[i64]) -> String {
    match shape {
        [] => "a single number".to_owned(),
        [length] => format!("a vector of {length} values"),
        dimensions => format!("shape {dimensions:?}"),
    }
}
