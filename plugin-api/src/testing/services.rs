//! The services of the fake host.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::host_call::metric;
use super::world::{Tensors, World, no_such_name, refused};
use crate::abi::kinds::{ServiceKind, Status};
use crate::error::{Error, Result};
use crate::event::Position;
use crate::protocol::requests::{
    ArrayPut, BatchRequest, ControlRequest, CopyRequest, Evaluate, Freeze, HyperParameterSet, LimitBatches, Line,
    LinesAfter, Measure, MetricPut, Name, OpenSplit, Path, Predict, Profile, QueueCheckpoint, StatusLine,
    TensorsRequest, TrainSteps,
};
use crate::protocol::{CheckpointWritten, ConsoleLine, CopyAction, Record, TensorInfo, TensorSet, WeightsInfo};
use crate::services::{Presence, Route, Site, fitting, no_batch, nothing_learns, option_of, permit, split_is_there};
use crate::tensor::{Tensor, TensorView};

/// The answer of a service.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) tensors: Vec<Tensor>,
}

impl Answer {
    fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        Ok(Self { bytes: rmp_serde::to_vec_named(value)?, tensors: Vec::new() })
    }

    fn tensors(tensors: Vec<Tensor>) -> Self {
        Self { bytes: Vec::new(), tensors }
    }
}

pub(super) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T> {
    rmp_serde::from_slice(payload).map_err(|error| Error::from(error).context("the request is not understood"))
}

