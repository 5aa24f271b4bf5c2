//! The services of the simulated run: those of a real one, answered from plain memory.
//!
//! A [`Snapshot`] of the world answers services that read, as for a callback in the background; here are the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock};

use plugin_api::TensorView;
use plugin_api::abi::TensorTable;
use plugin_api::abi::kinds::{EventKind, ServiceKind};
use plugin_api::protocol::requests::{
    ArrayPut, BatchRequest, CopyRequest, HyperParameterSet, Measure, Predict, TensorsRequest,
};
use plugin_api::protocol::{Control, CopyAction, ParameterGroup, TensorSet};
use plugin_api::services::{no_batch, split_is_there, typed};

use super::model::forward;
use super::tensors::Values;
use super::world::{EVALUATION_BATCHES, SPLITS, Weights, World, write_checkpoint};
use crate::expression::Surroundings;
use crate::history::{HistoryView, LiveMetrics, Position};
use crate::services::{Call, Inference, Reply, ServiceError, Services, SharedTensor, Snapshot, SnapshotNeeds};

/// The simulated run as dispatch sees it.
pub(super) struct Simulated {
    pub(super) world: World,
    pub(super) position: Position,
    /// The metrics as remotes see them.
    live: Arc<LiveMetrics>,
    /// Who asked for a stop, and why.
    pub(super) stop: Option<(String, String)>,
    /// The paths of checkpoints that were queued, until `checkpoint_written` tells of them.
    pub(super) queued: Vec<String>,
}

impl Simulated {
    pub(super) fn new(world: World) -> Self {
        let live = Arc::new(LiveMetrics::new(world.metrics.clone()));
        Self { live, world, position: Position::default(), stop: None, queued: Vec::new() }
    }

    /// Publishes changes for remotes.
    pub(super) fn show(&self) {
        *self.live.write() = self.world.metrics.clone();
    }
}

impl Services for Simulated {
    fn answer(&mut self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
        let world = &mut self.world;
        match call.service {
            ServiceKind::METRIC_PUT => {
                let put = call.request(typed::METRIC_PUT)?;
                world.put(&put.name, self.position, put.value)
            }
            ServiceKind::HISTORY_REMOVE => {
                let name = call.request(typed::HISTORY_REMOVE)?.name;
                world.history.remove(&name);
                world.metrics.remove(&name);
                Ok(())
            }
            ServiceKind::ARRAY_PUT => put_array(world, self.position, call.request(typed::ARRAY_PUT)?),
            ServiceKind::HYPER_PARAMETER_SET => {
                set_hyper_parameter(world, call.instance, &call.request(typed::HYPER_PARAMETER_SET)?)
            }
            ServiceKind::CONTROL => {
                let control = call.request(typed::CONTROL)?;
                if control.action == Control::Stop {
                    self.stop.get_or_insert((call.instance.to_owned(), control.reason));
                }
                Ok(())
            }
            ServiceKind::TENSOR_WRITE => write(world, call),
            ServiceKind::WEIGHTS_COPY => {
                copy("copy of the weights", &mut world.copies, &mut world.weights, &call.request(typed::WEIGHTS_COPY)?)
            }
            ServiceKind::TRAINING_STATE_COPY => copy(
                "copy of the training state",
                &mut world.training_states,
                &mut world.weights,
                &call.request(typed::TRAINING_STATE_COPY)?,
            ),
            ServiceKind::TRAIN_STEPS => {
                let steps = call.request(typed::TRAIN_STEPS)?.steps;
                // A range test needs hundreds; more is a mistake.
                let losses = (0..steps.min(10_000)).map(|step| 1.0 / (step as f64 + 1.0)).collect();
                reply.answer(typed::TRAIN_STEPS, &losses)
            }
            ServiceKind::PREDICT => predict(world, &call.request(typed::PREDICT)?, call.tensors, reply),
            ServiceKind::MEASURE => measure(world, &call.request(typed::MEASURE)?, reply),
            ServiceKind::RECALIBRATE_BATCH_NORM => {
                batches_of(world, &call.request(typed::RECALIBRATE_BATCH_NORM)?.split).map(drop)
            }
            ServiceKind::FREEZE => {
                let request = call.request(typed::FREEZE)?;
                let names: Vec<&str> = world.weights.parameters.iter().map(|it| it.name.as_str()).collect();
                world.frozen = world.frozen.after(&request, &names)?;
                Ok(())
            }
            ServiceKind::OPEN_SPLIT => {
                let name = call.request(typed::OPEN_SPLIT)?.name;
                if batches_of(world, &name).is_ok() {
                    return Err(split_is_there(&name).into());
                }
                world.opened.insert(name);
                Ok(())
            }
            ServiceKind::LIMIT_BATCHES => {
                let request = call.request(typed::LIMIT_BATCHES)?;
                batches_of(world, &request.split)?;
                if request.batches == Some(0) { Err(no_batch(&request.split).into()) } else { Ok(()) }
            }
            ServiceKind::BATCH => batch(world, &call.request(typed::BATCH)?, reply),
            ServiceKind::TAP => {
                let tap = call.request(typed::TAP)?;
                world.check_tap(&tap)?;
                world.taps.push(tap);
                Ok(())
            }
            ServiceKind::PROFILE => reply.answer(typed::PROFILE, &Vec::new()),
            ServiceKind::QUEUE_CHECKPOINT => {
                let path = call.request(typed::QUEUE_CHECKPOINT)?.path;
                write_checkpoint(&Path::new(&world.info.folder).join(&path))?;
                self.queued.push(path);
                reply.answer(typed::QUEUE_CHECKPOINT, &Vec::new())
            }
            ServiceKind::ARTIFACT => Ok(()),
            ServiceKind::TENSOR_LIST | ServiceKind::TENSOR_READ => {
                let set = call.request(typed::TENSOR_READ)?.set;
                world.set(&set, call.hook)?;
                world.snapshot(call.hook, self.position, [&set]).answer(call, reply)
            }
            _ => world.snapshot(call.hook, self.position, []).answer(call, reply),
        }
    }

