//! What can be wrong with an optimizer.

use crate::report::Report;
use crate::torch::TorchError;

/// An optimizer that cannot be created, set or restored.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum OptimizerError {
    /// A hyper-parameter is out of range.
    #[error("hyper-parameter `{name}` = `{value}` must be {expected}")]
    Range {
        /// Its name.
        name: String,
        /// The value.
        value: f64,
        /// What it must be.
        expected: &'static str,
    },
    /// A group has a learning rate of its own and a factor on the optimizer's.
    #[error("the parameter group `{group}` has both `learning_rate` and `learning_rate_factor`")]
    TwoLearningRates {
        /// The group.
        group: String,
    },
    /// Two groups have the same name, or one has the name reserved for parameters in no group.
    #[error("another parameter group has the name `{name}`")]
    GroupName {
        /// The name.
        name: String,
    },
    /// A group has no parameters.
    #[error("no parameter is in the group `{group}`: {why} `{pattern}`")]
    EmptyGroup {
        /// The group.
        group: String,
        /// The pattern.
        pattern: String,
        /// `none has a name like`, or that earlier groups have all of them.
        why: &'static str,
        /// The available names.
        parameters: Vec<String>,
    },
    /// `layer_decay` finds no layers.
    #[error("`layer_decay` finds no layers: no parameter's name has a number of its own")]
    NoLayers {
        /// The names.
        parameters: Vec<String>,
    },
    /// The optimizer has no such hyper-parameter.
    #[error("the optimizer has no hyper-parameter `{name}`; it has {available}")]
    UnknownHyperParameter {
        /// The name.
        name: String,
        /// The available ones.
        available: String,
    },
    /// There is no such parameter group.
    #[error("the optimizer has no parameter group `{name}`; it has {available}")]
    UnknownGroup {
        /// The name.
        name: String,
        /// The available ones.
        available: String,
    },
    /// The restored state does not belong to this optimizer.
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

impl OptimizerError {
    /// The option that it is about, if it is about one of the optimizer's own.
    pub fn key(&self) -> Option<&str> {
        match self {
            OptimizerError::Range { name, .. } if matches!(name.as_str(), "beta1" | "beta2") => Some("betas"),
            OptimizerError::Range { name, .. } => Some(name),
            OptimizerError::NoLayers { .. } => Some("layer_decay"),
            OptimizerError::TwoLearningRates { .. }
            | OptimizerError::GroupName { .. }
            | OptimizerError::EmptyGroup { .. } => Some("groups"),
            _ => None,
        }
    }
}

impl Report for OptimizerError {
    fn hint(&self) -> Option<String> {
        match self {
            OptimizerError::TwoLearningRates { .. } => Some("remove one of them".to_owned()),
            OptimizerError::GroupName { .. } => Some("give each group a `name` of its own".to_owned()),
            OptimizerError::EmptyGroup { parameters, .. } => {
                Some(format!("{}; `*` stands for any text", has(parameters)))
            }
            OptimizerError::NoLayers { parameters } => Some(format!(
                "{}; a layer is named like `blocks.0`, or has a group with its own factor",
                has(parameters)
            )),
            _ => None,
        }
    }
}

/// Some of the model's parameters.
fn has(parameters: &[String]) -> String {
    let shown = quoted(parameters.iter().take(SHOWN).map(String::as_str));
    format!("the model has {shown}{}", if parameters.len() > SHOWN { " and others" } else { "" })
}

/// How many names a hint lists.
const SHOWN: usize = 8;

pub(super) fn range(name: &str, value: f64, expected: &'static str) -> OptimizerError {
    OptimizerError::Range { name: name.to_owned(), value, expected }
}

/// Names as messages list them.
pub(super) fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
