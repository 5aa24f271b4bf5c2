//! What callbacks wrote into the batch of a step, and what follows if the step cannot be computed with it: the callback has
//! failed, not the training, and the step is computed as if it had written nothing.

use std::error::Error;
use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;
use tch::Tensor;

use super::error::TrainError;
use super::session::Session;
use crate::dispatch::Dispatcher;
use crate::torch::random::{generator_state, set_generator_state};

/// What one call wrote into a batch.
pub(super) struct Change {
    by: Arc<str>,
    hook: EventKind,
    /// The batch's tensors that were written, each with its values of before.
    before: Vec<(Tensor, Tensor)>,
}

impl Change {
    /// Keeps the values of `targets`, which `by` is about to write in `hook`.
    pub(super) fn of<'a>(
        by: &str,
        hook: EventKind,
        targets: impl Iterator<Item = &'a Tensor>,
    ) -> Result<Self, tch::TchError> {
        Ok(Self { by: by.into(), hook, before: targets.map(kept).collect::<Result<_, _>>()? })
    }

    fn undo(self) -> Result<(), tch::TchError> {
        write(self.before)
    }
}

/// A tensor and a copy of its values.
fn kept(tensor: &Tensor) -> Result<(Tensor, Tensor), tch::TchError> {
    tch::no_grad(|| {
        let mut copy = tensor.f_empty_like()?;
        copy.f_copy_(tensor)?;
        Ok((tensor.shallow_clone(), copy))
    })
}

/// Writes values into tensors.
fn write(values: Vec<(Tensor, Tensor)>) -> Result<(), tch::TchError> {
    tch::no_grad(|| values.into_iter().try_for_each(|(mut target, value)| target.f_copy_(&value).map(drop)))
}

/// What a step that fails halfway leaves changed, beside gradients: the numbers that were drawn, and statistics of batches.
pub(super) struct Drawn {
    generator: Tensor,
    buffers: Vec<(Tensor, Tensor)>,
}

impl Session {
    /// What is there before a step is computed with a batch that callbacks wrote into; `None` if nobody did.
    pub(super) fn before_changed_step(&self) -> Result<Option<Drawn>, TrainError> {
        if self.learner.step.changes.is_empty() {
            return Ok(None);
        }
        let buffers = self.learner.network.buffers().iter().map(|named| kept(&named.tensor));
        Ok(Some(Drawn {
            generator: generator_state(self.learner.network.device())?,
            buffers: buffers.collect::<Result<_, tch::TchError>>()?,
        }))
    }

    /// After a step whose batch callbacks wrote into and that could not be computed: takes the changes back, the last one
    /// first, until it can be, and then blames that callback. Without an effect, `error` is the training's own.
    ///
    /// Changes after that one are taken back, too: they were made of it.
    pub(super) fn compute_without_changes(
        &mut self,
        callbacks: &mut Dispatcher,
        before: Option<Drawn>,
        error: TrainError,
    ) -> Result<(), TrainError> {
        let Some(before) = before.filter(|_| matches!(error, TrainError::Model(_) | TrainError::Torch(_))) else {
            return Err(error);
        };
        // Ranks that normalize together exchange numbers within the step, and the others do not repeat it.
        let repeats = !self.learner.network.is_synchronized();
        while let Some(change) = self.learner.step.changes.pop() {
            let (by, hook) = (Arc::clone(&change.by), change.hook);
            change.undo()?;
            self.learner.optimizer.clear_gradients()?;
            set_generator_state(self.learner.network.device(), &before.generator)?;
            write(
                before.buffers.iter().map(|(target, value)| (target.shallow_clone(), value.shallow_clone())).collect(),
            )?;
            if repeats && self.compute_gradients(callbacks).is_err() {
                continue;
            }
            callbacks.blame(
                &by,
                hook,
                format!("the step cannot be computed with what it wrote into the batch: {}", words(&error)),
                self,
            );
            callbacks.check()?;
            return if repeats { Ok(()) } else { Err(error) };
        }
        Err(error)
    }
}

/// The error and its causes in one line.
fn words(error: &TrainError) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(&format!(": {error}"));
        cause = error.source();
    }
    words
}
