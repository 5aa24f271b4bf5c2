//! What can be wrong with an optimizer.

use crate::torch::TorchError;

/// An optimizer that cannot be made, set or restored.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum OptimizerError {
    /// A hyper-parameter is out of range.
    #[error("hyper-parameter `{name}` = `{value}` must be {expected}")]
    Range {
        /// Its name.
        name: String,
        /// The value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// The optimizer has no such hyper-parameter.
    #[error("the optimizer has no hyper-parameter `{name}`; it has {available}")]
    UnknownHyperParameter {
        /// The name.
        name: String,
        /// Those there are.
        available: String,
    },
    /// There is no such parameter group.
    #[error("the optimizer has no parameter group `{name}`; it has {available}")]
    UnknownGroup {
        /// The name.
        name: String,
        /// Those there are.
        available: String,
    },
    /// A state is restored that is not this optimizer's.
    #[error("the optimizer's state {what} `{name}`; it was saved by another optimizer or model")]
    StateMismatch {
        /// `lacks`, `has an unknown` or `has another shape or dtype for`.
        what: &'static str,
        /// The tensor.
        name: String,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// Names as messages list them.
pub(super) fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
