//! `mlflow`: a run on an MLflow tracking server, with its parameters, metrics and artifacts.
//!
//! Hooks put what there is to tell into a queue; a thread of the plugin's own sends it, in batches, and keeps what it
//! cannot send. So a server that is slow or away costs the run nothing but that memory, and the end of the run at most
//! `drain` seconds.
//!
//! The server's address comes from the options or from `MLFLOW_TRACKING_URI`; secrets come from
//! `MLFLOW_TRACKING_TOKEN`, or `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, alone.

mod artifacts;
mod callback;
mod client;
mod names;
mod note;
mod options;
#[cfg(test)]
mod server;
mod session;
mod uploader;

use plugin_api::{Kind, plugin};

pub use crate::callback::Mlflow;
pub use crate::options::Options;

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Mlflow>()];
