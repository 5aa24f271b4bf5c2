//! What a checkpoint holds of a training, and how a training goes on from one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use plugin_api::protocol::CheckpointWritten;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::error::TrainError;
use super::metrics::{AccumulatorState, AverageState};
use super::session::{Session, training_loader};
use crate::checkpoint::{
    self, Checkpoint, CheckpointContents, CheckpointError, Dtype, HyperParameter, OwnedTensor, PluginState, State,
    TensorFile, TensorRef,
};
use crate::dispatch::ScheduleState;
use crate::model::NamedTensor;
use crate::record::{Exact, Position};
use crate::report::Report;
use crate::torch::random;

/// What callbacks and schedules gave for a checkpoint that is being taken.
pub(super) struct PendingCheckpoint {
    pub(super) plugins: BTreeMap<String, Vec<u8>>,
    pub(super) schedules: BTreeMap<String, ScheduleState>,
}

/// What of the loop and of dispatch goes into `state.json` besides metrics.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoopState {
    /// Whether the epoch at the position is over.
    epoch_is_over: bool,
    /// The run's time so far, in seconds.
    seconds: Exact,
    /// The sums of the epoch's losses.
    loss: AverageState,
    /// What the metrics of the epoch have seen, by name.
    metrics: BTreeMap<String, AccumulatorState>,
    /// The norm of the last step's gradients, where they are clipped.
    #[serde(default)]
    gradient_norm: Option<Exact>,
    /// The latest value of each metric and its position.
    latest: BTreeMap<String, (Exact, Position)>,
}

/// `graph.json` of a model without a graph.
const NO_GRAPH: &str = "null";

/// The names of the parts in `state.json`.
const LOOP: &str = "train";
const SCHEDULES: &str = "dispatch";

/// A tensor as the checkpoint's format takes it: on the CPU, contiguous.
pub(super) struct HostTensor {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    tensor: Tensor,
}

impl HostTensor {
    /// A copy of `tensor` if `copied` says so or it is elsewhere; else the tensor itself.
    pub(super) fn new(name: &str, tensor: &Tensor, copied: bool) -> Result<Self, TrainError> {
        let detached = tensor.f_detach()?;
        let tensor = if detached.device() != Device::Cpu {
            detached.f_to_device(Device::Cpu)?.f_contiguous()?
        } else if copied {
            detached.f_contiguous()?.f_detach_copy()?
        } else {
            detached.f_contiguous()?
        };
        let shape = tensor.size().iter().map(|&size| size as usize).collect();
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Double => Dtype::F64,
            Kind::Int64 => Dtype::I64,
            Kind::Int => Dtype::I32,
            Kind::Uint8 => Dtype::U8,
            Kind::Bool => Dtype::BOOL,
            Kind::Half => Dtype::F16,
            Kind::BFloat16 => Dtype::BF16,
            kind => {
                return Err(TrainError::Torch(crate::torch::TorchError::Operator {
                    message: format!("`{name}` is of the type {kind:?}, which a checkpoint cannot hold"),
                }));
            }
        };
        Ok(Self { name: name.to_owned(), shape, dtype, tensor })
    }

    pub(super) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn as_ref(&self) -> TensorRef<'_> {
        let length = self.tensor.numel() * self.tensor.kind().elt_size_in_bytes();
        let bytes = if length == 0 {
            &[]
        } else {
            // SAFETY: contiguous, on the CPU, of that many bytes; nothing writes to it while it is borrowed: inline the
            // loop waits, in the background it is a copy.
            unsafe { std::slice::from_raw_parts(self.tensor.data_ptr().cast::<u8>(), length) }
        };
        TensorRef { name: &self.name, dtype: self.dtype, shape: &self.shape, bytes }
    }
}

/// Everything of a checkpoint, apart from the loop: it can be written from any thread.
pub(super) struct CheckpointData {
    model: Vec<HostTensor>,
    optimizer: Vec<HostTensor>,
    copies: Vec<HostTensor>,
    rng: Vec<HostTensor>,
    state: State,
    graph: Arc<str>,
    run_file: Arc<str>,
    pending: Arc<PendingCheckpoint>,
}

impl CheckpointData {
    /// Writes it to `path`, which is absolute.
    pub(super) fn write(&self, path: &Path) -> Result<CheckpointWritten, CheckpointError> {
        let existed = path.is_dir();
        let contents = CheckpointContents {
            model: self.model.iter().map(HostTensor::as_ref).collect(),
            optimizer: self.optimizer.iter().map(HostTensor::as_ref).collect(),
            copies: self.copies.iter().map(HostTensor::as_ref).collect(),
            rng: self.rng.iter().map(HostTensor::as_ref).collect(),
            state: &self.state,
            graph: &self.graph,
            run_file: &self.run_file,
            plugins: self.pending.plugins.iter().map(|(instance, bytes)| PluginState { instance, bytes }).collect(),
        };
        let written = checkpoint::write(&contents, path)?;
        if let Some(aside) = &written.moved_aside {
            tracing::warn!(path = %aside.display(), "a damaged checkpoint had the name; it was moved aside");
        }
        Ok(CheckpointWritten { path: written.path.display().to_string(), bytes: written.bytes, existed })
    }
}

