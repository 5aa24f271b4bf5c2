//! A checkpoint that a run resumes from, read and verified.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plugin_api::protocol::requests::Freeze;
use tch::{Kind, Tensor};

use super::super::kernels::Kernels;
use super::super::limits::Limits;
use super::super::progress::CountedFrom;
use super::super::ranks::SavedRanks;
use super::{KERNELS, LOOP, LoopState, PROGRAM, RANKS, SCHEDULES, VERSIONS, frozen_by_run_file};
use crate::checkpoint::{Checkpoint, CheckpointError, Dtype, EarlierWeights, OwnedTensor, State, TensorFile};
use crate::dispatch::{SavedState, ScheduleState};
use crate::distributed::ProcessGroup;
use crate::history::Position;
use crate::model::{Frozen, NamedTensor};
use crate::report::Report;

/// A checkpoint to resume from, read and verified.
pub struct Resume {
    path: PathBuf,
    pub(super) state: State,
    pub(super) loop_state: LoopState,
    schedules: BTreeMap<String, ScheduleState>,
    plugins: BTreeMap<String, SavedState>,
    pub(super) model: Vec<NamedTensor>,
    pub(super) optimizer: Vec<(String, Tensor)>,
    pub(super) copies: Vec<(String, Tensor)>,
    pub(super) rng: Vec<(String, Tensor)>,
    /// Where the model's weights come from, if not from the last step.
    pub(super) weights: Option<EarlierWeights>,
    run_file: String,
}

/// Why a run cannot resume from a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// It cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A part of its state cannot be decoded.
    #[error("the `{part}` part of the state in the checkpoint `{path}` is not understood")]
    State {
        /// The checkpoint.
        path: PathBuf,
        /// Which part.
        part: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A tensor has a type that this libtorch does not support.
    #[error("the tensor `{name}` in the checkpoint `{path}` has the type {dtype:?}, which this host cannot load")]
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
            _ => {
                Some("resume from another checkpoint: `--resume PATH`, or begin a new run: `--resume never`".to_owned())
            }
        }
    }
}

impl Resume {
    /// Reads all of a checkpoint.
    ///
    /// # Errors
    ///
    /// When it cannot be read or decoded.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self, ResumeError> {
        Self::read_parts(checkpoint, true)
    }

    /// Reads what a job needs that does not train: the model, and what was measured of it.
    ///
    /// # Errors
    ///
    /// As of [`Self::read`].
    pub fn read_model(checkpoint: &Checkpoint) -> Result<Self, ResumeError> {
        Self::read_parts(checkpoint, false)
    }

    fn read_parts(checkpoint: &Checkpoint, all: bool) -> Result<Self, ResumeError> {
        let path = checkpoint.path().to_owned();
        let state = checkpoint.state()?;
        let part = |part: &'static str| state.modules.get(part).cloned().unwrap_or_default();
        let not_understood = |part| {
            let path = path.clone();
            move |source| ResumeError::State { path, part, source }
        };
        let loop_state: LoopState = serde_json::from_value(part(LOOP)).map_err(not_understood(LOOP))?;
        let schedules = serde_json::from_value(part(SCHEDULES)).map_err(not_understood(SCHEDULES))?;
        let mut versions: BTreeMap<String, String> = serde_json::from_value(part(VERSIONS)).unwrap_or_default();
        let mut plugins = BTreeMap::new();
        for instance in checkpoint.plugins() {
            if let Some(bytes) = checkpoint.plugin(instance)? {
                // Checkpoints of older hosts do not have it.
                let version = versions.remove(instance).unwrap_or_default();
                plugins.insert(instance.to_owned(), SavedState { bytes, version });
            }
        }
        let tensors = |file| -> Result<Vec<(String, Tensor)>, ResumeError> {
            if !all && file != TensorFile::Model {
                return Ok(Vec::new());
            }
            checkpoint.tensors(file)?.into_iter().map(|tensor| into_tensor(&path, tensor)).collect()
        };
        let model =
            tensors(TensorFile::Model)?.into_iter().map(|(name, tensor)| NamedTensor { name, tensor }).collect();
        let (optimizer, copies) = (tensors(TensorFile::Optimizer)?, tensors(TensorFile::Copies)?);
        let rng = tensors(TensorFile::Rng)?;
        let run_file = checkpoint.run_file()?;
        let weights = checkpoint.earlier_weights().cloned();
        Ok(Self { path, state, loop_state, schedules, plugins, model, optimizer, copies, rng, weights, run_file })
    }

    /// The checkpoint's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the run was.
    pub fn position(&self) -> Position {
        self.state.position
    }

    /// The resolved run file of the run that wrote it.
    pub fn run_file(&self) -> &str {
        &self.run_file
    }

    /// What was frozen; `None` where `patterns`, the run file's, are others now, or nothing is known.
    pub(in super::super) fn frozen(&self, request: &Freeze) -> Option<Frozen> {
        let frozen = self.loop_state.frozen.clone();
        frozen.filter(|_| frozen_by_run_file(&self.run_file) == *request)
    }

    /// The limits of the epoch that the run was in.
    pub(in super::super) fn limits(&self) -> Limits {
        Limits::resumed(self.loop_state.most_batches)
    }

    pub(in super::super) fn counted_from(&self) -> CountedFrom {
        self.loop_state.counted_from
    }

    /// The fingerprint of the data that the run had; see [`Data::fingerprint`](crate::data::Data::fingerprint).
    pub fn data_fingerprint(&self) -> Option<&str> {
        self.loop_state.data.as_deref()
    }

    /// The digest of the files of the run's model, if it had some.
    pub fn module_fingerprint(&self) -> Option<&str> {
        self.loop_state.module.as_deref()
    }

    /// What a program's own batch step remembered; `None` if it had nothing to remember.
    pub fn program_state(&self) -> Option<Vec<u8>> {
        let text = self.state.modules.get(PROGRAM)?.as_str()?.as_bytes();
        let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        text.chunks(2).map(byte).collect()
    }

    /// Threads of one tensor operation: sums depend on their number.
    pub fn threads(&self) -> usize {
        self.state.threads
    }

    /// Who computed its products; `None` where its host did not record it, and an error if it is somebody unknown.
    pub fn kernels(&self) -> Option<Result<Kernels, serde_json::Error>> {
        self.state.modules.get(KERNELS).map(|kernels| serde_json::from_value(kernels.clone()))
    }

    /// What the checkpoint keeps of each rank; `None` if the run has another number of them now.
    pub(in super::super) fn ranks(&self, group: &ProcessGroup) -> Option<SavedRanks> {
        self.all_ranks().filter(|saved| saved.world_size() == group.world_size())
    }

    /// How many ranks the run had.
    pub fn world_size(&self) -> usize {
        self.all_ranks().map_or(1, |saved| saved.world_size())
    }

    /// What the checkpoint keeps of each rank, however many there were; `None` of one process.
    pub(in super::super) fn all_ranks(&self) -> Option<SavedRanks> {
        serde_json::from_value(self.state.modules.get(RANKS)?.clone()).ok()
    }

    /// The saved state of each instance.
    pub fn plugins(&self) -> &BTreeMap<String, SavedState> {
        &self.plugins
    }

    /// The state of the schedules.
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
