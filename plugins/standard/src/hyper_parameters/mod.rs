//! The callbacks that set hyper-parameters of the optimizer.

pub(crate) mod human_hyperparams;
mod hyper_file;
pub(crate) mod lr_finder;
pub(crate) mod lr_schedule;
pub(crate) mod reduce_on_plateau;
pub(crate) mod target;
mod told;
