//! What callbacks in the background, and remotes, are answered from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use plugin_api::abi::kinds::{EventKind, ServiceKind};
use plugin_api::protocol::{
    ArrayPoint, Line, LinesAfter, Name, ParameterGroup, Path as PathRequest, Point, RunInfo, StatusLine, TensorInfo,
    TensorSet, TensorsRequest,
};
use tch::Tensor;

use super::super::checkpointing::{CheckpointData, HostTensor};
use super::super::session::Session;
use super::tensors::info;
use super::{refused, tensors};
use crate::dispatch::{Caller, Reply, Request, ServiceError, Snapshot, SnapshotNeeds};
use crate::record::{HistoryView, Metrics};

/// What remotes read: the latest metrics.
pub(super) struct Latest(pub(super) Arc<RwLock<Metrics>>);

impl Snapshot for Latest {
    fn call(
        &self,
        _: &Caller<'_>,
        service: ServiceKind,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        match service {
            ServiceKind::METRICS => metrics(&self.0.read().unwrap_or_else(PoisonError::into_inner), request, reply),
            ServiceKind(number) => Err(ServiceError::Unknown(number)),
        }
    }
}

/// The run as it was when an event fired.
struct AsOfEvent {
    metrics: Metrics,
    history: HistoryView,
    groups: Vec<ParameterGroup>,
    info: RunInfo,
    /// As JSON, if the model is one.
    graph: Option<Arc<str>>,
    loss: Option<f64>,
    sets: BTreeMap<String, Vec<HostTensor>>,
    checkpoint: Option<CheckpointData>,
    screen: Screen,
}

/// The console, which any thread may write to.
pub(super) type Screen = Arc<dyn super::super::session::Screen>;

// SAFETY: the tensors are copies on the CPU that nothing else refers to, and are only read; libtorch's
// reference counts are atomic.
unsafe impl Send for AsOfEvent {}
// SAFETY: as above: reading a CPU tensor's memory from several threads is sound.
unsafe impl Sync for AsOfEvent {}

impl Session {
    pub(super) fn background_snapshot(
        &mut self,
        event: EventKind,
        needs: &SnapshotNeeds,
    ) -> Result<Arc<dyn Snapshot>, ServiceError> {
        self.show_running_metrics()?;
        let mut sets = BTreeMap::new();
        let mut loss = None;
        for name in &needs.sets {
            let set: TensorSet =
                name.parse().map_err(|error: plugin_api::Error| ServiceError::Failed(error.to_string()))?;
            // A set that is not there at this event is one that the callback cannot read.
            let Ok(tensors) = self.tensors_of(&set, event) else { continue };
            let copies: Result<Vec<HostTensor>, _> =
                tensors.iter().map(|(name, tensor)| HostTensor::new(name, tensor, true)).collect();
            sets.insert(name.clone(), copies?);
            if set == TensorSet::Outputs {
                loss = self.loss(event).ok();
            }
        }
        let checkpoint =
            if needs.training_state && event == EventKind::CHECKPOINT { self.collect_checkpoint(true)? } else { None };
        let graph = self.graph_text()?;
        Ok(Arc::new(AsOfEvent {
            metrics: self.metrics.read().unwrap_or_else(PoisonError::into_inner).clone(),
            history: HistoryView::now(Arc::clone(&self.history)),
            groups: self.parameter_groups(),
            info: self.info.clone(),
            graph,
            loss,
            sets,
            checkpoint,
            screen: self.ambience.screen(),
        }))
    }
}

