//! What exporters write, read by the runtimes that people use, against what the model computes.
//!
//! A library of a plugin is one of a kind in a program, so that each exporter has test programs of its own.

mod coverage;
mod memory;
mod models;
mod reader;
#[path = "../../src/skipped.rs"]
mod skipped;
mod speed;
mod subject;

pub use coverage::{coverage, outcome, told};
pub use memory::{Counting, extra_memory};
pub use models::{Model, has_room_for_large, large, operators, random_model, zoo};
pub use reader::{Reader, Runtime};
pub use skipped::skipped;
pub use speed::measure_speed;
pub use subject::Subject;
