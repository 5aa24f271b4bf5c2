//! What monitors have in common: which metrics they show, confusion matrices, and pictures.

mod confusion;
mod pattern;
mod picture;

pub use confusion::{Confusion, ConfusionMatrix};
pub use pattern::selected;
pub use picture::encode_png;
