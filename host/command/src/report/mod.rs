//! The renderer of all errors.
//!
//! Every module has its own typed errors; people always read a [`Problem`]: a message, the places in a file (or on the
//! command line) that it is about, the chain of causes, and what to do next.
//! A typed error becomes one through [`Report`], which adds the next step to what [`std::error::Error`] says.
//! [`render`] writes any number of them as one text, [`ProblemJson`] is one for programs.

mod json;
mod printable;
mod problem;
mod render;
pub mod table;
pub mod terminal;

pub use json::ProblemJson;
pub use plugin_api::services::{did_you_mean, list_names as list, nearest};
pub use printable::{Colors, Printable, printable, printable_line};
pub use problem::{Label, Problem, Problems, Report, Source};
pub use render::{Style, render};
