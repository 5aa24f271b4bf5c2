//! The content of a training's checkpoint, and how a training resumes from one.

mod resume;
mod tensor;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use plugin_api::protocol::CheckpointWritten;
use plugin_api::protocol::requests::{Freeze, QueueCheckpoint};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::error::TrainError;
use super::kept::WeightsCopy;
use super::kernels::Kernels;
use super::loss_scale::LossScale;
use super::metrics::{AccumulatorState, AverageState};
use super::progress::CountedFrom;
use super::ranks::SavedRanks;
use super::session::Session;
use crate::checkpoint::{
    self, CheckpointContents, CheckpointError, EarlierWeights, HyperParameter, PluginState, State,
};
use crate::dispatch::{SavedState, ScheduleState};
use crate::history::{Exact, HistoryView, Position};
use crate::model::{Frozen, ModelError, ModelFile, NamedTensor, contained};
use crate::services::ServiceError;
use crate::torch::products::Products;
use crate::torch::random;

pub use resume::{Resume, ResumeError};
pub(super) use tensor::HostTensor;
pub(super) use writer::CheckpointWriter;
use writer::Queued;

/// Digests of what a run is made from, which a resume compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    /// Of the data; see [`Data::fingerprint`](crate::data::Data::fingerprint).
    pub data: String,
    /// Of the files of a model that is not made of layers.
    pub module: Option<String>,
}

