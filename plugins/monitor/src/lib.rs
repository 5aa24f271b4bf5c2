//! What monitors have in common: which metrics they show, and which way a metric improves.

mod direction;
mod pattern;

pub use direction::direction_of;
pub use pattern::{matches, selected};
