//! Tools for authors and users of plugins: `host plugins new`, `list`, `describe`, `check`, `lock`, and those of packages.
//!
//! Invariant: nothing here uses the training loop or a tensor library. `check` drives plugins through the same
//! [`Dispatcher`](crate::dispatch::Dispatcher) as a run, with simulated services.

mod check;
mod command;
mod describe;
mod folders;
mod list;
mod lock;
mod new;
mod options;
mod output;
mod packages;

pub use check::{Checked, Finding, Verdict, check};
pub use command::run;
pub use describe::describe;
pub use folders::find as find_plugins;
pub use list::list;
pub use new::{NewError, new};
