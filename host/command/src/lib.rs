//! What `host` does without libtorch: its command line, how problems are shown, and the folders of runs as other processes
//! see and steer them.
//!
//! Invariant: nothing here loads libtorch or a plugin, so that a command that only looks starts within milliseconds.

pub mod arguments;
mod commands;
pub mod engine;
pub mod launch;
pub mod report;
pub mod runs;
pub mod stdout;

pub use commands::{cannot, main, print, print_data, print_problems, print_refused, refused, run};