/// The states of callbacks and schedules for a checkpoint that is being taken.
pub(super) struct PendingCheckpoint {
    pub(super) plugins: BTreeMap<String, SavedState>,
    pub(super) schedules: BTreeMap<String, ScheduleState>,
    /// What is each rank's own, where there are several.
    pub(super) ranks: Option<SavedRanks>,
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
    /// The scale of the next step's loss, in f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_scale: Option<LossScale>,
    /// The fingerprint of the data.
    #[serde(default)]
    data: Option<String>,
    /// The digest of the files of a model that is not made of layers.
    #[serde(default, alias = "torchscript")]
    module: Option<String>,
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

/// Who computed the products, under which checkpoints keep it.
const KERNELS: &str = "kernels";
const SCHEDULES: &str = "dispatch";

/// What is each rank's own.
const RANKS: &str = "ranks";

/// What a program's own batch step remembers.
const PROGRAM: &str = "program";

/// The versions of the plugins whose states the checkpoint has, by instance.
const VERSIONS: &str = "plugin_versions";

/// What `[model]` of a resolved run file freezes.
pub(super) fn frozen_by_run_file(text: &str) -> Freeze {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct RunFile {
        model: Model,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Model {
        freeze: Vec<String>,
        moving_statistics: bool,
    }
    let Model { freeze, moving_statistics } = toml::from_str::<RunFile>(text).unwrap_or_default().model;
    Freeze { patterns: freeze, frozen: true, moving_statistics }
}

/// The whole content of a checkpoint, independent of the loop: any thread can write it.
pub(super) struct CheckpointData {
    weights: Option<EarlierWeights>,
    model: Vec<HostTensor>,
    optimizer: Vec<HostTensor>,
    copies: Vec<HostTensor>,
    rng: Vec<HostTensor>,
    position: Position,
    threads: usize,
    products: Products,
    hyper_parameters: Vec<HyperParameter>,
    loop_state: LoopState,
    /// What a program's own batch step remembers.
    program: serde_json::Value,
    /// As of the checkpoint; it is copied by the thread that writes.
    history: HistoryView,
    graph: Arc<str>,
    data: Arc<str>,
    run_file: Arc<str>,
    model_files: Vec<(ModelFile, Arc<[u8]>)>,
    pending: Arc<PendingCheckpoint>,
}

/// Whether the tensors of a checkpoint are copied.
pub(super) enum Copying {
    /// They are the loop's own, for a checkpoint that is written while the loop waits.
    Nothing,
    /// They are copied: into the memory of a checkpoint that nobody needs any more, if there is one. Fresh memory costs more
    /// than the copying.
    Into(Option<Box<CheckpointData>>),
}

/// Tensors as the checkpoint's format takes them; with `copied`, outside the loop's memory, in that of the `spare` ones of the
/// same names where they fit.
fn collect<'t>(
    tensors: impl Iterator<Item = (&'t str, &'t Tensor)>,
    copied: bool,
    spare: Vec<HostTensor>,
) -> Result<Vec<HostTensor>, TrainError> {
    let mut spare = spare.into_iter();
    tensors
        .map(|(name, tensor)| match spare.next() {
            Some(spare) if copied => spare.renewed(name, tensor),
            _ => HostTensor::new(name, tensor, copied),
        })
        .collect()
}

impl CheckpointData {
    /// Writes it to `path`, which is absolute.
    pub(super) fn write(&self, path: &Path) -> Result<CheckpointWritten, CheckpointError> {
        let existed = path.is_dir();
        let not_written = |error: serde_json::Error| CheckpointError::Io {
            action: "write",
            path: path.to_owned(),
            source: error.into(),
        };
        let state = self.state().map_err(not_written)?;
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
            model_files: self.model_files.iter().map(|(file, bytes)| (file.saved_name(), &**bytes)).collect(),
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

    /// What `state.json` holds. It is made by the thread that writes.
    fn state(&self) -> serde_json::Result<State> {
        let versions: BTreeMap<&String, &String> =
            self.pending.plugins.iter().map(|(instance, state)| (instance, &state.version)).collect();
        let mut modules = BTreeMap::from([
            (LOOP.to_owned(), serde_json::to_value(&self.loop_state)?),
            (SCHEDULES.to_owned(), serde_json::to_value(&self.pending.schedules)?),
            (VERSIONS.to_owned(), serde_json::to_value(versions)?),
            (PROGRAM.to_owned(), self.program.clone()),
            (KERNELS.to_owned(), serde_json::to_value(Kernels::new(self.products))?),
        ]);
        if let Some(ranks) = &self.pending.ranks {
            modules.insert(RANKS.to_owned(), serde_json::to_value(ranks)?);
        }
        Ok(State {
            position: self.position,
            threads: self.threads,
            hyper_parameters: self.hyper_parameters.clone(),
            modules,
            history: self.history.to_history(),
        })
    }

    /// Where the run was.
    fn position(&self) -> Position {
        self.position
    }
}

impl Session {
    pub(super) fn begin_checkpoint(
        &mut self,
        plugins: BTreeMap<String, SavedState>,
        schedules: BTreeMap<String, ScheduleState>,
        ranks: Option<SavedRanks>,
    ) {
        self.kept.pending = Some(Arc::new(PendingCheckpoint { plugins, schedules, ranks }));
    }

    pub(super) fn end_checkpoint(&mut self) {
        self.kept.pending = None;
    }

    /// Copies the checkpoint that is being taken, and queues it to be written; returns what is left out instead.
    pub(super) fn queue_checkpoint(&mut self, request: QueueCheckpoint) -> Result<Vec<String>, ServiceError> {
        let QueueCheckpoint { path: name, instead_of } = request;
        let not_allowed = |what: &str| ServiceError::NotAllowed(what.to_owned());
        if self.kept.pending.is_none() {
            return Err(not_allowed("no checkpoint is being taken"));
        }
        if self.kept.writer.is_none() {
            let tell = self.kept.written.clone().ok_or_else(|| not_allowed("there are no callbacks"))?;
            let failed =
                |source| TrainError::System { action: "cannot start the thread that writes checkpoints", source };
            self.kept.writer = Some(CheckpointWriter::start(tell).map_err(failed)?);
        }
        let left_out = self.kept.writer.as_ref().map(|writer| writer.take_back(&instead_of)).unwrap_or_default();
        let names = left_out.iter().map(|queued| queued.name.clone()).collect();
        let spare = left_out.into_iter().next().map(|queued| Box::new(queued.data));
        let data = self.collect_checkpoint(Copying::Into(spare))?;
        if let (Some(data), Some(writer)) = (data, &self.kept.writer) {
            writer.queue(Queued { path: self.in_run_folder(&name), name, data });
        }
        Ok(names)
    }

