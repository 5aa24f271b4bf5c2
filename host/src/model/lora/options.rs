//! The key `lora` of the run file.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[model] lora`: the model stays as it is, and pairs of small matrices beside some of its weights are trained (Hu et al. 2021).
/// The options have the meanings that they have in PEFT's `LoraConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraOptions {
    /// The rank of what is added to a weight (`r`).
    pub rank: NonZeroU32,
    /// What is added is the product of both matrices times `alpha / rank` (`lora_alpha`).
    #[serde(default = "alpha")]
    pub alpha: f64,
    /// The modules whose weights are adapted: patterns of their names or of the names of their weights, in which `*` stands for
    /// any text, such as `*.query`. Linear layers, 2-d convolutions without groups, and of multi-head attention the projection to
    /// queries, keys and values.
    pub targets: Vec<String>,
    /// Parameters that are trained themselves: patterns of their names, such as `head.*` for the last layer of other classes
    /// (`modules_to_save`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub train: Vec<String>,
}

/// PEFT's.
fn alpha() -> f64 {
    8.0
}
