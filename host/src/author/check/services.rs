//! The services of the made-up run: those of a real one, answered from plain memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::abi::kinds::{EventKind, ServiceKind};
use plugin_api::protocol::{
    ArrayPoint, ArrayPut, BatchRequest, CheckpointWritten, Control, ControlRequest, CopyAction, CopyRequest,
    HyperParameterSet, Measure, MetricPut, Name, Point, Predict, Recalibrate, Tap, TensorInfo, TensorSet,
    TensorsRequest, TrainSteps,
};

use super::tensors::Values;
use super::world::{SPLITS, Weights, World, batch, outputs};
use crate::dispatch::{Caller, Reply, Request, ServiceError, Services, Snapshot, SnapshotNeeds};
use crate::record::RecordError;

/// The made-up run as dispatch sees it.
pub(super) struct MadeUp {
    pub(super) world: World,
    /// The world as remotes see it.
    latest: Arc<Mutex<World>>,
    /// Who asked for a stop, and why.
    pub(super) stop: Option<(String, String)>,
}

/// The world at one moment.
struct Still(World);

/// The world as it is now.
struct Latest(Arc<Mutex<World>>);

impl MadeUp {
    pub(super) fn new(world: World) -> Self {
        Self { latest: Arc::new(Mutex::new(world.clone())), world, stop: None }
    }

    /// Lets remotes see what has changed.
    pub(super) fn show(&self) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = self.world.clone();
    }
}

impl Snapshot for Still {
    fn call(
        &self,
        caller: &Caller<'_>,
        service: ServiceKind,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        read(&self.0, caller, service, request, reply)
    }
}

impl Snapshot for Latest {
    fn call(
        &self,
        caller: &Caller<'_>,
        service: ServiceKind,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        let world = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        read(&world, caller, service, request, reply)
    }
}

impl Services for MadeUp {
    fn call(
        &mut self,
        caller: &Caller<'_>,
        service: ServiceKind,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        let world = &mut self.world;
        match service {
            ServiceKind::METRIC_PUT => {
                let MetricPut { name, value } = request.decode()?;
                world.put(&name, caller.position, value)
            }
            ServiceKind::ARRAY_PUT => put_array(world, caller, request.decode()?),
            ServiceKind::HYPER_PARAMETER_SET => set_hyper_parameter(world, caller, &request.decode()?),
            ServiceKind::CONTROL => self.control(caller, request.decode()?),
            ServiceKind::TENSOR_WRITE => write(world, caller, request),
            ServiceKind::WEIGHTS_COPY => {
                let request: CopyRequest = request.decode()?;
                let restores = request.action == CopyAction::Restore;
                copy(&mut world.copies, &mut world.weights, &request, restores.then_some(caller.hook))
            }
            ServiceKind::SNAPSHOT => {
                let request: CopyRequest = request.decode()?;
                let restores = request.action == CopyAction::Restore;
                copy(&mut world.snapshots, &mut world.weights, &request, restores.then_some(caller.hook))
            }
            ServiceKind::TRAIN_STEPS => {
                safe_for_weights(caller.hook)?;
                let TrainSteps { steps } = request.decode()?;
                // A range test asks for hundreds; more than that is no range test.
                let losses: Vec<f64> = (0..steps.min(10_000)).map(|step| 1.0 / (step as f64 + 1.0)).collect();
                reply.value(&losses)
            }
            ServiceKind::PREDICT => predict(world, request, reply),
            ServiceKind::MEASURE => measure(world, &request.decode()?, reply),
            ServiceKind::RECALIBRATE_BATCH_NORM => {
                safe_for_weights(caller.hook)?;
                let Recalibrate { split, .. } = request.decode()?;
                batches_of(&split).map(drop)
            }
            ServiceKind::TAP => {
                if caller.hook != EventKind::SETUP {
                    return Err(ServiceError::NotAllowed("taps are asked for in `setup`".to_owned()));
                }
                let tap: Tap = request.decode()?;
                world.check_tap(&tap)?;
                world.taps.push(tap);
                Ok(())
            }
            ServiceKind::ARTIFACT => Ok(()),
            _ => read(world, caller, service, request, reply),
        }
    }

