//! The callbacks that steer the loop: when it ends, and what a person asks of it through files.

mod control_files;
mod duration;
pub(crate) mod early_stopping;
pub(crate) mod lambda;
pub(crate) mod limit_batches;
mod pause_watch;
pub(crate) mod remote_control;
pub(crate) mod shell;
pub(crate) mod step_eval;
pub(crate) mod time_limit;
