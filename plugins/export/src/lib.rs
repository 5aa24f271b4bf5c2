//! What the exporters have in common: reading the weights, publishing files whole or not at all, comparing outputs.

mod comparison;
mod name;
mod publication;
mod weights;

pub use comparison::{Difference, difference};
pub use name::Template;
pub use publication::{PartialFile, Publication};
pub use weights::{Values, Weight, Weights};
