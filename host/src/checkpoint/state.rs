//! `state.json`: what a resumed run needs in addition to tensors and the plugins' states.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::history::{Exact, History, Position};

/// The state of a run at a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The point of the training.
    pub position: Position,
    /// Threads of one tensor operation: sums depend on it, so a resumed run uses the same number.
    pub threads: usize,
    /// Every hyper-parameter of every parameter group, with its owner.
    pub hyper_parameters: Vec<HyperParameter>,
    /// What the host's modules keep in addition, by module (`dispatch`: the state of each callback; `train`: the sums
    /// of the epoch). Floats in it must be [`Exact`], since JSON may lose their last bit.
    pub modules: BTreeMap<String, serde_json::Value>,
    /// Every value of every metric.
    pub history: History,
}

/// A hyper-parameter's value and who sets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HyperParameter {
    /// The parameter group, from 0.
    pub group: usize,
    /// Its name, such as `learning_rate`.
    pub name: String,
    /// Its value.
    pub value: Exact,
    /// The plugin instance that has set it; `None` while the host's schedule sets it.
    pub owner: Option<String>,
}
