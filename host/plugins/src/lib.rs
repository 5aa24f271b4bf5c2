//! Finds plugin libraries, checks them before and after they are opened, and holds what they make: in this process, or
//! each in one of its own ([`process`]).
//!
//! Invariant: a library is never closed, and never loaded twice in a process. Thread-local
//! destructors, statics and tickets of a closed library would be dangling; restart the host instead.
//!
//! Invariant: this module names no tensor library and nothing of the training loop.

mod catalogue;
pub mod checksum;
mod descriptor_cache;
mod entry;
mod error;
mod float_control;
mod inspect;
mod instance;
mod library;
pub mod lock;
mod log;
pub mod neighbors;
pub mod package;
#[cfg(unix)]
mod private_copy;
pub mod process;
pub mod python;
pub mod regular_file;
mod search;
pub mod trust;

pub use catalogue::{Catalogue, Kind, Rejected};
pub use entry::Entry;
pub use error::{CatalogueError, LoadError};
pub use float_control::{FloatControl, Rounding};
pub use inspect::this_target;
pub use instance::{ENDED, Fault, Instance};
pub use library::Library;
pub use library::reply_into;
pub use process::Isolation;
pub use python::Python;
pub use search::{Found, VARIABLE};
