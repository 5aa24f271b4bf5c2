//! Answers callbacks without a run: with one tensor, if any.

use std::sync::Arc;

use host::expression::Surroundings;
use host::history::{HistoryView, LiveMetrics, Position};
use host::services::{Call, Reply, ServiceError, Services, SharedTensor, Snapshot, SnapshotNeeds};
use plugin_api::abi::TensorTable;
use plugin_api::protocol::ParameterGroup;
use plugin_api::{EventKind, ServiceKind};

const POSITION: Position = Position { epoch: 1, step: 2, global_step: 2, samples: 128 };

/// Answers nothing but what it lends.
#[derive(Default)]
pub struct Answers {
    /// What every set of tensors holds.
    pub tensor: Option<SharedTensor>,
}

impl Services for Answers {
    fn answer(&mut self, call: &Call<'_>, reply: &mut Reply<'_>) -> std::result::Result<(), ServiceError> {
        match &self.tensor {
            Some(tensor) if call.service == ServiceKind::TENSOR_READ => {
                reply.lend(tensor.lend());
                Ok(())
            }
            _ => Err(nobody()),
        }
    }

    fn snapshot(&mut self, _: EventKind, _: &SnapshotNeeds) -> std::result::Result<Snapshot, ServiceError> {
        Err(nobody())
    }

    fn copy_tensor(&mut self, _: &TensorTable) -> std::result::Result<SharedTensor, ServiceError> {
        Err(nobody())
    }

    fn live_metrics(&self) -> Arc<LiveMetrics> {
        Arc::default()
    }
}

impl Surroundings for Answers {
    fn position(&self) -> Position {
        POSITION
    }

    fn metric(&mut self, _: &str) -> Option<f64> {
        None
    }

    fn history(&self) -> HistoryView {
        HistoryView::now(Arc::default())
    }

    fn groups(&self) -> Vec<ParameterGroup> {
        Vec::new()
    }
}

fn nobody() -> ServiceError {
    ServiceError::Failed("nobody answers in a benchmark".to_owned())
}
