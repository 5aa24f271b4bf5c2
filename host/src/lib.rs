//! A training host: owns a libtorch training loop and loads callback plugins at run time.

pub mod checkpoint;
pub mod config;
pub mod record;
pub mod report;
