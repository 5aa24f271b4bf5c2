//! The content of a training's checkpoint, and how a training resumes from one.

mod resume;
mod tensor;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use plugin_api::protocol::CheckpointWritten;
use plugin_api::protocol::requests::QueueCheckpoint;
use serde::{Deserialize, Serialize};
use tch::Device;

use super::error::TrainError;
use super::kept::WeightsCopy;
use super::metrics::{AccumulatorState, AverageState};
use super::progress::CountedFrom;
use super::session::Session;
use crate::checkpoint::{
    self, CheckpointContents, CheckpointError, EarlierWeights, HyperParameter, PluginState, State,
};
use crate::dispatch::{SavedState, ScheduleState};
use crate::history::{Exact, History, HistoryView, Position};
use crate::model::{Frozen, NamedTensor, contained};
use crate::services::ServiceError;
use crate::torch::random;

pub use resume::{Resume, ResumeError};
pub(super) use tensor::HostTensor;
pub(super) use writer::{CheckpointWriter, Queued};

/// Digests of what a run is made from, which a resume compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    /// Of the data; see [`Data::fingerprint`](crate::data::Data::fingerprint).
    pub data: String,
    /// Of the file of the TorchScript module, if the model is one.
    pub torchscript: Option<String>,
}

/// The states of callbacks and schedules for a checkpoint that is being taken.
pub(super) struct PendingCheckpoint {
    pub(super) plugins: BTreeMap<String, SavedState>,
    pub(super) schedules: BTreeMap<String, ScheduleState>,
}

/// The state of the loop and of dispatch in `state.json`, besides metrics.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoopState {
    /// Whether the epoch at the position is over.
    epoch_is_over: bool,
    /// The run's time so far, in seconds.
    seconds: Exact,
    /// The sums of the epoch's losses.
    loss: AverageState,
    /// The states of the epoch's metrics, by name.
    metrics: BTreeMap<String, AccumulatorState>,
    /// The norm of the last step's gradients, if they are clipped.
    #[serde(default)]
    gradient_norm: Option<Exact>,
    /// The fingerprint of the data.
    #[serde(default)]
    data: Option<String>,
    /// The digest of the TorchScript module, of a model that is one.
    #[serde(default)]
    torchscript: Option<String>,
    /// When the weights of each copy were those of the training.
    #[serde(default)]
    copies: BTreeMap<String, Position>,
    /// What is frozen; absent where nothing is and the run file names nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frozen: Option<Frozen>,
    /// The most batches of the training split in the epoch, if a callback has limited them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    most_batches: Option<u64>,
    /// From where the run's steps are counted in epochs of their present length.
    #[serde(default, skip_serializing_if = "CountedFrom::is_start")]
    counted_from: CountedFrom,
    /// The latest value of each metric and its position.
    latest: BTreeMap<String, (Exact, Position)>,
}

/// `graph.json` of a model without a graph.
const NO_GRAPH: &str = "null";

/// The name of the copy with the training's own weights, if the model has those of an earlier step. No callback's copy
/// begins with a slash.
const TRAINED: &str = "/trained";

/// The names of the parts in `state.json`.
const LOOP: &str = "train";
const SCHEDULES: &str = "dispatch";

/// What a program's own batch step remembers.
const PROGRAM: &str = "program";

/// The versions of the plugins whose states the checkpoint has, by instance.
const VERSIONS: &str = "plugin_versions";

/// The patterns of `[model] freeze` in a resolved run file.
fn frozen_by_run_file(text: &str) -> Vec<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct RunFile {
        model: Model,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Model {
        freeze: Vec<String>,
    }
    toml::from_str::<RunFile>(text).unwrap_or_default().model.freeze
}

/// The whole content of a checkpoint, independent of the loop: any thread can write it.
pub(super) struct CheckpointData {
    weights: Option<EarlierWeights>,
    model: Vec<HostTensor>,
    optimizer: Vec<HostTensor>,
    copies: Vec<HostTensor>,
    rng: Vec<HostTensor>,
    /// Without its history.
    state: State,
    /// As of the checkpoint; it is copied by the thread that writes.
    history: HistoryView,
    graph: Arc<str>,
    data: Arc<str>,
    run_file: Arc<str>,
    torchscript: Option<Arc<[u8]>>,
    pending: Arc<PendingCheckpoint>,
}

