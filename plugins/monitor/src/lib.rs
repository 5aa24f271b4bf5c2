//! What monitors have in common: which metrics they show, and confusion matrices.

mod confusion;
mod pattern;

pub use confusion::{Confusion, ConfusionMatrix};
pub use pattern::selected;