impl Session {
    pub(super) fn begin_checkpoint(
        &mut self,
        plugins: BTreeMap<String, Vec<u8>>,
        schedules: BTreeMap<String, ScheduleState>,
    ) {
        self.pending = Some(Arc::new(PendingCheckpoint { plugins, schedules }));
    }

    pub(super) fn end_checkpoint(&mut self) {
        self.pending = None;
    }

    /// Collects the checkpoint that is being taken; with `copied`, apart from the loop's memory.
    pub(super) fn collect_checkpoint(&mut self, copied: bool) -> Result<Option<CheckpointData>, TrainError> {
        let Some(pending) = self.pending.clone() else { return Ok(None) };
        let named = |tensors: &[NamedTensor]| -> Result<Vec<HostTensor>, TrainError> {
            tensors.iter().map(|named| HostTensor::new(&named.name, &named.tensor, copied)).collect()
        };
        let mut model = named(self.network.parameters())?;
        model.extend(named(self.network.buffers())?);
        let optimizer = self
            .optimizer
            .state()
            .iter()
            .map(|(name, tensor)| HostTensor::new(name, tensor, copied))
            .collect::<Result<_, _>>()?;
        let mut copies = Vec::new();
        for (copy, tensors) in &self.copies {
            for named in tensors {
                copies.push(HostTensor::new(&format!("{copy}/{}", named.name), &named.tensor, copied)?);
            }
        }
        let rng = random::generator_states()?
            .iter()
            .map(|(name, state)| HostTensor::new(name, state, false))
            .collect::<Result<_, _>>()?;
        let mut hyper_parameters = Vec::new();
        for (index, group) in self.optimizer.groups().iter().enumerate() {
            for &name in group.hyper_parameter_names() {
                let owner = self.owners.get(&(group.name().to_owned(), name.to_owned())).cloned();
                let value = Exact(group.get(name)?);
                hyper_parameters.push(HyperParameter { group: index, name: name.to_owned(), value, owner });
            }
        }
        let mut accumulated = BTreeMap::new();
        for accumulator in &mut self.accumulators {
            accumulated.insert(accumulator.metric().name().into_owned(), accumulator.state()?);
        }
        let metrics = self.metrics.read().unwrap_or_else(PoisonError::into_inner);
        let loop_state = LoopState {
            epoch_is_over: self.epoch_is_over,
            seconds: Exact(self.clock.started.elapsed().as_secs_f64()),
            loss: self.loss_average.state(),
            metrics: accumulated,
            gradient_norm: self.step.gradient_norm.map(Exact),
            latest: metrics
                .iter()
                .map(|(name, metric)| (name.to_owned(), (Exact(metric.value), metric.position)))
                .collect(),
        };
        drop(metrics);
        let module = |value: serde_json::Result<serde_json::Value>| {
            value.map_err(|error| TrainError::System { action: "cannot write the loop's state", source: error.into() })
        };
        let state = State {
            position: self.position,
            threads: tch::get_num_threads().max(1) as usize,
            hyper_parameters,
            modules: BTreeMap::from([
                (LOOP.to_owned(), module(serde_json::to_value(&loop_state))?),
                (SCHEDULES.to_owned(), module(serde_json::to_value(&pending.schedules))?),
            ]),
            history: self.history.read().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        Ok(Some(CheckpointData {
            model,
            optimizer,
            copies,
            rng,
            state,
            graph: self.graph_text()?.unwrap_or_else(|| NO_GRAPH.into()),
            run_file: Arc::clone(&self.run_file),
            pending,
        }))
    }

    /// Puts the session where the checkpoint was.
    pub(super) fn restore(&mut self, resume: Resume) -> Result<(), TrainError> {
        let Resume { state, loop_state, model, optimizer, copies, rng, .. } = resume;
        let weights = self.network.parameters().iter().chain(self.network.buffers());
        if let Some(missing) = weights.into_iter().find(|own| !model.iter().any(|saved| saved.name == own.name)) {
            return Err(TrainError::MissingTensor { name: missing.name.clone() });
        }
        self.network.write_all(&model)?;
        for parameter in &state.hyper_parameters {
            let Some(group) = self.optimizer.groups().get(parameter.group) else { continue };
            let group = group.name().to_owned();
            // Those without an owner are the schedule's and the options'.
            if let Some(owner) = &parameter.owner {
                self.optimizer.set(&group, &parameter.name, parameter.value.0)?;
                self.owners.insert((group, parameter.name.clone()), owner.clone());
            }
        }
        self.optimizer.load_state(&optimizer)?;
        if self.position.global_step > 0 {
            // That of the last step: an epoch that ends before the next one puts it among its metrics.
            self.optimizer.schedule(self.schedule_factor());
        }
        self.step.gradient_norm = loop_state.gradient_norm.map(|norm| norm.0);
        for (name, tensor) in copies {
            // A copy's name may have slashes of its own; a tensor's has none.
            if let Some((copy, name)) = name.rsplit_once('/') {
                let tensor = self.to_device(tensor)?;
                self.copies.entry(copy.to_owned()).or_default().push(NamedTensor { name: name.to_owned(), tensor });
            }
        }
        self.epoch_is_over = loop_state.epoch_is_over;
        self.loss_average.restore(loop_state.loss);
        for accumulator in &mut self.accumulators {
            if let Some(state) = loop_state.metrics.get(&*accumulator.metric().name()) {
                accumulator.restore(state)?;
            }
        }
        {
            let mut metrics = self.metrics.write().unwrap_or_else(PoisonError::into_inner);
            for (name, (value, position)) in &loop_state.latest {
                metrics.put(name, *position, value.0);
            }
        }
        self.history = Arc::new(RwLock::new(state.history));
        self.set_time_before(Duration::try_from_secs_f64(loop_state.seconds.0).unwrap_or_default());
        if self.epoch_is_over {
            // The next epoch begins at its first batch, also when this one was cut short.
            let next = Position { epoch: self.position.epoch + 1, step: 0, ..self.position };
            self.loader = training_loader(&self.data, &self.plan, next)?;
        }
        // Last, since nothing above may draw.
        for (name, state) in rng {
            let device = match name.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
                Some(index) if index < tch::Cuda::device_count().max(0) as usize => Device::Cuda(index),
                // A run that goes on without that device has no use for its generator.
                Some(_) => continue,
                None => Device::Cpu,
            };
            random::set_generator_state(device, &state)?;
        }
        Ok(())
    }
}