impl Snapshot for AsOfEvent {
    fn call(
        &self,
        caller: &Caller<'_>,
        service: ServiceKind,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        match service {
            ServiceKind::METRICS => metrics(&self.metrics, request, reply),
            ServiceKind::HISTORY_NAMES | ServiceKind::HISTORY_SERIES | ServiceKind::HISTORY_ARRAYS => {
                history(&self.history, service, request, reply)
            }
            ServiceKind::HYPER_PARAMETERS => reply.value(&self.groups),
            ServiceKind::RUN_INFO => {
                reply.value(&RunInfo { instance: caller.instance.to_owned(), ..self.info.clone() })
            }
            ServiceKind::GRAPH => {
                reply.bytes(self.graph.as_ref().ok_or(ServiceError::NoGraph)?.as_bytes());
                Ok(())
            }
            ServiceKind::LOSS => match self.loss {
                Some(loss) => reply.value(&loss),
                None => Err(not_in_snapshot("outputs")),
            },
            ServiceKind::TENSOR_LIST => {
                let TensorsRequest { set, .. } = request.decode()?;
                let list: Vec<TensorInfo> =
                    self.set(&set)?.iter().map(|tensor| info(tensor.name(), tensor.tensor())).collect();
                reply.value(&list)
            }
            ServiceKind::TENSOR_READ => {
                let TensorsRequest { set, names } = request.decode()?;
                let tensors: Vec<(String, Tensor)> = self
                    .set(&set)?
                    .iter()
                    .map(|tensor| (tensor.name().to_owned(), tensor.tensor().shallow_clone()))
                    .collect();
                tensors::lend_named(tensors, &set, &names, reply)
            }
            ServiceKind::TENSOR_TO_HOST => tensors::to_host(request.tensors, reply),
            ServiceKind::WRITE_CHECKPOINT => {
                let PathRequest { path } = request.decode()?;
                let data = self.checkpoint.as_ref().ok_or_else(only_in_checkpoint)?;
                let path = Path::new(&self.info.folder).join(path);
                let written =
                    data.write(&path).map_err(|error| ServiceError::from(super::super::TrainError::from(error)))?;
                reply.value(&written)
            }
            ServiceKind::CONSOLE_LINE => {
                let Line { text } = request.decode()?;
                self.screen.line(&text);
                Ok(())
            }
            ServiceKind::CONSOLE_LINES => {
                let LinesAfter { after } = request.decode()?;
                reply.value(&self.screen.lines_after(after))
            }
            ServiceKind::CONSOLE_STATUS => {
                let StatusLine { name, text, progress } = request.decode()?;
                self.screen.status(&name, &text, progress);
                Ok(())
            }
            ServiceKind::BATCH => Err(ServiceError::NotAllowed(
                "batches of a split need the training thread: say `dispatch = \"inline\"`".to_owned(),
            )),
            ServiceKind(number) => Err(ServiceError::Unknown(number)),
        }
    }
}

impl AsOfEvent {
    fn set(&self, set: &TensorSet) -> Result<&[HostTensor], ServiceError> {
        self.sets.get(&set.to_string()).map(Vec::as_slice).ok_or_else(|| not_in_snapshot(&set.to_string()))
    }
}

fn not_in_snapshot(set: &str) -> ServiceError {
    ServiceError::NotAllowed(format!(
        "`{set}` was not copied for this event: a callback that reads it in the background says so in `NEEDS`"
    ))
}

/// Why a checkpoint cannot be written here.
pub(super) fn only_in_checkpoint() -> ServiceError {
    ServiceError::NotAllowed(
        "checkpoints are written in `checkpoint`, by a callback whose `NEEDS` have `TRAINING_STATE`".to_owned(),
    )
}

/// Answers the latest metrics: all of them, or the one that the request names.
pub(super) fn metrics(metrics: &Metrics, request: &Request<'_>, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    if request.payload.is_empty() {
        let all: BTreeMap<&str, f64> = metrics.iter().map(|(name, metric)| (name, metric.value)).collect();
        return reply.value(&all);
    }
    let Name { name } = request.decode()?;
    let metric = metrics.get(&name).map_err(refused)?;
    reply.value(&BTreeMap::from([(name, metric.value)]))
}

/// Answers from the history.
pub(super) fn history(
    view: &HistoryView,
    service: ServiceKind,
    request: &Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), ServiceError> {
    if service == ServiceKind::HISTORY_NAMES {
        return reply.value(&view.names());
    }
    let Name { name } = request.decode()?;
    if service == ServiceKind::HISTORY_SERIES {
        let series: Vec<Point> = view
            .series(&name)
            .map_err(refused)?
            .into_iter()
            .map(|point| Point {
                epoch: point.position.epoch,
                global_step: point.position.global_step,
                value: point.value,
            })
            .collect();
        return reply.value(&series);
    }
    let arrays: Vec<ArrayPoint> = view
        .arrays(&name)
        .map_err(refused)?
        .into_iter()
        .map(|array| ArrayPoint {
            epoch: array.position.epoch,
            global_step: array.position.global_step,
            shape: array.shape.iter().map(|&size| size as u64).collect(),
            values: array.values,
        })
        .collect();
    reply.value(&arrays)
}
