//! Callbacks that watch for numbers that are wrong: NaN, infinity, and losses that jump.

pub(crate) mod check_numerics;
mod non_finite;
pub(crate) mod spike_detection;
pub(crate) mod terminate_on_nan;