    fn snapshot(&mut self, event: EventKind, needs: &SnapshotNeeds) -> Result<Snapshot, ServiceError> {
        let sets: Vec<TensorSet> = needs.sets.iter().filter_map(|set| set.parse().ok()).collect();
        Ok(self.world.snapshot(event, self.position, &sets))
    }

    fn copy_tensor(&mut self, table: &TensorTable) -> Result<SharedTensor, ServiceError> {
        // SAFETY: the table is valid for this call.
        SharedTensor::copy_of(&unsafe { TensorView::from_table(*table) })
    }

    fn live_metrics(&self) -> Arc<LiveMetrics> {
        Arc::clone(&self.live)
    }
}

impl Surroundings for Simulated {
    fn position(&self) -> Position {
        self.position
    }

    fn metric(&mut self, name: &str) -> Option<f64> {
        self.world.metrics.value(name)
    }

    fn history(&self) -> HistoryView {
        HistoryView::now(Arc::new(RwLock::new(self.world.history.clone())))
    }

    fn groups(&self) -> Vec<ParameterGroup> {
        self.world.groups.clone()
    }
}

/// The tensors that a request asks for.
fn named(world: &World, request: &TensorsRequest, hook: EventKind) -> Result<Vec<Values>, ServiceError> {
    let all = world.set(&request.set, hook)?;
    if request.names.is_empty() {
        return Ok(all);
    }
    let find = |name: &String| {
        let names = all.iter().map(|tensor| tensor.name.as_str());
        let found = all.iter().find(|tensor| tensor.name == *name).cloned();
        found.ok_or_else(|| ServiceError::no_such_name("tensor", name, names))
    };
    request.names.iter().map(find).collect()
}

fn put_array(world: &mut World, position: Position, put: ArrayPut) -> Result<(), ServiceError> {
    let too_large = |_| ServiceError::Failed(format!("the shape {:?} is too large", put.shape));
    let shape =
        put.shape.iter().map(|&size| usize::try_from(size)).collect::<Result<Vec<_>, _>>().map_err(too_large)?;
    let stored = world.history.put_array(&put.name, position, shape, put.values);
    Ok(stored.map(drop)?)
}

/// Sets a value of one group, or of every group that has it.
fn set_hyper_parameter(world: &mut World, instance: &str, set: &HyperParameterSet) -> Result<(), ServiceError> {
    if let Some(name) = &set.group
        && !world.groups.iter().any(|group| group.name == *name)
    {
        let names = world.groups.iter().map(|group| group.name.as_str());
        return Err(ServiceError::no_such_name("parameter group", name, names));
    }
    let mut found = false;
    for group in world.groups.iter_mut().filter(|group| set.group.as_ref().is_none_or(|name| *name == group.name)) {
        if let Some(value) = group.values.get_mut(&set.name) {
            *value = set.value;
            group.owners.insert(set.name.clone(), instance.to_owned());
            found = true;
        }
    }
    if found {
        return Ok(());
    }
    let names = world.groups.iter().flat_map(|group| group.values.keys()).map(String::as_str);
    Err(ServiceError::no_such_name("hyper-parameter", &set.name, names))
}

fn write(world: &mut World, call: &Call<'_>) -> Result<(), ServiceError> {
    let TensorsRequest { set, names } = call.request(typed::TENSOR_WRITE)?;
    let present = named(world, &TensorsRequest { set: set.clone(), names: names.clone() }, call.hook)?;
    let written = call.tensors.iter().map(Values::from_plugin).collect::<Result<Vec<_>, _>>()?;
    if written.len() != names.len() {
        return Err(ServiceError::Failed(format!("{} names came with {} tensors", names.len(), written.len())));
    }
    if let Some((old, _)) = present.iter().zip(&written).find(|(old, new)| !old.fits(new)) {
        return Err(ServiceError::Failed(format!(
            "`{}` has the shape {:?}, the written tensor another",
            old.name, old.shape
        )));
    }
    for new in present.iter().zip(&written).map(|(old, new)| new.named(&old.name)) {
        let tensors: Vec<&mut Values> = match &set {
            TensorSet::Parameters => world.weights.parameters.iter_mut().collect(),
            TensorSet::Buffers => world.weights.buffers.iter_mut().collect(),
            TensorSet::Optimizer => world.optimizer.iter_mut().collect(),
            TensorSet::Gradients => world.gradients.iter_mut().collect(),
            TensorSet::Batch => world.batch.iter_mut().collect(),
            TensorSet::Copy(name) => {
                let copy = world.copies.get_mut(name);
                copy.into_iter().flat_map(|copy| copy.parameters.iter_mut().chain(&mut copy.buffers)).collect()
            }
            _ => Vec::new(),
        };
        if let Some(place) = tensors.into_iter().find(|tensor| tensor.name == new.name) {
            *place = new;
        }
    }
    Ok(())
}

