//! State kept beside the training: copies of the weights and of its whole state, and the checkpoint in progress.

use std::collections::BTreeMap;
use std::sync::Arc;

use tch::Tensor;

use super::checkpointing::PendingCheckpoint;
use super::error::TrainError;
use super::learner::Learner;
use crate::model::NamedTensor;
use crate::torch::random;

/// What is kept.
#[derive(Default)]
pub(super) struct Kept {
    /// Named copies of the weights; a checkpoint holds them too.
    pub(super) copies: BTreeMap<String, Vec<NamedTensor>>,
    pub(super) training_states: BTreeMap<String, TrainingStateCopy>,
    /// The checkpoint that is being taken.
    pub(super) pending: Option<Arc<PendingCheckpoint>>,
}

/// Weights, optimizer state and random generators at one moment.
pub(super) struct TrainingStateCopy {
    weights: Vec<NamedTensor>,
    optimizer: Vec<(String, Tensor)>,
    generators: Tensor,
}

impl TrainingStateCopy {
    pub(super) fn take(learner: &Learner) -> Result<Self, TrainError> {
        let optimizer = learner
            .optimizer
            .state()
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.f_detach_copy()?)))
            .collect::<Result<_, TrainError>>()?;
        let generators = random::generator_state(learner.network.device())?;
        Ok(Self { weights: learner.network.copy()?, optimizer, generators })
    }

    pub(super) fn restore(&self, learner: &mut Learner) -> Result<(), TrainError> {
        learner.network.write_all(&self.weights)?;
        learner.optimizer.load_state(&self.optimizer)?;
        Ok(random::set_generator_state(learner.network.device(), &self.generators)?)
    }
}
