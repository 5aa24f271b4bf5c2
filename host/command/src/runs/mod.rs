//! The folders of runs: how a process owns one, and what other processes see of it and ask of it.

pub mod control;
pub mod event;
pub mod folder;
pub mod history;
mod process;
pub mod ranks;
pub mod status;
mod sudden_end;
pub mod unfinished;

pub use process::Process;
pub use sudden_end::{CRASH_FILE, forget, sudden_end};
