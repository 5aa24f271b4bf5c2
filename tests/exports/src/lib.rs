//! Compares exported models, run by common runtimes, with the model itself.
//!
//! A program can have only one plugin library, so each exporter has its own test programs.

mod coverage;
mod endings;
mod memory;
mod models;
mod reader;
#[path = "../../src/skipped.rs"]
mod skipped;
mod speed;
mod subject;

pub use coverage::{Coverage, outcome};
pub use endings::{Surrounded, assert_origin, surrounded};
pub use memory::{Counting, extra_memory};
pub use models::{
    Model, Other, Source, Values, has_room_for_large, large, limits, masks, of_several_inputs, operators, random_model,
    zoo,
};
pub use reader::{Reader, Runtime};
pub use skipped::skipped;
pub use speed::measure_speed;
pub use subject::Subject;