    /// Waits until the checkpoints that were queued are written.
    pub(super) fn finish_checkpoints(&self) {
        if let Some(writer) = &self.kept.writer {
            writer.finish();
        }
    }

    /// Collects the checkpoint that is being taken.
    pub(super) fn collect_checkpoint(&mut self, copying: Copying) -> Result<Option<CheckpointData>, TrainError> {
        let Some(pending) = self.kept.pending.clone() else { return Ok(None) };
        let (copied, spare) = match copying {
            Copying::Nothing => (false, None),
            Copying::Into(spare) => (true, spare),
        };
        let (spare_model, spare_optimizer) = spare.map(|spare| (spare.model, spare.optimizer)).unwrap_or_default();
        let network = &self.learner.network;
        let named = network.parameters().iter().chain(network.buffers());
        let named = named.map(|named| (named.name.as_str(), &named.tensor));
        let model = collect(named, copied, spare_model)?;
        let state = self.learner.optimizer.state();
        let named = state.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let optimizer = collect(named, copied, spare_optimizer)?;
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
            loss_scale: self.learner.loss_scale,
            data: Some(self.fingerprints.data.clone()),
            module: self.fingerprints.module.clone(),
            frozen: match self.learner.network.frozen() {
                frozen if frozen.is_empty() && !self.run_file_freezes => None,
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
        let weights = self.kept.restored.as_ref().map(|restored| {
            let history = HistoryView::now(Arc::clone(&self.measured.history));
            let origin = self.kept.origin(self.progress.position);
            let mut metrics = history.of_weights(restored.position.global_step, origin.since);
            metrics.retain(|_, value| value.is_finite());
            EarlierWeights { position: restored.position, metrics }
        });
        let graph = match self.graph_text() {
            Err(TrainError::Model(ModelError::NoGraph { .. })) => NO_GRAPH.into(),
            text => text?,
        };
        Ok(Some(CheckpointData {
            weights,
            model,
            optimizer,
            copies,
            rng,
            position: self.progress.position,
            threads: tch::get_num_threads().max(1) as usize,
            products: self.products.current(),
            hyper_parameters,
            loop_state,
            program,
            history: self.history(),
            graph,
            data: Arc::clone(&self.data_text),
            run_file: Arc::clone(&self.run_file),
            model_files: self.model_files.clone(),
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
        let of_rank = resume.ranks(&self.group).and_then(|saved| saved.each.into_iter().nth(self.group.rank()));
        // Of another number of ranks, rank zero has what all of them measured of the epoch.
        let of_all = resume.all_ranks().filter(|_| of_rank.is_none()).map(|saved| saved.each).unwrap_or_default();
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
        self.learner.set_loss_scale(loop_state.loss_scale);
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
            let name = accumulator.metric().name();
            let states: Vec<&AccumulatorState> = match &of_rank {
                Some(of_rank) => of_rank.metric(&name).into_iter().collect(),
                None if self.group.rank() > 0 => Vec::new(),
                None if of_all.is_empty() => loop_state.metrics.get(&*name).into_iter().collect(),
                None => of_all.iter().filter_map(|rank| rank.metric(&name)).collect(),
            };
            if let Some((first, others)) = states.split_first() {
                accumulator.restore(first)?;
                others.iter().try_for_each(|state| accumulator.merge(state))?;
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
        let rng = match of_rank {
            Some(of_rank) => of_rank.generators(),
            // Others than rank zero begin their own.
            None if self.group.rank() > 0 => Vec::new(),
            None => rng,
        };
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
