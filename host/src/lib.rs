//! The training host as a library.

pub mod data;
pub mod model;
pub mod torch;
pub mod train;