impl CheckpointData {
    /// Writes it to `path`, which is absolute.
    pub(super) fn write(&self, path: &Path) -> Result<CheckpointWritten, CheckpointError> {
        let existed = path.is_dir();
        let state = State { history: self.history.to_history(), ..self.state.clone() };
        let contents = CheckpointContents {
            weights: self.weights.as_ref(),
            model: self.model.iter().map(HostTensor::as_ref).collect(),
            optimizer: self.optimizer.iter().map(HostTensor::as_ref).collect(),
            copies: self.copies.iter().map(HostTensor::as_ref).collect(),
            rng: self.rng.iter().map(HostTensor::as_ref).collect(),
            state: &state,
            graph: &self.graph,
            data: &self.data,
            run_file: &self.run_file,
            torchscript: self.torchscript.as_deref(),
            plugins: self
                .pending
                .plugins
                .iter()
                .map(|(instance, state)| PluginState { instance, bytes: &state.bytes })
                .collect(),
        };
        let written = checkpoint::write(&contents, path)?;
        if let Some(aside) = &written.moved_aside {
            tracing::warn!(path = %aside.display(), "a damaged checkpoint had this name; it was moved aside");
        }
        Ok(CheckpointWritten { path: written.path.display().to_string(), bytes: written.bytes, existed })
    }

    /// Where the run was.
    fn position(&self) -> Position {
        self.state.position
    }
}

impl Session {
    pub(super) fn begin_checkpoint(
        &mut self,
        plugins: BTreeMap<String, SavedState>,
        schedules: BTreeMap<String, ScheduleState>,
    ) {
        self.kept.pending = Some(Arc::new(PendingCheckpoint { plugins, schedules }));
    }

    pub(super) fn end_checkpoint(&mut self) {
        self.kept.pending = None;
    }

    /// Copies the checkpoint that is being taken, and queues it to be written; returns what is left out instead.
    pub(super) fn queue_checkpoint(&mut self, request: QueueCheckpoint) -> Result<Vec<String>, ServiceError> {
        let QueueCheckpoint { path: name, instead_of } = request;
        let data = self.collect_checkpoint(true)?;
        let data = data.ok_or_else(|| ServiceError::NotAllowed("no checkpoint is being taken".to_owned()))?;
        let queued = Queued { path: self.in_run_folder(&name), name, data };
        if self.kept.writer.is_none() {
            let tell = self.kept.written.clone();
            let tell = tell.ok_or_else(|| ServiceError::NotAllowed("there are no callbacks".to_owned()))?;
            let failed =
                |source| TrainError::System { action: "cannot start the thread that writes checkpoints", source };
            self.kept.writer = Some(CheckpointWriter::start(tell).map_err(failed)?);
        }
        Ok(self.kept.writer.as_ref().map_or_else(Vec::new, |writer| writer.queue(queued, &instead_of)))
    }

    /// Waits until the checkpoints that were queued are written.
    pub(super) fn finish_checkpoints(&self) {
        if let Some(writer) = &self.kept.writer {
            writer.finish();
        }
    }

