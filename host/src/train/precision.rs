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
    /// 32-bit floats, whose products have 10 bits of mantissa instead of 23 on GPUs that have TensorFloat-32.
    Tf32,
    /// bfloat16 where autocast allows it.
    Bf16,
    /// 16-bit floats where autocast allows it, with a scaled loss, since small gradients would be zero: for GPUs that have no
    /// bfloat16. A step whose gradients are not finite is not updated, its `gradients` hooks are not called unless the loss
    /// itself is not finite, and the scale is halved; it is the metric `loss_scale`.
    Fp16,
}