/// Takes, restores or drops a copy of the weights.
fn copy(
    what: &str,
    copies: &mut BTreeMap<String, Weights>,
    weights: &mut Weights,
    request: &CopyRequest,
) -> Result<(), ServiceError> {
    let missing = |copies: &BTreeMap<String, Weights>| {
        ServiceError::no_such_name(what, &request.name, copies.keys().map(String::as_str))
    };
    match request.action {
        CopyAction::Take => {
            copies.insert(request.name.clone(), weights.clone());
        }
        CopyAction::Restore => *weights = copies.get(&request.name).ok_or_else(|| missing(copies))?.clone(),
        CopyAction::Drop => {
            copies.remove(&request.name).ok_or_else(|| missing(copies))?;
        }
    }
    Ok(())
}

/// A clone of the world answers in the background.
impl Inference for World {
    fn predict(
        &self,
        request: &Predict,
        inputs: &[TensorTable],
        _: [&[SharedTensor]; 2],
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        predict(self, request, inputs, reply)
    }

    fn batch(&self, request: &BatchRequest, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
        batch(self, request, reply)
    }
}

fn batch(world: &World, request: &BatchRequest, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    let BatchRequest { split, index, .. } = request;
    let batches = batches_of(world, split)?;
    if *index >= batches {
        return Err(ServiceError::Failed(format!("the split `{split}` has {batches} batches, none of index {index}")));
    }
    world.task.batch(*index).iter().for_each(|tensor| reply.lend(tensor.shared().lend()));
    Ok(())
}

fn predict(
    world: &World,
    request: &Predict,
    tensors: &[TensorTable],
    reply: &mut Reply<'_>,
) -> Result<(), ServiceError> {
    let Predict { split, batches, nodes } = request;
    let (inputs, targets) = match split {
        Some(split) => {
            let batches = (0..(*batches).clamp(1, batches_of(world, split)?)).map(|index| world.task.batch(index));
            let (inputs, targets): (Vec<_>, Vec<_>) = batches.map(|[inputs, targets]| (inputs, targets)).unzip();
            (Values::joined(&inputs), Values::joined(&targets))
        }
        None => {
            let inputs = tensors.first();
            let inputs = inputs.ok_or_else(|| ServiceError::Failed("there are no inputs".to_owned()))?;
            let inputs = Values::from_plugin(inputs)?;
            let (found, expected) = (inputs.shape.get(1..).unwrap_or_default(), &world.batch[0].shape[1..]);
            if found != expected {
                return Err(ServiceError::Failed(format!("a sample has the shape {expected:?}, not {found:?}")));
            }
            (Some(inputs), None)
        }
    };
    let inputs = inputs.ok_or_else(|| ServiceError::Failed("there are no inputs".to_owned()))?;
    let computed = forward(world, &inputs)?;
    let find = |name: &String| {
        let names = computed.iter().map(|value| value.name.as_str());
        let found = computed.iter().find(|value| value.name == *name);
        found.ok_or_else(|| ServiceError::no_such_name("node", name, names))
    };
    let wanted = nodes.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let outputs = computed.last().map(|outputs| outputs.named("outputs"));
    outputs.iter().chain(&targets).chain(wanted).for_each(|value| reply.lend(value.shared().lend()));
    Ok(())
}

fn measure(world: &World, measure: &Measure, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    batches_of(world, &measure.split)?;
    if let Some(name) = &measure.weights
        && !world.copies.contains_key(name)
    {
        let names = world.copies.keys().map(String::as_str);
        return Err(ServiceError::no_such_name("copy of the weights", name, names));
    }
    let known = ["loss", world.task.metric()];
    let wanted: Vec<&str> =
        if measure.metrics.is_empty() { known.to_vec() } else { measure.metrics.iter().map(String::as_str).collect() };
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        return Err(ServiceError::no_such_name("metric", unknown, known));
    }
    reply.answer(typed::MEASURE, &wanted.into_iter().map(|name| (name.to_owned(), 0.5)).collect())
}

fn batches_of(world: &World, split: &str) -> Result<u64, ServiceError> {
    if world.opened.contains(split) {
        return Ok(EVALUATION_BATCHES);
    }
    let found = SPLITS.iter().find(|(name, _)| *name == split);
    found
        .map(|(_, batches)| *batches)
        .ok_or_else(|| ServiceError::no_such_name("split", split, SPLITS.iter().map(|(name, _)| *name)))
}
