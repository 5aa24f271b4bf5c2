//! The run as it was when an event fired; it answers callbacks in the background.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use plugin_api::TensorView;
use plugin_api::abi::TensorTable;
use plugin_api::abi::kinds::ServiceKind;
use plugin_api::protocol::requests::{BatchRequest, Predict};
use plugin_api::protocol::{CheckpointWritten, ParameterGroup, RunInfo, TensorSet};
use plugin_api::services::typed;

use super::{Call, Reply, Screen, ServiceError, SharedTensor, WeightsOrigin, readings};
use crate::expression::{Expressions, Surroundings};
use crate::history::{HistoryError, HistoryView, Metrics, Position};

/// Writes the checkpoint that a snapshot holds to a folder; on any thread.
pub type WriteCheckpoint = dyn Fn(&Path) -> Result<CheckpointWritten, ServiceError> + Send + Sync;

/// Computes with the weights that a snapshot holds, and reads the data; on any thread.
pub trait Inference: Send + Sync {
    /// Answers `predict` with the `weights`, which are copies of the parameters and of the buffers.
    ///
    /// # Errors
    ///
    /// See [`ServiceError`].
    fn predict(
        &self,
        request: &Predict,
        inputs: &[TensorTable],
        weights: [&[SharedTensor]; 2],
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError>;

    /// Answers `batch`.
    ///
    /// # Errors
    ///
    /// See [`ServiceError`].
    fn batch(&self, request: &BatchRequest, reply: &mut Reply<'_>) -> Result<(), ServiceError>;
}

/// Everything that services read, at one moment. Any thread may read it; nothing changes it.
pub struct Snapshot {
    /// What the run is.
    pub info: RunInfo,
    /// Where the run is.
    pub position: Position,
    /// The latest value of each metric.
    pub metrics: Metrics,
    /// Every value until then.
    pub history: HistoryView,
    /// The hyper-parameters.
    pub groups: Vec<ParameterGroup>,
    /// The model's graph as JSON, or why it has none.
    pub graph: Result<Arc<str>, ServiceError>,
    /// The loss of the current step or batch, if outputs were copied.
    pub loss: Option<f64>,
    /// The copied tensors, by the name of their set.
    pub tensors: BTreeMap<String, Vec<SharedTensor>>,
    /// The sets as exporters read them: merged with the adapters.
    pub merged: BTreeMap<String, Vec<SharedTensor>>,
    /// The checkpoint that is being taken, if it was copied.
    pub checkpoint: Option<Box<WriteCheckpoint>>,
    /// The model and the data, if there are any.
    pub inference: Option<Arc<dyn Inference>>,
    /// Where the weights come from.
    pub weights: WeightsOrigin,
    /// The expressions that were asked for so far.
    pub expressions: Arc<Expressions>,
    /// The console.
    pub screen: Arc<dyn Screen>,
    /// Seconds since the run began.
    pub seconds: f64,
}

impl Snapshot {
    /// Answers a call that the table permits for a callback in the background.
    ///
    /// # Errors
    ///
    /// See [`ServiceError`].
    pub fn answer(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
        match call.service {
            ServiceKind::METRICS => readings::metrics(&self.metrics, reply),
            ServiceKind::METRIC_POINTS => readings::metric_points(self.metrics.iter(), reply),
            ServiceKind::METRIC => readings::metric(&self.metrics, call, reply),
            ServiceKind::HISTORY_NAMES
            | ServiceKind::HISTORY_SERIES
            | ServiceKind::HISTORY_LATEST
            | ServiceKind::HISTORY_ARRAYS
            | ServiceKind::LATEST_ARRAYS => readings::history(&self.history, call, reply),
            ServiceKind::EVALUATE => {
                let request = call.request(typed::EVALUATE)?;
                let expression = self.expressions.get(&request)?;
                for name in expression.metrics() {
                    if let Err(error @ HistoryError::UnknownName { .. }) = self.metrics.get(name) {
                        return Err(error.into());
                    }
                }
                readings::evaluate(&expression, &mut &*self, &request.variables, reply)
            }
            ServiceKind::WEIGHTS_INFO => readings::weights_info(&self.history, self.weights, reply),
            ServiceKind::HYPER_PARAMETERS => reply.answer(typed::HYPER_PARAMETERS, &self.groups),
            ServiceKind::RUN_INFO => readings::run_info(&self.info, call, reply),
            ServiceKind::GRAPH => {
                reply.bytes(self.graph.as_ref().map_err(ServiceError::clone)?.as_bytes());
                Ok(())
            }
            ServiceKind::PREDICT => {
                let weights = [self.set(&TensorSet::Parameters)?, self.set(&TensorSet::Buffers)?];
                self.inference()?.predict(&call.request(typed::PREDICT)?, call.tensors, weights, reply)
            }
            ServiceKind::BATCH => self.inference()?.batch(&call.request(typed::BATCH)?, reply),
            ServiceKind::LOSS => {
                let loss = self.loss.ok_or_else(|| ServiceError::NotAllowed("there is no loss yet".to_owned()))?;
                reply.answer(typed::LOSS, &loss)
            }
            ServiceKind::TENSOR_LIST => {
                let set = call.request(typed::TENSOR_LIST)?.set;
                let listed = self.read_by(call, &set, &[])?.iter().map(SharedTensor::info).collect();
                reply.answer(typed::TENSOR_LIST, &listed)
            }
            ServiceKind::TENSOR_READ => {
                let request = call.request(typed::TENSOR_READ)?;
                let tensors =
                    self.read_by(call, &request.set, &request.names)?.iter().map(SharedTensor::lend).collect();
                reply.lend_named(tensors, &request.set, &request.names)
            }
            ServiceKind::TENSOR_TO_HOST => {
                for table in call.tensors {
                    // SAFETY: the plugin passes a view that the host lent it, within the same hook.
                    let view = unsafe { TensorView::from_table(*table) };
                    reply.lend(SharedTensor::copy_of(&view)?.lend());
                }
                Ok(())
            }
            ServiceKind::WRITE_CHECKPOINT => {
                let path = Path::new(&self.info.folder).join(call.request(typed::WRITE_CHECKPOINT)?.path);
                let write = self
                    .checkpoint
                    .as_ref()
                    .ok_or_else(|| ServiceError::NotAllowed("the checkpoint is no longer being taken".to_owned()))?;
                reply.answer(typed::WRITE_CHECKPOINT, &write(&path)?)
            }
            ServiceKind::CONSOLE_LINE | ServiceKind::CONSOLE_LINES | ServiceKind::CONSOLE_STATUS => {
                readings::console(&*self.screen, call, reply)
            }
            #[cfg(feature = "next-minor")]
            ServiceKind::UPTIME => reply.answer(typed::UPTIME, &self.seconds),
            // By the table of services, nothing else arrives here.
            other => Err(ServiceError::Failed(format!("a snapshot does not answer `{}`", other.name()))),
        }
    }

    fn inference(&self) -> Result<&dyn Inference, ServiceError> {
        self.inference.as_deref().ok_or_else(|| ServiceError::NotAllowed("there is no model".to_owned()))
    }

    /// The tensors of a set as the caller reads them; those that only others see, it gets by their `names`.
    fn read_by(&self, call: &Call<'_>, set: &TensorSet, names: &[String]) -> Result<Vec<SharedTensor>, ServiceError> {
        let all = self.set(set)?;
        let Some(merged) = self.merged.get(&set.to_string()).filter(|_| call.exports) else { return Ok(all.to_vec()) };
        let is_hidden = |name: &str| !merged.iter().any(|tensor| tensor.name() == name);
        let wanted = names.iter().filter(|name| is_hidden(name));
        let wanted = wanted.filter_map(|name| all.iter().find(|tensor| tensor.name() == name));
        Ok(merged.iter().chain(wanted).cloned().collect())
    }

    fn set(&self, set: &TensorSet) -> Result<&[SharedTensor], ServiceError> {
        let missing = || ServiceError::NotAllowed(format!("there are no `{set}` at this event"));
        self.tensors.get(&set.to_string()).map(Vec::as_slice).ok_or_else(missing)
    }
}

impl Surroundings for &Snapshot {
    fn position(&self) -> Position {
        self.position
    }

    fn metric(&mut self, name: &str) -> Option<f64> {
        self.metrics.value(name)
    }

    fn history(&self) -> HistoryView {
        self.history.clone()
    }

    fn groups(&self) -> Vec<ParameterGroup> {
        self.groups.clone()
    }
}
