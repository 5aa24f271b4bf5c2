//! Write callback plugins for the training host.
#![deny(missing_docs)]

extern crate self as plugin_api;

pub mod abi;
mod callback;
mod error;
pub mod event;
#[doc(hidden)]
pub mod export;
mod log;
pub mod protocol;
mod remote;
mod run;
mod service;
mod state;
mod tensor;
pub mod testing;

pub use abi::kinds::{EventKind, ServiceKind};
pub use callback::{Callback, Creation, Dispatch, Need, NoOptions, Ranks, When};
pub use error::{Error, ErrorKind, Result};
pub use export::Kind;
pub use plugin_api_macros::plugin;
pub use remote::Remote;
pub use run::Run;
pub use state::{decode_state, encode_state};
pub use tensor::{Element, Tensor, TensorView};

// What `#[plugin]` expands to.
#[doc(hidden)]
pub use callback::HookSet;
#[doc(hidden)]
pub use {schemars, serde};
