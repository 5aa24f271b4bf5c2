//! State kept beside the training: copies of the weights and of its whole state, and the checkpoint in progress.

use std::collections::BTreeMap;
use std::sync::Arc;

use tch::Tensor;

use super::checkpointing::{CheckpointWriter, PendingCheckpoint};
use super::error::TrainError;
use super::learner::Learner;
use super::loss_scale::LossScale;
use super::optimizer::GroupState;
use crate::dispatch::WrittenCheckpoints;
use crate::history::Position;
use crate::model::NamedTensor;
use crate::services::WeightsOrigin;
use crate::torch::random;

/// What is kept.
#[derive(Default)]
pub(super) struct Kept {
    /// Named copies of the weights; a checkpoint holds them too.
    pub(super) copies: BTreeMap<String, WeightsCopy>,
    /// The weights of an earlier step, if the model has them.
    pub(super) restored: Option<Restored>,
    pub(super) training_states: BTreeMap<String, TrainingStateCopy>,
    /// The checkpoint that is being taken.
    pub(super) pending: Option<Arc<PendingCheckpoint>>,
    /// Writes checkpoints while the training goes on, from the first that was queued on.
    pub(super) writer: Option<CheckpointWriter>,
    /// Tells the callbacks what it has written.
    pub(super) written: Option<WrittenCheckpoints>,
}

/// A copy of the weights.
pub(super) struct WeightsCopy {
    pub(super) tensors: Vec<NamedTensor>,
    /// When they were those of the training.
    pub(super) position: Position,
}

/// Weights of an earlier step, which the model has in place of the training's own until the next step.
pub(super) struct Restored {
    /// When they were those of the training.
    pub(super) position: Position,
    /// The first entry of the history that is of them again.
    since: u64,
    /// The training's own weights: a checkpoint holds them, too, so that a run resumes from where it was.
    pub(super) trained: Vec<NamedTensor>,
}

/// Where the run is.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) position: Position,
    /// The next entry of the history.
    pub(super) since: u64,
}

impl Kept {
    /// Where the weights come from that the model has at `position`.
    pub(super) fn origin(&self, position: Position) -> WeightsOrigin {
        match &self.restored {
            Some(restored) => WeightsOrigin { position: restored.position, since: Some(restored.since) },
            None => WeightsOrigin { position, since: None },
        }
    }

    /// The model has the weights of an earlier step, and there are no others: those of a checkpoint that were restored
    /// before it was taken.
    pub(super) fn adopt(&mut self, position: Position, since: u64) {
        self.restored = Some(Restored { position, since, trained: Vec::new() });
    }

    /// Gives the model the weights of a copy; `None` if there is no such copy.
    pub(super) fn restore(
        &mut self,
        name: &str,
        learner: &mut Learner,
        Moment { position: now, since }: Moment,
    ) -> Result<Option<()>, TrainError> {
        let Some(WeightsCopy { tensors, position }) = self.copies.get(name) else { return Ok(None) };
        let trained = match self.restored.take() {
            Some(Restored { trained, .. }) => trained,
            None => learner.network.copy()?,
        };
        learner.network.write_all(tensors)?;
        // The training's own weights may be back, such as after an evaluation of averaged ones.
        if position.global_step != now.global_step {
            self.restored = Some(Restored { position: *position, since, trained });
        }
        Ok(Some(()))
    }
}

/// Weights, optimizer and random generators at one moment.
pub(super) struct TrainingStateCopy {
    weights: Vec<NamedTensor>,
    optimizer: Vec<(String, Tensor)>,
    groups: Vec<GroupState>,
    /// The owners of hyper-parameters that the schedule does not set, by group and name.
    owners: BTreeMap<(String, String), String>,
    loss_scale: Option<LossScale>,
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
        let (groups, owners) = (learner.optimizer.group_states(), learner.owners.clone());
        let loss_scale = learner.loss_scale;
        Ok(Self { weights: learner.network.copy()?, optimizer, groups, owners, loss_scale, generators })
    }

    pub(super) fn restore(&self, learner: &mut Learner) -> Result<(), TrainError> {
        learner.network.write_all(&self.weights)?;
        // First, since hyper-parameters decide which state there is.
        learner.optimizer.load_group_states(&self.groups)?;
        learner.optimizer.load_state(&self.optimizer)?;
        learner.owners.clone_from(&self.owners);
        learner.set_loss_scale(self.loss_scale);
        Ok(random::set_generator_state(learner.network.device(), &self.generators)?)
    }
}