/// A checkpoint to go on from, read and verified.
pub struct Resume {
    path: PathBuf,
    state: State,
    loop_state: LoopState,
    schedules: BTreeMap<String, ScheduleState>,
    plugins: BTreeMap<String, Vec<u8>>,
    model: Vec<NamedTensor>,
    optimizer: Vec<(String, Tensor)>,
    copies: Vec<(String, Tensor)>,
    rng: Vec<(String, Tensor)>,
}

/// Why a checkpoint cannot be gone on from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// It cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A part of its state is not understood.
    #[error("the `{part}` part of the state in the checkpoint `{path}` is not understood")]
    State {
        /// The checkpoint.
        path: PathBuf,
        /// Which part.
        part: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A tensor is of a type that libtorch here has no use for.
    #[error("the tensor `{name}` in the checkpoint `{path}` is of the type {dtype:?}")]
    Dtype {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
    },
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] crate::torch::TorchError),
}

impl Report for ResumeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Checkpoint(error) => error.hint(),
            _ => Some("resume from another checkpoint: `--resume PATH`, or start anew: `--resume never`".to_owned()),
        }
    }
}

impl Resume {
    /// Reads all of a checkpoint.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is not understood.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self, ResumeError> {
        let path = checkpoint.path().to_owned();
        let state = checkpoint.state()?;
        let part = |part: &'static str| state.modules.get(part).cloned().unwrap_or_default();
        let not_understood = |part| {
            let path = path.clone();
            move |source| ResumeError::State { path, part, source }
        };
        let loop_state = serde_json::from_value(part(LOOP)).map_err(not_understood(LOOP))?;
        let schedules = serde_json::from_value(part(SCHEDULES)).map_err(not_understood(SCHEDULES))?;
        let mut plugins = BTreeMap::new();
        for instance in checkpoint.plugins() {
            if let Some(bytes) = checkpoint.plugin(instance)? {
                plugins.insert(instance.to_owned(), bytes);
            }
        }
        let tensors = |file| -> Result<Vec<(String, Tensor)>, ResumeError> {
            checkpoint.tensors(file)?.into_iter().map(|tensor| into_tensor(&path, tensor)).collect()
        };
        let model =
            tensors(TensorFile::Model)?.into_iter().map(|(name, tensor)| NamedTensor { name, tensor }).collect();
        let (optimizer, copies) = (tensors(TensorFile::Optimizer)?, tensors(TensorFile::Copies)?);
        let rng = tensors(TensorFile::Rng)?;
        Ok(Self { path, state, loop_state, schedules, plugins, model, optimizer, copies, rng })
    }

    /// The checkpoint's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the run was.
    pub fn position(&self) -> Position {
        self.state.position
    }

    /// Threads of one tensor operation: sums depend on it.
    pub fn threads(&self) -> usize {
        self.state.threads
    }

    /// What each instance saved.
    pub fn plugins(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.plugins
    }

    /// What the schedules must remember.
    pub fn schedules(&self) -> &BTreeMap<String, ScheduleState> {
        &self.schedules
    }
}

fn into_tensor(path: &Path, tensor: OwnedTensor) -> Result<(String, Tensor), ResumeError> {
    let kind = match tensor.dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        dtype => return Err(ResumeError::Dtype { path: path.to_owned(), name: tensor.name, dtype }),
    };
    let shape: Vec<i64> = tensor.shape.iter().map(|&size| size as i64).collect();
    let made = Tensor::f_from_data_size(&tensor.bytes, &shape, kind).map_err(crate::torch::TorchError::from)?;
    Ok((tensor.name, made))
}
