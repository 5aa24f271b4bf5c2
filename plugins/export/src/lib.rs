//! What the exporters have in common: reading the weights, publishing complete files, comparing outputs.

mod calibration;
mod comparison;
mod finite;
mod graph;
mod name;
mod normalization;
mod origin;
mod outputs;
mod publication;
mod safetensors;
mod samples;
mod weights;

pub use calibration::{Affine, Range, Ranges, symmetric_code, symmetric_scale};
pub use comparison::{Difference, difference};
pub use finite::{Precision, check_finite};
pub use graph::graph;
pub use name::Template;
pub use normalization::Normalization;
pub use origin::Origin;
pub use outputs::{Added, Ending, Include, Outputs};
pub use publication::{PartialFile, Publication, remove_unfinished};
pub use safetensors::write_safetensors;
pub use samples::{Samples, TRAIN, Value, predict};
pub use weights::{Values, Weight, Weights, write_numbers};
