//! Models with weights, their outputs by libtorch, and the runtimes that read what exporters write of them.

mod models;
mod reader;
mod subject;

pub use models::{Model, operators, random_model, zoo};
pub use reader::{Reader, Runtime};
pub use subject::Subject;
