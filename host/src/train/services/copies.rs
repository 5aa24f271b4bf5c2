//! Named copies of the weights, and snapshots of the whole training state.

use plugin_api::protocol::{CopyAction, CopyRequest};
use tch::Tensor;

use super::super::TrainError;
use super::super::session::Session;
use crate::dispatch::{Caller, ServiceError};
use crate::model::NamedTensor;
use crate::torch::random;

/// Weights, optimizer state and random generators at one moment.
pub(in super::super) struct TrainingSnapshot {
    weights: Vec<NamedTensor>,
    optimizer: Vec<(String, Tensor)>,
    generators: Tensor,
}

impl Session {
    pub(super) fn copy_weights(&mut self, caller: &Caller<'_>, request: &CopyRequest) -> Result<(), ServiceError> {
        let CopyRequest { name, action } = request;
        match action {
            CopyAction::Take => {
                let copy = self.network.copy().map_err(TrainError::from)?;
                self.copies.insert(name.clone(), copy);
            }
            CopyAction::Restore => {
                self.weights_may_change(caller)?;
                let copy = self.copies.get(name).ok_or_else(|| self.no_copy(name))?;
                self.network.write_all(copy).map_err(TrainError::from)?;
            }
            CopyAction::Drop => {
                let missing = self.no_copy(name);
                self.copies.remove(name).ok_or(missing)?;
            }
        }
        Ok(())
    }

    pub(super) fn no_copy(&self, name: &str) -> ServiceError {
        ServiceError::no_such_name("copy of the weights", name, self.copies.keys().map(String::as_str))
    }

    pub(super) fn snapshot_state(&mut self, caller: &Caller<'_>, request: &CopyRequest) -> Result<(), ServiceError> {
        let CopyRequest { name, action } = request;
        let missing = ServiceError::no_such_name("snapshot", name, self.snapshots.keys().map(String::as_str));
        match action {
            CopyAction::Take => {
                let snapshot = self.take_state()?;
                self.snapshots.insert(name.clone(), snapshot);
            }
            CopyAction::Restore => {
                self.weights_may_change(caller)?;
                let snapshot = self.snapshots.remove(name).ok_or(missing)?;
                let restored = self.put_state(&snapshot);
                self.snapshots.insert(name.clone(), snapshot);
                restored?;
            }
            CopyAction::Drop => {
                self.snapshots.remove(name).ok_or(missing)?;
            }
        }
        Ok(())
    }

    fn take_state(&self) -> Result<TrainingSnapshot, TrainError> {
        let optimizer = self
            .optimizer
            .state()
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.f_detach_copy()?)))
            .collect::<Result<_, TrainError>>()?;
        let generators = random::generator_state(self.network.device())?;
        Ok(TrainingSnapshot { weights: self.network.copy()?, optimizer, generators })
    }

    fn put_state(&mut self, snapshot: &TrainingSnapshot) -> Result<(), TrainError> {
        self.network.write_all(&snapshot.weights)?;
        self.optimizer.load_state(&snapshot.optimizer)?;
        Ok(random::set_generator_state(self.network.device(), &snapshot.generators)?)
    }
}
