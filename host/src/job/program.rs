//! What a program brings to its job itself.

use std::rc::Rc;

use tch::{Device, Kind};

use crate::data::Target;
use crate::model::{BoxError, Network};
use crate::train::{BatchStepFunction, LossFunction};

/// What a program brings itself; the run file sets the rest.
#[derive(Default)]
pub(super) struct Program {
    pub(super) model: Option<Box<MakeNetwork>>,
    pub(super) loss: Option<Rc<LossFunction>>,
    pub(super) batch_step: Option<Box<BatchStepFunction>>,
}

/// Creates a network for the data and the device of a run.
pub(super) type MakeNetwork = dyn FnOnce(&ModelContext) -> Result<Network, BoxError>;

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
