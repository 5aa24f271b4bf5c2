//! Tools for authors and users of plugins: `host plugins new`, `list`, `describe` and `check`.
//!
//! Invariant: nothing here uses the training loop or a tensor library. `check` drives plugins through the same
//! [`Dispatcher`](crate::dispatch::Dispatcher) as a run, with simulated services.

mod check;
mod command;
mod describe;
mod folders;
mod list;
mod new;
mod options;
mod output;

pub use check::{Check, CheckOptions, Checked, Finding, Scope, Verdict, check};
pub use command::{PluginsCommand, run};
pub use describe::describe;
pub use folders::Folders;
pub use list::list;
pub use new::{Language, NewError, NewOptions, new};
