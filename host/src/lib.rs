//! A training host: owns a libtorch training loop and loads callback plugins at run time.

pub mod author;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod console;
pub mod data;
pub mod dispatch;
pub mod distributed;
pub mod expression;
pub mod history;
pub mod job;
mod mapped_file;
pub mod model;
mod refusal;
mod regular_file;
pub mod run_file;
pub mod services;
pub mod torch;
pub mod train;
mod weights_file;

pub use host_command::report;
pub use host_plugins as plugins;
