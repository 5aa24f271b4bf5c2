//! Evaluation of a split: in inference mode, drawing from no generator and changing no buffer. Of several ranks each
//! evaluates a run of whole batches, the same that one process has, and all get the scores of all of them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;
use tch::Tensor;

use super::custom::Loss;
use super::error::TrainError;
use super::feed::{Feed, run_of_batches};
use super::learner::Learner;
use super::meaning::{Meaning, targets};
use super::measured::Measured;
use super::metrics::{Accumulator, Average, Metric, MetricValue, over_ranks};
use super::progress::Progress;
use crate::config::Every;
use crate::data::{Batch, Loader};
use crate::dispatch::{Event, EventData};
use crate::distributed::{ProcessGroup, Share};
use crate::history::Position;
use crate::model::ModelBatch;
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
    /// How many samples are shown, and what the outputs mean.
    pub shown: Option<(usize, Meaning)>,
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
    /// Whether each rank evaluates all of it.
    pub(super) are_whole: bool,
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
    /// The current batch, from 1; counted in the whole, as all batches are.
    batch: u64,
    /// Those of all ranks.
    batches: u64,
    /// Those of this rank, from 0: they are a run of the whole.
    own: Range<u64>,
    share: Share,
    position: Position,
    /// `None` where this rank has no batch.
    loader: Option<Loader>,
    score: Score,
    examples: Option<Examples>,
}

/// The first samples of an evaluation, as people read them: of those that rank zero evaluates.
pub(super) struct Examples {
    wanted: usize,
    meaning: Meaning,
    rows: Vec<Vec<String>>,
}

impl Examples {
    fn add(&mut self, batch: &EvaluationBatch) -> Result<(), TrainError> {
        let (Some(outputs), missing) = (&batch.outputs, self.wanted.saturating_sub(self.rows.len())) else {
            return Ok(());
        };
        let count = (outputs.size().first().copied().unwrap_or(0)).min(missing as i64);
        if count == 0 {
            return Ok(());
        }
        let numbers = self.meaning.numbers(&outputs.f_narrow(0, 0, count)?)?;
        let known = targets(&self.meaning, &batch.targets.f_narrow(0, 0, count)?, true)?;
        for (numbers, targets) in numbers.iter().zip(known) {
            let index = self.rows.len().to_string();
            let target = targets.join(" ");
            self.rows.push(match self.meaning.chosen(numbers) {
                Some((class, probability)) => vec![index, target, class.to_owned(), format!("{probability:.4}")],
                None => {
                    let predicted: Vec<String> = numbers.iter().map(|number| format!("{number:.4}")).collect();
                    vec![index, target, predicted.join(" ")]
                }
            });
        }
        Ok(())
    }

    /// The names of the columns, and the rows.
    pub(super) fn table(&self) -> (Vec<String>, &[Vec<String>]) {
        let columns: &[&str] = match self.rows.first().map(Vec::len) {
            Some(3) => &["sample", "target", "prediction"],
            _ => &["sample", "target", "prediction", "probability"],
        };
        (columns.iter().map(|column| (*column).to_owned()).collect(), &self.rows)
    }
}

/// The part of an evaluation's batch that callbacks see.
pub(super) struct EvaluationBatch {
    pub(super) inputs: Tensor,
    /// The inputs beside the samples, in the data's order.
    pub(super) others: Vec<Tensor>,
    pub(super) targets: Tensor,
    pub(super) outputs: Option<Tensor>,
    pub(super) loss: Option<Tensor>,
    pub(super) tapped: Vec<Tensor>,
}

impl EvaluationBatch {
    pub(super) fn new(batch: Batch, learner: &Learner) -> Result<Self, TrainError> {
        Ok(Self {
            inputs: learner.to_device(batch.inputs)?,
            others: learner.all_to_device(batch.others)?,
            targets: learner.to_device(batch.targets)?,
            outputs: None,
            loss: None,
            tapped: Vec::new(),
        })
    }

