//! The precision of a step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The type that forward and backward compute in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16 where autocast allows it.
    Bf16,
}
