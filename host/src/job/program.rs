//! What a program brings to its job itself.

use tch::{Device, Kind, Tensor};

use crate::data::Target;
use crate::model::{BoxError, Network};
use crate::train::{BatchStep, Computed};

/// What a program brings itself; the run file sets the rest.
#[derive(Default)]
pub(super) struct Program {
    pub(super) model: Option<Box<MakeNetwork>>,
    pub(super) loss: Option<Box<OwnLoss>>,
    pub(super) batch_step: Option<Box<OwnBatchStep>>,
    /// What the batch step remembers, for checkpoints.
    pub(super) save_state: Option<Box<SaveState>>,
    pub(super) load_state: Option<Box<LoadState>>,
}

// All are `Send`: a job may run on a thread of its own.

/// A loss.
pub(super) type OwnLoss = dyn Fn(&Tensor, &Tensor) -> Result<Tensor, BoxError> + Send;

/// The way from a batch to its loss.
pub(super) type OwnBatchStep = dyn FnMut(&mut BatchStep<'_>) -> Result<Computed, BoxError> + Send;

/// Gives what the batch step remembers.
pub(super) type SaveState = dyn Fn() -> Vec<u8> + Send;

/// Takes it back.
pub(super) type LoadState = dyn FnOnce(&[u8]) -> Result<(), BoxError> + Send;

/// Creates a network for the data and the device of a run.
pub(super) type MakeNetwork = dyn FnOnce(&ModelContext) -> Result<Network, BoxError> + Send;

/// What a program's model is made for.
#[derive(Clone, Debug)]
pub struct ModelContext {
    /// Where its tensors belong.
    pub device: Device,
    /// The shape of one sample, without the batch dimension.
    pub sample_shape: Vec<i64>,
    /// The dtype of samples: f32, or i64 for tokens.
    pub sample_kind: Kind,
    /// What is predicted.
    pub target: Target,
}
