//! `kubeflow`: reports progress, the time left and metrics to Kubeflow Trainer, which shows them in
//! `status.trainerStatus` of the TrainJob.
//!
//! The controller says in the environment of each pod where to send (`options.rs`), if its feature gate
//! `TrainJobStatus` is on. Hooks hand a status to a thread of the plugin (`reporter.rs`), which sends the latest one
//! (`client.rs`) in the format of the controller (`status.rs`). A status that cannot be sent is a warning, and never
//! fails a run. The token is in no message: neither in a log, nor in an error, nor in the run folder.

mod callback;
mod client;
mod options;
mod reporter;
mod status;
#[cfg(test)]
mod tests;

use plugin_api::{Kind, plugin};

pub use crate::callback::Kubeflow;
pub use crate::options::Options;

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Kubeflow>()];
