//! The callbacks that set hyper-parameters of the optimizer.

pub(crate) mod lr_schedule;
mod target;
