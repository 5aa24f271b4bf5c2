//! Evaluation of a split: in inference mode, drawing from no generator and changing no buffer.

use std::borrow::Cow;
use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;
use tch::Tensor;

use super::custom::Loss;
use super::error::TrainError;
use super::feed::Feed;
use super::learner::Learner;
use super::measured::Measured;
use super::metrics::{Accumulator, Average, Metric, MetricValue};
use super::progress::Progress;
use crate::config::Every;
use crate::data::{Batch, Loader};
use crate::dispatch::{Event, EventData};
use crate::history::Position;
use crate::torch::values;

/// What to evaluate.
#[derive(Clone, Debug)]
pub struct EvaluationPlan {
    /// The split.
    pub split: Arc<str>,
    /// Metrics besides the loss.
    pub metrics: Vec<Metric>,
    /// Samples of a batch; no influence on the result.
    pub batch_size: usize,
}

/// The evaluations of a run.
#[derive(Clone, Debug)]
pub(super) struct Evaluations {
    /// The repeated one, if there is one.
    pub(super) repeated: Option<EvaluationPlan>,
    /// When to evaluate.
    pub(super) every: Every,
    /// The single one after the training.
    pub(super) test: Option<EvaluationPlan>,
    /// Only one batch of each.
    pub(super) trial: bool,
}

impl Evaluations {
    /// Whether the plan evaluates at the end of this epoch; the last one always is.
    pub(super) fn is_due(&self, progress: &Progress) -> bool {
        self.repeated.is_some()
            && match self.every {
                Every::Epochs(every) => progress.position.epoch.is_multiple_of(every.get()) || progress.plan_is_done(),
                // The evaluation of the last step happens at its safe point.
                Every::Steps(every) => {
                    progress.plan_is_done() && !progress.position.global_step.is_multiple_of(every.get())
                }
                Every::Time(_) => false,
            }
    }

    /// Whether the plan evaluates after this step.
    #[inline]
    pub(super) fn is_due_by_step(&self, progress: &Progress) -> bool {
        match (self.every, &self.repeated) {
            (Every::Steps(every), Some(_)) if !progress.epoch_is_over && progress.position.step > 0 => {
                progress.position.global_step.is_multiple_of(every.get())
            }
            _ => false,
        }
    }
}

/// An evaluation in progress.
pub(super) struct Evaluation {
    split: Arc<str>,
    mid_epoch: bool,
    batch: u64,
    batches: u64,
    position: Position,
    loader: Loader,
    score: Score,
}

/// The part of an evaluation's batch that callbacks see.
pub(super) struct EvaluationBatch {
    pub(super) inputs: Tensor,
    pub(super) targets: Tensor,
    pub(super) outputs: Option<Tensor>,
    pub(super) loss: Option<Tensor>,
    pub(super) tapped: Vec<Tensor>,
}

impl EvaluationBatch {
    pub(super) fn new(batch: Batch, learner: &Learner) -> Result<Self, TrainError> {
        Ok(Self {
            inputs: learner.to_device(batch.inputs)?,
            targets: learner.to_device(batch.targets)?,
            outputs: None,
            loss: None,
            tapped: Vec::new(),
        })
    }
}

/// The loss and metrics over batches, weighted by true counts.
pub(super) struct Score {
    loss: Average,
    accumulators: Vec<Accumulator>,
}

impl Score {
    pub(super) fn new(metrics: &[Metric]) -> Self {
        Self { loss: Average::default(), accumulators: metrics.iter().map(|metric| metric.accumulator()).collect() }
    }

    pub(super) fn add(&mut self, batch: &EvaluationBatch, of: &Loss) -> Result<(), TrainError> {
        let (Some(outputs), Some(loss)) = (&batch.outputs, &batch.loss) else { return Ok(()) };
        let size = batch.targets.size().first().copied().unwrap_or(0) as usize;
        self.loss.add(values::scalar(loss)?, of.weight(&batch.targets, size)?);
        for accumulator in &mut self.accumulators {
            accumulator.add(outputs, &batch.targets)?;
        }
        Ok(())
    }

    /// `loss` and the metrics, by name without the split.
    pub(super) fn values(&mut self) -> Result<Vec<(Cow<'static, str>, MetricValue)>, TrainError> {
        let loss = self.loss.value().map(|loss| (Cow::Borrowed("loss"), MetricValue::Number(loss)));
        let mut values: Vec<_> = loss.into_iter().collect();
        for accumulator in &mut self.accumulators {
            if let Some(value) = accumulator.value()? {
                values.push((accumulator.metric().name(), value));
            }
        }
        Ok(values)
    }
}

impl Evaluation {
    /// Begins `plan`, with one batch in a `trial`.
    pub(super) fn begin(
        plan: &EvaluationPlan,
        feed: &Feed,
        position: Position,
        mid_epoch: bool,
        trial: bool,
    ) -> Result<Self, TrainError> {
        let loader = feed.in_order(&plan.split, plan.batch_size)?;
        let batches = if trial { 1 } else { loader.batches_per_epoch() as u64 };
        let (split, score) = (Arc::clone(&plan.split), Score::new(&plan.metrics));
        Ok(Self { split, mid_epoch, batch: 0, batches, position, loader, score })
    }

    /// Loads the next batch; false when there is none.
    pub(super) fn load_batch(&mut self, learner: &mut Learner) -> Result<bool, TrainError> {
        if self.batch == self.batches {
            return Ok(false);
        }
        self.batch += 1;
        let batch = self.loader.next_batch()?.batch;
        learner.evaluation = Some(EvaluationBatch::new(batch, learner)?);
        Ok(true)
    }

    /// Computes the current batch.
    pub(super) fn compute_batch(&mut self, learner: &mut Learner) -> Result<(), TrainError> {
        let Some(mut batch) = learner.evaluation.take() else { return Ok(()) };
        learner.infer(&mut batch, &learner.tapped_nodes())?;
        self.score.add(&batch, &learner.loss)?;
        learner.evaluation = Some(batch);
        Ok(())
    }

    /// Puts the metrics.
    pub(super) fn end(mut self, learner: &mut Learner, measured: &mut Measured) -> Result<Event, TrainError> {
        learner.evaluation = None;
        for (name, value) in self.score.values()? {
            measured.put_value(self.position, &format!("{}_{name}", self.split), value);
        }
        Ok(self.event(EventKind::EVAL_END))
    }

    /// The event of this kind, at the current batch.
    pub(super) fn event(&self, kind: EventKind) -> Event {
        let batch = match kind {
            EventKind::EVAL_STEP_START | EventKind::EVAL_STEP_END => self.batch,
            _ => 0,
        };
        let (split, mid_epoch, batches) = (Arc::clone(&self.split), self.mid_epoch, self.batches);
        Event { kind, position: self.position, data: EventData::Evaluation { split, mid_epoch, batch, batches } }
    }
}