    /// Collects the checkpoint that is being taken; with `copied`, outside the loop's memory.
    pub(super) fn collect_checkpoint(&mut self, copied: bool) -> Result<Option<CheckpointData>, TrainError> {
        let Some(pending) = self.kept.pending.clone() else { return Ok(None) };
        let named = |tensors: &[NamedTensor]| -> Result<Vec<HostTensor>, TrainError> {
            tensors.iter().map(|named| HostTensor::new(&named.name, &named.tensor, copied)).collect()
        };
        let mut model = named(self.learner.network.parameters())?;
        model.extend(named(self.learner.network.buffers())?);
        let optimizer = self
            .learner
            .optimizer
            .state()
            .iter()
            .map(|(name, tensor)| HostTensor::new(name, tensor, copied))
            .collect::<Result<_, _>>()?;
        let mut copies = Vec::new();
        let of_callbacks = self.kept.copies.iter().map(|(name, copy)| (name.as_str(), &copy.tensors));
        let own = self.kept.restored.as_ref().map(|restored| (TRAINED, &restored.trained));
        for (copy, tensors) in of_callbacks.chain(own) {
            for named in tensors {
                copies.push(HostTensor::new(&format!("{copy}/{}", named.name), &named.tensor, copied)?);
            }
        }
        let rng = random::generator_states()?
            .iter()
            .map(|(name, state)| HostTensor::new(name, state, false))
            .collect::<Result<_, _>>()?;
        let mut hyper_parameters = Vec::new();
        for (index, group) in self.learner.optimizer.groups().iter().enumerate() {
            for &name in group.hyper_parameter_names() {
                let owner = self.learner.owners.get(&(group.name().to_owned(), name.to_owned())).cloned();
                let value = Exact(group.get(name)?);
                hyper_parameters.push(HyperParameter { group: index, name: name.to_owned(), value, owner });
            }
        }
        let mut accumulated = BTreeMap::new();
        for accumulator in &mut self.measured.accumulators {
            accumulated.insert(accumulator.metric().name().into_owned(), accumulator.state()?);
        }
        let loop_state = LoopState {
            epoch_is_over: self.progress.epoch_is_over,
            seconds: Exact(self.progress.started().elapsed().as_secs_f64()),
            loss: self.measured.loss.state(),
            metrics: accumulated,
            gradient_norm: self.learner.step.gradient_norm.map(Exact),
            data: Some(self.fingerprints.data.clone()),
            torchscript: self.fingerprints.torchscript.clone(),
            frozen: match self.learner.network.frozen() {
                frozen if frozen.is_empty() && frozen_by_run_file(&self.run_file).is_empty() => None,
                frozen => Some(frozen.clone()),
            },
            most_batches: self.feed.limits.of_epoch(),
            counted_from: self.progress.counted_from(),
            copies: self.kept.copies.iter().map(|(name, copy)| (name.clone(), copy.position)).collect(),
            latest: self
                .measured
                .latest
                .iter()
                .map(|(name, metric)| (name.to_owned(), (Exact(metric.value), metric.position)))
                .collect(),
        };
        let module = |value: serde_json::Result<serde_json::Value>| {
            value.map_err(|error| TrainError::System { action: "cannot write the loop's state", source: error.into() })
        };
        let versions: BTreeMap<&String, &String> =
            pending.plugins.iter().map(|(instance, state)| (instance, &state.version)).collect();
        let program = match &self.program_state {
            // Bytes of any kind are text in JSON: two digits each.
            Some(save) => contained(|| Ok(save()))
                .map_err(|message| TrainError::Program { part: "state", message })?
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into(),
            None => serde_json::Value::Null,
        };
        let state = State {
            position: self.progress.position,
            threads: tch::get_num_threads().max(1) as usize,
            hyper_parameters,
            modules: BTreeMap::from([
                (LOOP.to_owned(), module(serde_json::to_value(&loop_state))?),
                (SCHEDULES.to_owned(), module(serde_json::to_value(&pending.schedules))?),
                (VERSIONS.to_owned(), module(serde_json::to_value(versions))?),
                (PROGRAM.to_owned(), program),
            ]),
            history: History::new(),
        };
        let weights = self.kept.restored.as_ref().map(|restored| {
            let history = HistoryView::now(Arc::clone(&self.measured.history));
            let origin = self.kept.origin(self.progress.position);
            let mut metrics = history.of_weights(restored.position.global_step, origin.since);
            metrics.retain(|_, value| value.is_finite());
            EarlierWeights { position: restored.position, metrics }
        });
        Ok(Some(CheckpointData {
            weights,
            model,
            optimizer,
            copies,
            rng,
            state,
            history: self.history(),
            graph: self.graph_text()?.unwrap_or_else(|| NO_GRAPH.into()),
            data: Arc::clone(&self.data_text),
            run_file: Arc::clone(&self.run_file),
            torchscript: self.torchscript.clone(),
            pending,
        }))
    }

