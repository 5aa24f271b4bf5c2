//! Callbacks that average, keep, clip or measure the weights and their gradients.

mod average;
pub(crate) mod ema;
mod values;
