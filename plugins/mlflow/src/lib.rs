//! `mlflow`: logs a run to an MLflow tracking server, with its parameters, metrics and artifacts.
//!
//! Hooks put messages into a queue; a thread of the plugin sends them in batches and keeps what it cannot send. So a
//! slow
//! or unreachable server costs the run only that memory, and the end of the run at most `drain` seconds.
//!
//! The server's address comes from the options or from `MLFLOW_TRACKING_URI`; secrets come only from
//! `MLFLOW_TRACKING_TOKEN`, or from `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`.

mod artifacts;
mod callback;
mod client;
mod model;
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