    /// What the model takes of it.
    pub(super) fn of_model<'a>(&'a self, targets: Option<&'a Tensor>) -> ModelBatch<'a> {
        ModelBatch { inputs: &self.inputs, others: &self.others, targets }
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

    /// That of all ranks.
    fn over_ranks(self, group: &ProcessGroup) -> Result<Self, TrainError> {
        let (loss, accumulators) = over_ranks(group, self.loss, self.accumulators)?;
        Ok(Self { loss, accumulators })
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
    /// Begins the `share` of `plan`, with one batch in a `trial`. A share that is not the whole is part of an evaluation that
    /// all ranks do at once, which [`Self::end`] puts together.
    pub(super) fn begin(
        plan: &EvaluationPlan,
        feed: &Feed,
        position: Position,
        mid_epoch: bool,
        trial: bool,
        share: Share,
    ) -> Result<Self, TrainError> {
        let all = feed.data.split(&plan.split)?.len().div_ceil(plan.batch_size.max(1)) as u64;
        let batches = if trial { 1 } else { feed.limits.of(&plan.split).map_or(all, |most| all.min(most)) };
        let (split, score) = (Arc::clone(&plan.split), Score::new(&plan.metrics));
        let own = share.range(usize::try_from(batches).unwrap_or(usize::MAX));
        // Of a split without samples it says so.
        let loader = (!own.is_empty() || all == 0)
            .then(|| run_of_batches(&feed.data, &plan.split, plan.batch_size, own.clone()));
        let loader = loader.transpose()?;
        let own = own.start as u64..own.end as u64;
        let shown = plan.shown.clone().filter(|_| own.start == 0 && !own.is_empty());
        let examples = shown.map(|(wanted, meaning)| Examples { wanted, meaning, rows: Vec::new() });
        Ok(Self { split, mid_epoch, batch: own.start, batches, own, share, position, loader, score, examples })
    }

    /// Loads the next batch; false when this rank has none left.
    pub(super) fn load_batch(&mut self, learner: &mut Learner) -> Result<bool, TrainError> {
        let Some(loader) = self.loader.as_mut().filter(|_| self.batch < self.own.end) else { return Ok(false) };
        self.batch += 1;
        let batch = loader.next_batch()?.batch;
        learner.evaluation = Some(EvaluationBatch::new(batch, learner)?);
        Ok(true)
    }

    /// Computes the current batch.
    pub(super) fn compute_batch(&mut self, learner: &mut Learner) -> Result<(), TrainError> {
        let Some(mut batch) = learner.evaluation.take() else { return Ok(()) };
        learner.infer(&mut batch, &learner.tapped_nodes())?;
        self.score.add(&batch, &learner.loss)?;
        if let Some(examples) = &mut self.examples {
            examples.add(&batch)?;
        }
        learner.evaluation = Some(batch);
        Ok(())
    }

    /// Computes the outputs of the current batch, whose targets may mean nothing.
    pub(super) fn predict_batch(&mut self, learner: &mut Learner) -> Result<(), TrainError> {
        let Some(mut batch) = learner.evaluation.take() else { return Ok(()) };
        learner.infer_outputs(&mut batch, &learner.tapped_nodes())?;
        learner.evaluation = Some(batch);
        Ok(())
    }

    /// The batches of this rank that are done, and how many it has.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.batch - self.own.start, self.own.end - self.own.start)
    }

    /// The samples to show.
    pub(super) fn take_examples(&mut self) -> Option<Examples> {
        self.examples.take().filter(|examples| !examples.rows.is_empty())
    }

    /// The split that is evaluated.
    pub(super) fn split(&self) -> Arc<str> {
        Arc::clone(&self.split)
    }

    /// Puts the metrics: of a share, those of all ranks, the same on each. It waits for the others then.
    pub(super) fn end(
        mut self,
        learner: &mut Learner,
        measured: &mut Measured,
        group: &ProcessGroup,
    ) -> Result<Event, TrainError> {
        learner.evaluation = None;
        if !self.share.is_whole() {
            self.score = self.score.over_ranks(group)?;
        }
        for (name, value) in self.score.values()? {
            measured.put_value(self.position, &format!("{}_{name}", self.split), value);
        }
        Ok(self.event(EventKind::EVAL_END))
    }

    /// The event of this kind, at the current batch.
    pub(super) fn event(&self, kind: EventKind) -> Event {
        let batch = match kind {
            EventKind::EVAL_STEP_START | EventKind::EVAL_STEP_END | EventKind::PREDICT_STEP => self.batch,
            _ => 0,
        };
        let (split, mid_epoch, batches) = (Arc::clone(&self.split), self.mid_epoch, self.batches);
        Event { kind, position: self.position, data: EventData::Evaluation { split, mid_epoch, batch, batches } }
    }
}
