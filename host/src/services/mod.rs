//! The services that callbacks call: calls, who answers them, and what the answers have in common.
//!
//! One table, [`plugin_api::services`], defines what each service takes, returns and requires. Dispatch asks that table
//! whether a call is permitted and who answers it; the rest is the one trait [`Services`]. The training answers
//! from its parts (`train/answers`), a [`Snapshot`] from what was copied when an event fired, and the simulated run of
//! `host plugins check` from plain memory.
//!
//! Dependencies: `dispatch`, `train` and `author` use this module; it uses none of them.

mod error;
mod readings;
mod reply;
mod snapshot;

use std::collections::BTreeSet;
use std::sync::Arc;

use plugin_api::abi::TensorTable;
use plugin_api::abi::kinds::{EventKind, ServiceKind};
use plugin_api::protocol::ConsoleLine;
use plugin_api::services::Service;
use serde::de::DeserializeOwned;

use crate::expression::Surroundings;
use crate::history::LiveMetrics;

pub use error::ServiceError;
pub use readings::{WeightsOrigin, console, evaluate, history, metric, metric_points, metrics, run_info, weights_info};
pub use reply::{Lent, Reply, SharedTensor, contiguous_strides};
pub use snapshot::{Inference, Snapshot, WriteCheckpoint};

/// Answers services, on the training thread, and the expressions of `if`.
pub trait Services: Surroundings {
    /// Answers a call that the table permits.
    ///
    /// # Errors
    ///
    /// See [`ServiceError`]; the caller's hook continues with it.
    fn answer(&mut self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), ServiceError>;

    /// The snapshot that answers callbacks in the background for this event: everything readable, as it is now, and
    /// copies of the tensors in `needs`.
    ///
    /// # Errors
    ///
    /// When a copy cannot be made.
    fn snapshot(&mut self, event: EventKind, needs: &SnapshotNeeds) -> Result<Snapshot, ServiceError>;

    /// A copy of a tensor, whose table is valid for this call, that any thread may read.
    ///
    /// # Errors
    ///
    /// When it cannot be copied.
    fn copy_tensor(&mut self, table: &TensorTable) -> Result<SharedTensor, ServiceError>;

    /// What remotes read.
    fn live_metrics(&self) -> Arc<LiveMetrics>;
}

/// One call of a service.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Which service.
    pub service: ServiceKind,
    /// The instance that calls.
    pub instance: &'a str,
    /// The hook that it is in.
    pub hook: EventKind,
    /// Whether the instance exports the model: it has the hook `on_export`, and reads the weights as they compute.
    pub exports: bool,
    /// The request: a MessagePack map, or nothing.
    pub payload: &'a [u8],
    /// Tensors of the plugin, valid until the call returns.
    pub tensors: &'a [TensorTable],
}

impl Call<'_> {
    /// The request of `service`.
    ///
    /// # Errors
    ///
    /// When it cannot be decoded.
    pub fn request<Q: DeserializeOwned, R>(&self, _: Service<Q, R>) -> Result<Q, ServiceError> {
        rmp_serde::from_slice(self.payload)
            .map_err(|error| ServiceError::Failed(format!("the request is not understood: {error}")))
    }
}

/// Which tensors a snapshot must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotNeeds {
    /// Names of tensor sets, as `plugin_api::protocol::TensorSet` writes them.
    pub sets: BTreeSet<String>,
    /// Whether a checkpoint is written from it: then it holds the whole training state.
    pub training_state: bool,
    /// Whether an exporter reads it.
    pub exports: bool,
}

impl SnapshotNeeds {
    /// Whether it holds no tensor.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && !self.training_state
    }
}

/// The console, which any thread may write to.
pub trait Screen: Send + Sync {
    /// Prints a line.
    fn line(&self, text: &str);
    /// Shows a status line, with a bar if there is a progress from 0 to 1; removes it when the text is empty.
    fn status(&self, name: &str, text: &str, progress: Option<f64>);
    /// Columns of its terminal; 0 if it is none.
    fn width(&self) -> u64 {
        0
    }
    /// Whether it shows ANSI colors; where it does not, it takes them out.
    fn has_colors(&self) -> bool {
        false
    }
    /// The newest lines after the number `number`, oldest first; none if none are kept.
    fn lines_after(&self, _number: u64) -> Vec<ConsoleLine> {
        Vec::new()
    }
}
