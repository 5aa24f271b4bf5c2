//! Evaluation of a split: in inference mode, drawing from no generator and changing no buffer.

use std::borrow::Cow;
use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;
use tch::{Kind, Tensor};

use super::custom::Loss;
use super::error::TrainError;
use super::metrics::{Accumulator, Average, Metric, MetricValue};
use super::session::{EvaluationPlan, Session};
use crate::config::Every;
use crate::data::{Batch, Loader, LoaderOptions, Order};
use crate::dispatch::{Event, EventData};
use crate::model::Mode;
use crate::record::Position;
use crate::torch::values;

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

/// What callbacks can see of an evaluation's batch.
pub(super) struct EvaluationBatch {
    pub(super) inputs: Tensor,
    pub(super) targets: Tensor,
    pub(super) outputs: Option<Tensor>,
    pub(super) loss: Option<Tensor>,
    pub(super) tapped: Vec<Tensor>,
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
    /// The event of this kind, at the batch at hand.
    pub(super) fn event(&self, kind: EventKind) -> Event {
        let batch = match kind {
            EventKind::EVAL_STEP_START | EventKind::EVAL_STEP_END => self.batch,
            _ => 0,
        };
        let (split, mid_epoch, batches) = (Arc::clone(&self.split), self.mid_epoch, self.batches);
        Event { kind, position: self.position, data: EventData::Evaluation { split, mid_epoch, batch, batches } }
    }
}

impl Session {
    /// Whether the plan evaluates at the end of this epoch; the last one always is.
    pub(super) fn evaluation_is_due(&self) -> bool {
        self.plan.evaluation.is_some()
            && match self.plan.evaluate_every {
                Every::Epochs(every) => self.position.epoch.is_multiple_of(every.get()) || self.plan_is_done(),
                // The last step's evaluation is the one of its safe point.
                Every::Steps(every) => self.plan_is_done() && !self.position.global_step.is_multiple_of(every.get()),
                Every::Time(_) => false,
            }
    }

    /// Whether the plan evaluates after this step.
    #[inline]
    pub(super) fn evaluation_is_due_by_step(&self) -> bool {
        match (self.plan.evaluate_every, &self.plan.evaluation) {
            (Every::Steps(every), Some(_)) if !self.epoch_is_over && self.position.step > 0 && !self.is_stopping() => {
                self.position.global_step.is_multiple_of(every.get())
            }
            _ => false,
        }
    }

    /// Starts the plan's evaluation; `None` when it has none.
    pub(super) fn begin_evaluation(&mut self, mid_epoch: bool) -> Result<Option<Evaluation>, TrainError> {
        self.plan.evaluation.as_ref().map(|plan| self.start_evaluation(plan, mid_epoch)).transpose()
    }

    /// Starts the evaluation that comes when training is over; `None` when there is none, or a signal wants the end.
    pub(super) fn begin_test(&mut self) -> Result<Option<Evaluation>, TrainError> {
        let plan = self.plan.test.as_ref().filter(|_| !self.stop().is_some_and(|stop| stop.interrupted));
        plan.map(|plan| self.start_evaluation(plan, false)).transpose()
    }

    fn start_evaluation(&self, plan: &EvaluationPlan, mid_epoch: bool) -> Result<Evaluation, TrainError> {
        let loader = self.in_order(&plan.split, plan.batch_size)?;
        let batches = if self.plan.trial { 1 } else { loader.batches_per_epoch() as u64 };
        Ok(Evaluation {
            split: Arc::clone(&plan.split),
            mid_epoch,
            batch: 0,
            batches,
            position: self.position,
            loader,
            score: Score::new(&plan.metrics),
        })
    }

    /// The batches of a split in its own order.
    pub(super) fn in_order(&self, split: &str, batch_size: usize) -> Result<Loader, TrainError> {
        let options =
            LoaderOptions { batch_size, order: Order::Sequential, first_epoch: 1, first_batch: 0, augmentation: None };
        Ok(Loader::start(Arc::clone(self.data.split(split)?), options)?)
    }

    /// Loads the next batch; false when there is none.
    pub(super) fn load_evaluation_batch(&mut self, evaluation: &mut Evaluation) -> Result<bool, TrainError> {
        if evaluation.batch == evaluation.batches {
            return Ok(false);
        }
        evaluation.batch += 1;
        let batch = evaluation.loader.next_batch()?.batch;
        self.evaluation = Some(self.evaluation_batch(batch)?);
        Ok(true)
    }

    pub(super) fn evaluation_batch(&self, batch: Batch) -> Result<EvaluationBatch, TrainError> {
        Ok(EvaluationBatch {
            inputs: self.to_device(batch.inputs)?,
            targets: self.to_device(batch.targets)?,
            outputs: None,
            loss: None,
            tapped: Vec::new(),
        })
    }

    /// Computes the batch at hand.
    pub(super) fn evaluate_batch(&mut self, evaluation: &mut Evaluation) -> Result<(), TrainError> {
        let Some(mut batch) = self.evaluation.take() else { return Ok(()) };
        let nodes: Vec<usize> = self.taps.iter().filter_map(|tap| tap.node).collect();
        self.infer(&mut batch, &nodes)?;
        evaluation.score.add(&batch, &self.plan.loss)?;
        self.evaluation = Some(batch);
        Ok(())
    }

    /// Fills in outputs, loss and the values of `nodes`.
    pub(super) fn infer(&self, batch: &mut EvaluationBatch, nodes: &[usize]) -> Result<(), TrainError> {
        let _no_gradients = tch::no_grad_guard();
        let (outputs, tapped) = self.infer_inputs(&batch.inputs, nodes)?;
        batch.loss = Some(self.plan.loss.compute(&outputs, &batch.targets)?);
        batch.outputs = Some(outputs);
        batch.tapped = tapped;
        Ok(())
    }

    /// Outputs (f32) and the values of `nodes` in inference mode.
    pub(super) fn infer_inputs(&self, inputs: &Tensor, nodes: &[usize]) -> Result<(Tensor, Vec<Tensor>), TrainError> {
        let _no_gradients = tch::no_grad_guard();
        let _autocast = self.autocast()?;
        let (outputs, tapped) = self.network.forward_with(inputs, Mode::Evaluate, nodes)?;
        let outputs = if outputs.kind() == Kind::Float { outputs } else { outputs.f_to_kind(Kind::Float)? };
        Ok((outputs, tapped))
    }

    /// Puts the evaluation's metrics.
    pub(super) fn end_evaluation(&mut self, evaluation: &mut Evaluation) -> Result<(), TrainError> {
        self.evaluation = None;
        for (name, value) in evaluation.score.values()? {
            let name = format!("{}_{name}", evaluation.split);
            self.put_value(&name, value);
        }
        self.ambience.progress(self);
        Ok(())
    }
}
