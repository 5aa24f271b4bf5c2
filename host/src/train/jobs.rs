//! Jobs on a checkpoint: they use its weights, and no step follows. `setup` and `teardown` frame each, as they frame a
//! training; of `train_*` nothing comes.

use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;
use plugin_api::event::Outcome;
use tch::Tensor;

use super::error::TrainError;
use super::evaluate::{Evaluation, EvaluationPlan};
use super::run::{Ended, Trainer};
use super::session::Session;
use crate::distributed::Share;

/// The outputs of a batch.
pub struct PredictedBatch<'a> {
    /// `[size, …]`; see [`Batch`](crate::data::Batch).
    pub inputs: &'a Tensor,
    /// Those of the data, whatever they mean.
    pub targets: &'a Tensor,
    /// `[size, …output shape]`, f32.
    pub outputs: &'a Tensor,
}

/// What takes the outputs of each batch.
type Take<'a> = dyn FnMut(PredictedBatch<'_>) -> Result<(), TrainError> + 'a;

impl Trainer {
    /// Evaluates the whole split once, on this process alone; the metrics are those of the session.
    pub fn evaluate_once(&mut self, plan: &EvaluationPlan) -> Ended {
        let position = self.session.progress.position;
        let evaluated = Evaluation::begin(plan, &self.session.feed, position, false, false, Share::whole())
            .and_then(|evaluation| self.pass_through(evaluation, true));
        self.job_ended(evaluated)
    }

    /// Computes the outputs of a split, in batches of `size`, and gives each to `take`.
    pub fn predict_once(&mut self, split: &str, size: usize, take: &mut Take<'_>) -> Ended {
        let predicted = self.predict_all(split, size, take);
        self.job_ended(predicted)
    }

    fn predict_all(&mut self, split: &str, size: usize, take: &mut Take<'_>) -> Result<(), TrainError> {
        let plan = EvaluationPlan { split: Arc::from(split), metrics: Vec::new(), batch_size: size, shown: None };
        let position = self.session.progress.position;
        let mut evaluation = Evaluation::begin(&plan, &self.session.feed, position, false, false, Share::whole())?;
        self.dispatcher.fire(&evaluation.event(EventKind::PREDICT_START), &mut self.session)?;
        while self.session.controls.asked_stop().is_none() && evaluation.load_batch(&mut self.session.learner)? {
            evaluation.predict_batch(&mut self.session.learner)?;
            self.dispatcher.fire(&evaluation.event(EventKind::PREDICT_STEP), &mut self.session)?;
            if let Some(batch) = &self.session.learner.evaluation
                && let Some(outputs) = &batch.outputs
            {
                take(PredictedBatch { inputs: &batch.inputs, targets: &batch.targets, outputs })?;
            }
            let (done, of) = evaluation.progress();
            self.session.outputs.batch(done, of);
        }
        self.session.learner.evaluation = None;
        Ok(self.dispatcher.fire(&evaluation.event(EventKind::PREDICT_END), &mut self.session)?)
    }

    /// Calls `infer` so many times, or until somebody asks for the end.
    pub fn infer_once(&mut self, times: u64, infer: &mut dyn FnMut(&Session) -> Result<(), TrainError>) -> Ended {
        let inferred = (1..=times).try_for_each(|done| {
            if self.session.controls.asked_stop().is_none() {
                infer(&self.session)?;
                self.session.outputs.batch(done, times);
            }
            Ok(())
        });
        self.job_ended(inferred)
    }

    /// Has every exporter export.
    pub fn export_once(&mut self) -> Ended {
        let exported = self.dispatcher.fire_at(EventKind::EXPORT, &mut self.session);
        let exported = exported.and_then(|()| self.dispatcher.flush(&mut self.session));
        self.job_ended(exported.map_err(TrainError::from))
    }

    fn job_ended(&mut self, done: Result<(), TrainError>) -> Ended {
        if let Err(error) = done {
            return Ended { outcome: Outcome::Failed, reason: error.to_string(), error: Some(error) };
        }
        let (outcome, reason) = match self.session.controls.asked_stop() {
            Some(stop) if stop.interrupted => (Outcome::Interrupted, stop.reason),
            Some(stop) if !stop.finishes && stop.reason.is_empty() => (Outcome::Stopped, format!("by `{}`", stop.by)),
            Some(stop) if !stop.finishes => (Outcome::Stopped, format!("by `{}`: {}", stop.by, stop.reason)),
            _ => (Outcome::Finished, String::new()),
        };
        Ended { outcome, reason, error: None }
    }
}