impl World {
    /// Answers a service.
    pub(super) fn answer(
        &mut self,
        service: ServiceKind,
        payload: &[u8],
        tensors: &[TensorView<'_>],
    ) -> Result<Answer> {
        let site = Site {
            caller: self.given.caller,
            hook: self.hook.event,
            needs: &self.given.needs,
            presence: Presence::Single,
        };
        if permit(service, &site, payload).map_err(refused)? == Route::Later {
            self.later.push((service, payload.to_vec()));
            return Ok(Answer::default());
        }
        self.answer_now(service, payload, tensors)
    }

    /// Handles the requests of a hook in the background, once it has returned.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        for (service, payload) in std::mem::take(&mut self.later) {
            let context = format!("`{}` requested in the background", service.name());
            self.answer_now(service, &payload, &[]).map_err(|error| error.context(context))?;
        }
        Ok(())
    }

    fn answer_now(&mut self, service: ServiceKind, payload: &[u8], tensors: &[TensorView<'_>]) -> Result<Answer> {
        if let Some(message) = self.given.failing.get(&service) {
            return Err(Error::new(message.clone()));
        }
        match service {
            ServiceKind::FAULT => self.hook.fault = Some(decode(payload)?),
            ServiceKind::SAVE_STATE => self.hook.state = Some(payload.to_vec()),
            ServiceKind::OPTION => {
                let Name { name } = decode(payload)?;
                let option = option_of(&self.given.options, &name).map_err(refused)?;
                return Answer::of(option);
            }
            ServiceKind::RUN_INFO => return Answer::of(&self.given.info),
            ServiceKind::CONSOLE_LINE => self.seen.lines.push(decode::<Line>(payload)?.text),
            ServiceKind::CONSOLE_LINES => {
                let LinesAfter { after } = decode(payload)?;
                let lines = (1..).zip(&self.seen.lines).filter(|(number, _)| *number > after);
                let lines = lines.map(|(number, text)| ConsoleLine { number, time: 0.0, text: text.clone() });
                return Answer::of(&lines.collect::<Vec<_>>());
            }
            ServiceKind::KEEP_ALIVE => {}
            ServiceKind::HOOK_TIMES => return Answer::of(&self.given.times),
            ServiceKind::PROFILE => {
                self.seen.recording = Some(decode::<Profile>(payload)?.record);
                return Answer::of(&std::mem::take(&mut self.given.spans));
            }
            ServiceKind::CONSOLE_STATUS => {
                let status: StatusLine = decode(payload)?;
                if status.text.is_empty() {
                    self.seen.statuses.remove(&status.name);
                } else {
                    self.seen.statuses.insert(status.name.clone(), status);
                }
            }
            ServiceKind::ARTIFACT => self.seen.artifacts.push(decode(payload)?),
            ServiceKind::EMIT => {
                let carried = tensors.iter().map(TensorView::to_owned).collect::<Result<Vec<_>>>()?;
                self.seen.emitted.push(decode(payload)?);
                self.seen.emitted_tensors.push(carried);
            }
            ServiceKind::CONTROL => self.seen.requests.push(decode::<ControlRequest>(payload)?),
            ServiceKind::REMOTE => return Answer::of(&self.remote.open()),
            ServiceKind::WRITE_CHECKPOINT => return self.write_checkpoint(&decode::<Path>(payload)?.path),
            ServiceKind::QUEUE_CHECKPOINT => return self.queue_checkpoint(decode(payload)?),
            ServiceKind::HISTORY_REMOVE => {
                let Name { name } = decode(payload)?;
                self.given.history.remove(&name);
                self.given.arrays.remove(&name);
                if let Some(value) = self.given.metrics.get_mut(&name) {
                    *value = None;
                }
            }
            ServiceKind::METRIC_PUT
            | ServiceKind::METRIC
            | ServiceKind::METRICS
            | ServiceKind::METRIC_POINTS
            | ServiceKind::RECORD_PUT
            | ServiceKind::RECORD
            | ServiceKind::HISTORY_NAMES
            | ServiceKind::HISTORY_SERIES
            | ServiceKind::HISTORY_LATEST
            | ServiceKind::HISTORY_ARRAYS
            | ServiceKind::LATEST_ARRAYS
            | ServiceKind::WEIGHTS_INFO
            | ServiceKind::ARRAY_PUT => return self.records(service, payload),
            ServiceKind::HYPER_PARAMETERS => return Answer::of(&self.given.groups),
            ServiceKind::HYPER_PARAMETER_SET => self.set_hyper_parameter(decode(payload)?)?,
            _ => return self.model(service, payload, tensors),
        }
        Ok(Answer::default())
    }

    fn records(&mut self, service: ServiceKind, payload: &[u8]) -> Result<Answer> {
        match service {
            ServiceKind::METRIC_PUT => {
                let MetricPut { name, value } = decode(payload)?;
                self.put_metric(&name, value);
            }
            ServiceKind::METRICS => {
                let with_value = self.given.metrics.iter().filter_map(|(name, value)| Some((name, (*value)?)));
                return Answer::of(&with_value.collect::<std::collections::BTreeMap<_, _>>());
            }
            ServiceKind::METRIC_POINTS => {
                let with_value = self.given.metrics.iter().filter(|(_, value)| value.is_some());
                let points = with_value.filter_map(|(name, _)| Some((name, self.given.history.get(name)?.last()?)));
                return Answer::of(&points.collect::<std::collections::BTreeMap<_, _>>());
            }
            ServiceKind::METRIC => return Answer::of(&metric(&self.given.metrics, &decode::<Name>(payload)?.name)?),
            ServiceKind::RECORD_PUT => self.seen.records.push(decode::<Record>(payload)?),
            ServiceKind::RECORD => {
                return Answer::of(self.hook.record.as_ref().ok_or_else(|| not_set("record", "record"))?);
            }
            ServiceKind::HISTORY_NAMES => {
                let names: Vec<_> = self.given.history.keys().chain(self.given.arrays.keys()).collect();
                return Answer::of(&names);
            }
            ServiceKind::HISTORY_SERIES => return Answer::of(find(&self.given.history, "metric", payload)?.1),
            ServiceKind::HISTORY_LATEST => {
                let (name, points) = find(&self.given.history, "metric", payload)?;
                let others = self.given.history.keys().map(String::as_str);
                let latest = points.last().ok_or_else(|| no_such_name("metric", &name, others))?;
                return Answer::of(latest);
            }
            ServiceKind::HISTORY_ARRAYS => return Answer::of(find(&self.given.arrays, "metric", payload)?.1),
            ServiceKind::WEIGHTS_INFO => {
                let Position { epoch, global_step, .. } = self.hook.position;
                let last = self.given.history.iter().filter_map(|(name, points)| Some((name, points.last()?)));
                let measured = last.filter(|(_, point)| point.global_step == global_step);
                let metrics = measured.map(|(name, point)| (name.clone(), point.value)).collect();
                return Answer::of(&WeightsInfo { epoch, global_step, metrics });
            }
            ServiceKind::LATEST_ARRAYS => {
                let latest = self.given.arrays.iter().filter_map(|(name, arrays)| Some((name, arrays.last()?)));
                return Answer::of(&latest.collect::<std::collections::BTreeMap<_, _>>());
            }
            _ => {
                let ArrayPut { name, shape, values } = decode(payload)?;
                if shape.iter().product::<u64>() != values.len() as u64 {
                    return Err(Error::new(format!("`{name}` has the shape {shape:?} but {} values", values.len())));
                }
                self.put_array(&name, shape, values);
            }
        }
        Ok(Answer::default())
    }

    fn model(&mut self, service: ServiceKind, payload: &[u8], tensors: &[TensorView<'_>]) -> Result<Answer> {
        match service {
            ServiceKind::TENSOR_LIST => {
                let TensorsRequest { set, .. } = decode(payload)?;
                let infos: Vec<_> = of_set(&self.given.tensors, &set)?
                    .iter()
                    .map(|tensor| TensorInfo {
                        name: tensor.name().to_owned(),
                        shape: tensor.view().shape().to_vec(),
                        dtype: tensor.view().dtype().name(),
                    })
                    .collect();
                return Answer::of(&infos);
            }
            ServiceKind::TENSOR_READ => {
                let TensorsRequest { set, names } = decode(payload)?;
                let of_set = of_set(&self.given.tensors, &set)?;
                if names.is_empty() {
                    return Ok(Answer::tensors(of_set.to_vec()));
                }
                let found = names.iter().map(|name| Ok(of_set[index_of(of_set, &set, name)?].clone()));
                return Ok(Answer::tensors(found.collect::<Result<_>>()?));
            }
            ServiceKind::TENSOR_WRITE => self.write_tensors(&decode::<TensorsRequest>(payload)?.set, tensors)?,
            ServiceKind::TENSOR_TO_HOST => {
                return Ok(Answer::tensors(tensors.iter().map(TensorView::to_owned).collect::<Result<_>>()?));
            }
            ServiceKind::WEIGHTS_COPY => self.copy_weights(decode(payload)?)?,
            ServiceKind::TRAINING_STATE_COPY => self.copy_training_state(decode(payload)?)?,
            ServiceKind::TAP => self.seen.taps.push(decode(payload)?),
            ServiceKind::LOSS => {
                return Answer::of(&self.given.loss.ok_or_else(|| not_set("loss", "set_loss"))?);
            }
            ServiceKind::GRAPH => {
                let graph = self.given.graph.as_ref().ok_or_else(|| not_set("graph", "set_graph"))?;
                return Ok(Answer { bytes: serde_json::to_vec(graph)?, tensors: Vec::new() });
            }
            ServiceKind::PREDICT => {
                let request: Predict = decode(payload)?;
                let inputs = tensors.iter().map(TensorView::to_owned).collect::<Result<Vec<_>>>()?;
                let predict = self.given.predict.as_mut().ok_or_else(|| not_set("prediction", "answer_predict"))?;
                return Ok(Answer::tensors(predict(&request, &inputs)?));
            }
            ServiceKind::MEASURE => {
                let request: Measure = decode(payload)?;
                let measure = self.given.measure.as_mut().ok_or_else(|| not_set("measurement", "answer_measure"))?;
                return Answer::of(&measure(&request)?);
            }
            ServiceKind::EVALUATE => {
                let request: Evaluate = decode(payload)?;
                let evaluate = self.given.evaluate.as_mut().ok_or_else(|| not_set("expression", "answer_evaluate"))?;
                return Answer::of(&evaluate(&request)?);
            }
            ServiceKind::TRAIN_STEPS => {
                let TrainSteps { steps, .. } = decode(payload)?;
                let train = self.given.train_steps.as_mut();
                return Answer::of(&train.ok_or_else(|| not_set("training", "answer_train_steps"))?(steps)?);
            }
            ServiceKind::RECALIBRATE_BATCH_NORM => self.seen.recalibrations.push(decode(payload)?),
            ServiceKind::FREEZE => self.freeze(&decode(payload)?)?,
            ServiceKind::OPEN_SPLIT => self.open_split(decode(payload)?)?,
            ServiceKind::LIMIT_BATCHES => self.limit_batches(decode(payload)?)?,
            ServiceKind::BATCH => {
                let BatchRequest { split, index, all } = decode(payload)?;
                let names = self.given.batches.keys().map(String::as_str);
                let batches = self.given.batches.get(&split).ok_or_else(|| no_such_name("split", &split, names))?;
                let batch = usize::try_from(index).ok().and_then(|index| batches.get(index));
                let batch = batch.ok_or_else(|| {
                    Error::new(format!("split `{split}` has {} batches, no batch {index}", batches.len()))
                })?;
                let first = if all { batch.len() } else { 2 };
                return Ok(Answer::tensors(batch.iter().take(first).cloned().collect()));
            }
            _ => {
                let message = format!("this host has no service {}; use a newer host", service.0);
                return Err(Error::of_service(Status::UNKNOWN, message));
            }
        }
        Ok(Answer::default())
    }

    pub(super) fn write_checkpoint(&mut self, path: &str) -> Result<Answer> {
        let folder = self.folder().join(path);
        let existed = folder.exists();
        std::fs::create_dir_all(&folder).map_err(|error| Error::from(error).context(folder.display()))?;
        let written = CheckpointWritten { path: folder.display().to_string(), bytes: 0, existed };
        self.seen.checkpoints.push(written.clone());
        Answer::of(&written)
    }

    fn queue_checkpoint(&mut self, request: QueueCheckpoint) -> Result<Answer> {
        let QueueCheckpoint { path, instead_of } = request;
        // The first one is being written.
        let waiting = self.seen.queued.split_off(self.seen.queued.len().min(1));
        let (left_out, waiting): (Vec<String>, Vec<String>) =
            waiting.into_iter().partition(|waits| instead_of.contains(waits));
        self.seen.queued.extend(waiting);
        self.seen.queued.push(path);
        Answer::of(&left_out)
    }

    fn set_hyper_parameter(&mut self, set: HyperParameterSet) -> Result<()> {
        let instance = self.given.info.instance.clone();
        let mut matched = false;
        for group in &mut self.given.groups {
            let wanted = set.group.as_ref().is_none_or(|name| *name == group.name);
            if let Some(value) = group.values.get_mut(&set.name).filter(|_| wanted) {
                *value = set.value;
                group.owners.insert(set.name.clone(), instance.clone());
                matched = true;
            }
        }
        if matched {
            return Ok(());
        }
        if let Some(group) = &set.group
            && !self.given.groups.iter().any(|other| other.name == *group)
        {
            let names = self.given.groups.iter().map(|group| group.name.as_str());
            return Err(no_such_name("parameter group", group, names));
        }
        let names = self.given.groups.iter().flat_map(|group| group.values.keys()).map(String::as_str);
        Err(no_such_name("hyper-parameter", &set.name, names))
    }

    fn write_tensors(&mut self, set: &TensorSet, tensors: &[TensorView<'_>]) -> Result<()> {
        let before = of_set(&self.given.tensors, set)?;
        let mut after = before.to_vec();
        for tensor in tensors {
            let index = index_of(before, set, tensor.name())?;
            let expected = before[index].view();
            if (expected.shape(), expected.dtype()) != (tensor.shape(), tensor.dtype()) {
                return Err(Error::new(format!(
                    "`{}` is {} {:?}, not {} {:?}",
                    tensor.name(),
                    expected.dtype().name(),
                    expected.shape(),
                    tensor.dtype().name(),
                    tensor.shape()
                )));
            }
            after[index] = tensor.to_owned()?;
        }
        self.given.tensors.insert(set.clone(), after);
        Ok(())
    }

    fn freeze(&mut self, request: &Freeze) -> Result<()> {
        let parameters = of_set(&self.given.tensors, &TensorSet::Parameters)?;
        let names: Vec<&str> = parameters.iter().map(Tensor::name).collect();
        let fitting = fitting("parameter", &request.patterns, &names).map_err(refused)?;
        let mut frozen = self.seen.frozen.clone();
        for name in fitting {
            frozen.remove(name);
            if request.frozen {
                frozen.insert(name.to_owned(), request.moving_statistics);
            }
        }
        if frozen.len() == names.len() {
            return Err(refused(nothing_learns()));
        }
        self.seen.frozen = frozen;
        Ok(())
    }

    fn limit_batches(&mut self, LimitBatches { split, batches }: LimitBatches) -> Result<()> {
        let known = self.given.info.data.splits.keys().chain(self.given.batches.keys());
        let names: Vec<&str> = known.map(String::as_str).chain(["train"]).collect();
        if !names.contains(&split.as_str()) {
            return Err(no_such_name("split", &split, names));
        }
        match batches {
            Some(0) => return Err(refused(no_batch(&split))),
            Some(batches) => self.seen.limits.insert(split, batches),
            None => self.seen.limits.remove(&split),
        };
        Ok(())
    }

    fn open_split(&mut self, request: OpenSplit) -> Result<()> {
        let splits = &mut self.given.info.data.splits;
        if splits.contains_key(&request.name) || self.given.batches.contains_key(&request.name) {
            return Err(refused(split_is_there(&request.name)));
        }
        splits.insert(request.name.clone(), 0);
        self.seen.opened.push(request);
        Ok(())
    }

    fn copy_weights(&mut self, request: CopyRequest) -> Result<()> {
        let key = TensorSet::Copy(request.name.clone());
        if request.action == CopyAction::Take {
            let mut weights = Vec::new();
            for set in [TensorSet::Parameters, TensorSet::Buffers] {
                weights.extend(self.given.tensors.get(&set).into_iter().flatten().cloned());
            }
            self.given.tensors.insert(key, weights);
            return Ok(());
        }
        let Some(copy) = self.given.tensors.get(&key).cloned() else {
            let names = self.given.tensors.keys().filter_map(|set| match set {
                TensorSet::Copy(name) => Some(name.as_str()),
                _ => None,
            });
            return Err(no_such_name("copy of the weights", &request.name, names));
        };
        if request.action == CopyAction::Drop {
            self.given.tensors.remove(&key);
            return Ok(());
        }
        for set in [TensorSet::Parameters, TensorSet::Buffers] {
            for tensor in self.given.tensors.get_mut(&set).into_iter().flatten() {
                if let Some(kept) = copy.iter().find(|kept| kept.name() == tensor.name()) {
                    *tensor = kept.clone();
                }
            }
        }
        Ok(())
    }

    fn copy_training_state(&mut self, request: CopyRequest) -> Result<()> {
        let state = [TensorSet::Parameters, TensorSet::Buffers, TensorSet::Optimizer];
        if request.action == CopyAction::Take {
            let taken = state.into_iter().filter_map(|set| Some((set.clone(), self.given.tensors.get(&set)?.clone())));
            let taken = taken.collect();
            self.given.training_states.insert(request.name, (taken, self.given.groups.clone()));
            return Ok(());
        }
        let Some((kept, groups)) = self.given.training_states.get(&request.name).cloned() else {
            let names = self.given.training_states.keys().map(String::as_str);
            return Err(no_such_name("copy of the training state", &request.name, names));
        };
        if request.action == CopyAction::Drop {
            self.given.training_states.remove(&request.name);
            return Ok(());
        }
        self.given.tensors.extend(kept);
        self.given.groups = groups;
        Ok(())
    }
}

/// The entry with the name in the request.
fn find<'m, T>(map: &'m std::collections::BTreeMap<String, T>, what: &str, payload: &[u8]) -> Result<(String, &'m T)> {
    let Name { name } = decode(payload)?;
    let value = map.get(&name).ok_or_else(|| no_such_name(what, &name, map.keys().map(String::as_str)))?;
    Ok((name, value))
}

fn of_set<'t>(tensors: &'t Tensors, set: &TensorSet) -> Result<&'t [Tensor]> {
    tensors.get(set).map(Vec::as_slice).ok_or_else(|| {
        let message = format!("there are no tensors in `{set}`; the test sets them with `put_tensor`");
        Error::of_service(Status::NO_SUCH_NAME, message)
    })
}

fn index_of(tensors: &[Tensor], set: &TensorSet, name: &str) -> Result<usize> {
    let found = tensors.iter().position(|tensor| tensor.name() == name);
    found.ok_or_else(|| no_such_name(&format!("tensor in `{set}` called"), name, tensors.iter().map(Tensor::name)))
}

fn not_set(what: &str, method: &str) -> Error {
    Error::new(format!("the fake host has no {what}; the test sets it with `FakeHost::{method}`"))
}
