//! Callbacks that average, keep, clip or measure the weights and their gradients.

mod average;
pub(crate) mod ema;
pub(crate) mod freeze;
pub(crate) mod gradient_clip;
pub(crate) mod gradient_stats;
pub(crate) mod save_best;
pub(crate) mod swa;
pub(crate) mod tensor_stats;
pub(crate) mod values;
pub(crate) mod weight_stats;
