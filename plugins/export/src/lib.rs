//! What the exporters have in common: reading the weights, publishing complete files, comparing outputs.

mod calibration;
mod comparison;
mod name;
mod publication;
mod samples;
mod weights;

pub use calibration::{Affine, Range, Ranges, symmetric_code, symmetric_scale};
pub use comparison::{Difference, difference};
pub use name::Template;
pub use publication::{PartialFile, Publication};
pub use samples::{Samples, Value, predict};
pub use weights::{Values, Weight, Weights, write_numbers};
