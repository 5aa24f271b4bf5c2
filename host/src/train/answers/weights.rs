//! Named copies of the weights, and of the whole training state.

use plugin_api::protocol::CopyAction;
use plugin_api::protocol::requests::CopyRequest;

use super::super::error::TrainError;
use super::super::kept::{Kept, Moment, TrainingStateCopy, WeightsCopy};
use super::super::learner::Learner;
use crate::services::ServiceError;

/// Takes, restores or drops a copy of the weights.
pub(super) fn copy(
    learner: &mut Learner,
    kept: &mut Kept,
    moment: Moment,
    request: &CopyRequest,
) -> Result<(), ServiceError> {
    let CopyRequest { name, action } = request;
    match action {
        CopyAction::Take => {
            let tensors = learner.network.copy().map_err(TrainError::from)?;
            let position = kept.origin(moment.position).position;
            kept.copies.insert(name.clone(), WeightsCopy { tensors, position });
        }
        CopyAction::Restore => kept.restore(name, learner, moment)?.ok_or_else(|| no_copy(kept, name))?,
        CopyAction::Drop => {
            let missing = no_copy(kept, name);
            kept.copies.remove(name).ok_or(missing)?;
        }
    }
    Ok(())
}

/// The error for an unknown copy.
pub(super) fn no_copy(kept: &Kept, name: &str) -> ServiceError {
    ServiceError::no_such_name("copy of the weights", name, kept.copies.keys().map(String::as_str))
}

/// Takes, restores or drops a named copy of the training state.
pub(super) fn copy_training_state(
    learner: &mut Learner,
    kept: &mut Kept,
    request: &CopyRequest,
) -> Result<(), ServiceError> {
    let CopyRequest { name, action } = request;
    let missing = || {
        ServiceError::no_such_name("copy of the training state", name, kept.training_states.keys().map(String::as_str))
    };
    match action {
        CopyAction::Take => {
            kept.training_states.insert(name.clone(), TrainingStateCopy::take(learner)?);
        }
        CopyAction::Restore => {
            kept.training_states.get(name).ok_or_else(missing)?.restore(learner)?;
            // The weights are those of the whole state now.
            kept.restored = None;
        }
        CopyAction::Drop => {
            let missing = missing();
            kept.training_states.remove(name).ok_or(missing)?;
        }
    }
    Ok(())
}
