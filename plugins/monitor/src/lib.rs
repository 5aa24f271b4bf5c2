//! What monitors have in common: which metrics they show, and which way a metric improves.

mod pattern;

pub use pattern::selected;