    fn snapshot(&mut self, _: EventKind, _: &SnapshotNeeds) -> Result<Arc<dyn Snapshot>, ServiceError> {
        Ok(Arc::new(Still(self.world.clone())))
    }

    fn reader(&self) -> Arc<dyn Snapshot> {
        Arc::new(Latest(Arc::clone(&self.latest)))
    }

    fn metric(&self, name: &str) -> Option<f64> {
        self.world.metrics.value(name)
    }
}

impl MadeUp {
    fn control(&mut self, caller: &Caller<'_>, control: ControlRequest) -> Result<(), ServiceError> {
        match control.action {
            Control::SkipUpdate if caller.hook != EventKind::GRADIENTS => {
                Err(ServiceError::NotAllowed("an update is skipped in `gradients` alone".to_owned()))
            }
            Control::Stop => {
                self.stop.get_or_insert((caller.instance.to_owned(), control.reason));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The services that only read.
fn read(
    world: &World,
    caller: &Caller<'_>,
    service: ServiceKind,
    request: &Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), ServiceError> {
    match service {
        ServiceKind::METRICS if request.payload.is_empty() => {
            reply.value(&world.metrics.iter().map(|(name, metric)| (name, metric.value)).collect::<BTreeMap<_, _>>())
        }
        ServiceKind::METRICS => {
            let Name { name } = request.decode()?;
            let metric = world.metrics.get(&name).map_err(|error| of_record(&name, error, world))?;
            reply.value(&BTreeMap::from([(name, metric.value)]))
        }
        ServiceKind::HISTORY_NAMES => reply.value(&world.history.names()),
        ServiceKind::HISTORY_SERIES => {
            let Name { name } = request.decode()?;
            let series = world.history.series(&name).map_err(|error| of_record(&name, error, world))?;
            let point = |point: crate::record::Point| Point {
                epoch: point.position.epoch,
                global_step: point.position.global_step,
                value: point.value,
            };
            reply.value(&series.map(point).collect::<Vec<_>>())
        }
        ServiceKind::HISTORY_ARRAYS => {
            let Name { name } = request.decode()?;
            let history = world.history.as_of(world.history.next_sequence());
            let arrays = history.arrays(&name).map_err(|error| of_record(&name, error, world))?;
            let point = |array: crate::record::Array| ArrayPoint {
                epoch: array.position.epoch,
                global_step: array.position.global_step,
                shape: array.shape.iter().map(|&size| size as u64).collect(),
                values: array.values,
            };
            reply.value(&arrays.map(point).collect::<Vec<_>>())
        }
        ServiceKind::HYPER_PARAMETERS => reply.value(&world.groups),
        ServiceKind::TENSOR_LIST => {
            let request: TensorsRequest = request.decode()?;
            reply.value(&named(world, &request, caller.hook)?.iter().map(Values::info).collect::<Vec<TensorInfo>>())
        }
        ServiceKind::TENSOR_READ => {
            let request: TensorsRequest = request.decode()?;
            named(world, &request, caller.hook)?.iter().for_each(|tensor| reply.lend(tensor.lend()));
            Ok(())
        }
        ServiceKind::TENSOR_TO_HOST => {
            let table = request.tensors.first();
            let table = table.ok_or_else(|| ServiceError::Failed("there is no tensor in the request".to_owned()))?;
            reply.lend(Values::from_plugin(table)?.lend());
            Ok(())
        }
        ServiceKind::GRAPH => {
            let json = serde_json::to_vec(&*world.graph).map_err(|error| ServiceError::Failed(error.to_string()))?;
            reply.bytes(&json);
            Ok(())
        }
        ServiceKind::BATCH => {
            let BatchRequest { split, index } = request.decode()?;
            let batches = batches_of(&split)?;
            if index >= batches {
                return Err(ServiceError::Failed(format!("the split `{split}` has {batches} batches, not {index}")));
            }
            batch(index).iter().for_each(|tensor| reply.lend(tensor.lend()));
            Ok(())
        }
        ServiceKind::LOSS => {
            if ![EventKind::GRADIENTS, EventKind::STEP_END, EventKind::EVAL_STEP_END].contains(&caller.hook) {
                return Err(ServiceError::NotAllowed(format!("there is no loss in `{}`", caller.hook.name())));
            }
            reply.value(&0.5_f64)
        }
        ServiceKind::RUN_INFO => {
            let mut info = world.info.clone();
            info.instance = caller.instance.to_owned();
            reply.value(&info)
        }
        ServiceKind::WRITE_CHECKPOINT => {
            if caller.hook != EventKind::CHECKPOINT {
                return Err(ServiceError::NotAllowed("a checkpoint is written in `checkpoint` alone".to_owned()));
            }
            let request: plugin_api::protocol::Path = request.decode()?;
            reply.value(&write_checkpoint(world, &request.path)?)
        }
        ServiceKind::CONSOLE_LINE | ServiceKind::CONSOLE_STATUS => Ok(()),
        _ => Err(ServiceError::Unknown(service.0)),
    }
}

fn of_record(name: &str, error: RecordError, world: &World) -> ServiceError {
    match error {
        RecordError::UnknownName { .. } => ServiceError::no_such_name("metric", name, world.history.names()),
        other => ServiceError::Failed(other.to_string()),
    }
}

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

fn put_array(world: &mut World, caller: &Caller<'_>, put: ArrayPut) -> Result<(), ServiceError> {
    let too_large = |_| ServiceError::Failed(format!("the shape {:?} is too large", put.shape));
    let shape =
        put.shape.iter().map(|&size| usize::try_from(size)).collect::<Result<Vec<_>, _>>().map_err(too_large)?;
    let stored = world.history.put_array(&put.name, caller.position, shape, put.values);
    stored.map(drop).map_err(|error| ServiceError::Failed(error.to_string()))
}

fn set_hyper_parameter(world: &mut World, caller: &Caller<'_>, set: &HyperParameterSet) -> Result<(), ServiceError> {
    if let Some(name) = &set.group
        && !world.groups.iter().any(|group| group.name == *name)
    {
        let names = world.groups.iter().map(|group| group.name.as_str());
        return Err(ServiceError::no_such_name("parameter group", name, names));
    }
    for group in &mut world.groups {
        if set.group.as_ref().is_some_and(|name| *name != group.name) {
            continue;
        }
        match group.values.get_mut(&set.name) {
            Some(value) => *value = set.value,
            None => {
                let names = group.values.keys().map(String::as_str);
                return Err(ServiceError::no_such_name("hyper-parameter", &set.name, names));
            }
        }
        group.owners.insert(set.name.clone(), caller.instance.to_owned());
    }
    Ok(())
}

/// Whether weights may be written in `hook`: not while a step or a batch of an evaluation is under way.
fn safe_for_weights(hook: EventKind) -> Result<(), ServiceError> {
    let under_way = [EventKind::STEP_START, EventKind::GRADIENTS, EventKind::EVAL_STEP_START, EventKind::EVAL_STEP_END];
    if under_way.contains(&hook) {
        return Err(ServiceError::NotAllowed(format!("weights cannot be written in `{}`", hook.name())));
    }
    Ok(())
}

fn write(world: &mut World, caller: &Caller<'_>, request: &Request<'_>) -> Result<(), ServiceError> {
    let TensorsRequest { set, names } = request.decode()?;
    let not_here =
        |what: &str| ServiceError::NotAllowed(format!("{what} cannot be written in `{}`", caller.hook.name()));
    match &set {
        TensorSet::Gradients if caller.hook != EventKind::GRADIENTS => return Err(not_here("gradients")),
        TensorSet::Batch if caller.hook != EventKind::STEP_START => return Err(not_here("the batch")),
        TensorSet::Outputs | TensorSet::Taps => return Err(not_here(&set.to_string())),
        TensorSet::Parameters | TensorSet::Buffers | TensorSet::Optimizer => safe_for_weights(caller.hook)?,
        _ => {}
    }
    let present = named(world, &TensorsRequest { set: set.clone(), names: names.clone() }, caller.hook)?;
    let written = request.tensors.iter().map(Values::from_plugin).collect::<Result<Vec<_>, _>>()?;
    if written.len() != names.len() {
        return Err(ServiceError::Failed(format!("{} names came with {} tensors", names.len(), written.len())));
    }
    if let Some((old, _)) = present.iter().zip(&written).find(|(old, new)| !old.fits(new)) {
        return Err(ServiceError::Failed(format!(
            "`{}` has the shape {:?}, what is written another",
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

/// Takes, restores or drops a copy; `writes` is the hook in which weights would be written.
fn copy(
    copies: &mut BTreeMap<String, Weights>,
    weights: &mut Weights,
    request: &CopyRequest,
    writes: Option<EventKind>,
) -> Result<(), ServiceError> {
    if request.action == CopyAction::Take {
        copies.insert(request.name.clone(), weights.clone());
        return Ok(());
    }
    let Some(copy) = copies.get(&request.name) else {
        return Err(ServiceError::no_such_name("copy", &request.name, copies.keys().map(String::as_str)));
    };
    match writes {
        Some(hook) => {
            safe_for_weights(hook)?;
            *weights = copy.clone();
        }
        None => {
            copies.remove(&request.name);
        }
    }
    Ok(())
}

fn predict(world: &World, request: &Request<'_>, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    let Predict { split, batches, nodes } = request.decode()?;
    let samples = match &split {
        Some(split) => {
            let batches = batches.clamp(1, batches_of(split)?);
            i64::try_from(batches).unwrap_or(1) * super::world::BATCH
        }
        None => {
            let inputs = request.tensors.first();
            let inputs = inputs.ok_or_else(|| ServiceError::Failed("there are no inputs".to_owned()))?;
            let inputs = Values::from_plugin(inputs)?;
            let (found, expected) = (inputs.shape.get(1..).unwrap_or_default(), &world.batch[0].shape[1..]);
            if found != expected {
                return Err(ServiceError::Failed(format!("a sample has the shape {expected:?}, not {found:?}")));
            }
            inputs.shape[0]
        }
    };
    let values = nodes.iter().map(|node| world.node(node, samples)).collect::<Result<Vec<_>, _>>()?;
    reply.lend(outputs(samples).lend());
    if split.is_some() {
        reply.lend(Values::i64("targets", vec![samples], |index| index as i64 % 3).lend());
    }
    values.iter().for_each(|value| reply.lend(value.lend()));
    Ok(())
}

fn measure(world: &World, measure: &Measure, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    batches_of(&measure.split)?;
    if let Some(name) = &measure.weights
        && !world.copies.contains_key(name)
    {
        let names = world.copies.keys().map(String::as_str);
        return Err(ServiceError::no_such_name("copy of the weights", name, names));
    }
    let known = ["loss", "accuracy"];
    let wanted: Vec<&str> =
        if measure.metrics.is_empty() { known.to_vec() } else { measure.metrics.iter().map(String::as_str).collect() };
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        return Err(ServiceError::no_such_name("metric", unknown, known));
    }
    reply.value(&wanted.into_iter().map(|name| (name, 0.5)).collect::<BTreeMap<_, _>>())
}

fn batches_of(split: &str) -> Result<u64, ServiceError> {
    let found = SPLITS.iter().find(|(name, _)| *name == split);
    found
        .map(|(_, batches)| *batches)
        .ok_or_else(|| ServiceError::no_such_name("split", split, SPLITS.iter().map(|(name, _)| *name)))
}

/// Writes a folder with a manifest, so that a plugin finds something where a checkpoint would be.
fn write_checkpoint(world: &World, path: &str) -> Result<CheckpointWritten, ServiceError> {
    let folder = Path::new(&world.info.folder).join(path);
    let existed = folder.is_dir();
    let failed = |error: std::io::Error| ServiceError::Failed(format!("cannot write `{path}`: {error}"));
    let manifest = "{}\n";
    std::fs::create_dir_all(&folder).map_err(failed)?;
    std::fs::write(folder.join("manifest.json"), manifest).map_err(failed)?;
    Ok(CheckpointWritten { path: folder.display().to_string(), bytes: manifest.len() as u64, existed })
}