    /// Takes the model of the checkpoint as it is, and what was measured of it.
    pub(super) fn adopt(&mut self, resume: Resume) -> Result<(), TrainError> {
        let Resume { state, loop_state, model, weights, .. } = resume;
        self.load_model(&model)?;
        for (name, (value, position)) in &loop_state.latest {
            self.measured.restore(*position, name, value.0);
        }
        let since = state.history.next_sequence();
        self.measured.history = Arc::new(RwLock::new(state.history));
        if let Some(earlier) = weights {
            self.kept.adopt(earlier.position, since);
        }
        Ok(())
    }

    fn load_model(&mut self, model: &[NamedTensor]) -> Result<(), TrainError> {
        let weights = self.learner.network.parameters().iter().chain(self.learner.network.buffers());
        if let Some(missing) = weights.into_iter().find(|own| !model.iter().any(|saved| saved.name == own.name)) {
            return Err(TrainError::MissingTensor { name: missing.name.clone() });
        }
        Ok(self.learner.network.write_all(model)?)
    }

    /// Restores the session to the checkpoint.
    pub(super) fn restore(&mut self, resume: Resume) -> Result<(), TrainError> {
        let Resume { state, loop_state, model, optimizer, copies, rng, .. } = resume;
        self.load_model(&model)?;
        // The checkpoint's model may have the weights of an earlier step; the training goes on from its own.
        let (own, copies): (Vec<_>, Vec<_>) =
            copies.into_iter().partition(|(name, _)| name.rsplit_once('/').is_some_and(|(copy, _)| copy == TRAINED));
        if !own.is_empty() {
            let named = own.into_iter().filter_map(|(name, tensor)| {
                let name = name.rsplit_once('/')?.1.to_owned();
                Some(NamedTensor { name, tensor })
            });
            self.learner.network.write_all(&named.collect::<Vec<_>>())?;
        }
        for parameter in &state.hyper_parameters {
            let Some(group) = self.learner.optimizer.groups().get(parameter.group) else { continue };
            let group = group.name().to_owned();
            // The options set those without an owner, and the schedule the learning rate, from the next step on.
            if let Some(owner) = &parameter.owner {
                self.learner.optimizer.set(&group, &parameter.name, parameter.value.0)?;
                self.learner.owners.insert((group, parameter.name.clone()), owner.clone());
            } else if parameter.name == "learning_rate" {
                // That of the last step: an epoch that ends before the next step puts it among its metrics. Its
                // schedule may have been another, since the length may change.
                self.learner.optimizer.restore_learning_rate(parameter.group, parameter.value.0);
            }
        }
        self.learner.optimizer.load_state(&optimizer)?;
        self.learner.step.gradient_norm = loop_state.gradient_norm.map(|norm| norm.0);
        for (name, tensor) in copies {
            // A copy's name may contain slashes; a tensor's cannot.
            if let Some((copy, name)) = name.rsplit_once('/') {
                let tensor = self.learner.to_device(tensor)?;
                let position = loop_state.copies.get(copy).copied().unwrap_or(state.position);
                let new = || WeightsCopy { tensors: Vec::new(), position };
                let copy = self.kept.copies.entry(copy.to_owned()).or_insert_with(new);
                copy.tensors.push(NamedTensor { name: name.to_owned(), tensor });
            }
        }
        self.progress.epoch_is_over = loop_state.epoch_is_over;
        self.measured.loss.restore(loop_state.loss);
        for accumulator in &mut self.measured.accumulators {
            if let Some(state) = loop_state.metrics.get(&*accumulator.metric().name()) {
                accumulator.restore(state)?;
            }
        }
        for (name, (value, position)) in &loop_state.latest {
            self.measured.restore(*position, name, value.0);
        }
        self.measured.history = Arc::new(RwLock::new(state.history));
        self.progress.set_time_before(Duration::try_from_secs_f64(loop_state.seconds.0).unwrap_or_default());
        if self.progress.epoch_is_over {
            // The next epoch begins at its first batch, even if this one was cut short.
            self.feed.restart(self.progress.next_epoch())?;
        }
        // Last: nothing after this may draw.
        for (name, state) in rng {
            let device = match name.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
                Some(index) if index < tch::Cuda::device_count().max(0) as usize => Device::Cuda(index),
                // A run that resumes without that device does not need its generator.
                Some(_) => continue,
                None => Device::Cpu,
            };
            random::set_generator_state(device, &state)?;
        }
        Ok(())
    }
}
