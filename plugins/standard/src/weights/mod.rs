//! Callbacks that average, keep, clip or measure the weights and their gradients.

mod average;
pub(crate) mod ema;
pub(crate) mod gradient_clip;
pub(crate) mod save_best;
pub(crate) mod swa;
mod values;
