//! Tools for those who write and use plugins: `host plugins new`, `list`, `describe` and `check`.
//!
//! Invariant: nothing here knows the training loop or a tensor library. `check` drives plugins through the same
//! [`Dispatcher`](crate::dispatch::Dispatcher) as a run, with services that it makes up.

mod check;
mod command;
mod describe;
mod list;
mod new;
mod options;

pub use check::{Check, CheckOptions, Checked, Finding, Scope, Verdict, check};
pub use command::{PluginsCommand, run};
pub use describe::describe;
pub use list::list;
pub use new::{Language, NewError, NewOptions, new};
