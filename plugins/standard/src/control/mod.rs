//! The callbacks that steer the loop: when it ends, and what a person asks of it through files.

mod control_files;
mod duration;
pub(crate) mod early_stopping;
mod pause_watch;
pub(crate) mod remote_control;
pub(crate) mod shell;
pub(crate) mod time_limit;
