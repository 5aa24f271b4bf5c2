//! Answers from the model and the data: metrics, statistics, and training steps outside the run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_api::protocol::requests::{Measure, Recalibrate, TrainSteps};
use tch::{Kind, Tensor};

use super::super::error::TrainError;
use super::super::evaluate::{EvaluationBatch, Score};
use super::super::feed::{Feed, in_order};
use super::super::learner::Learner;
use super::super::metrics::{Metric, MetricValue};
use super::super::session::Session;
use super::super::step::Samples;
use super::predictor::known_split;
use super::weights::no_copy;
use crate::data::Loader;
use crate::model::{Graph, Mode, Op};
use crate::services::ServiceError;
use crate::torch::{self, random, values};

impl Session {
    /// Metrics over a split, of the model or of a named copy, which replaces it meanwhile.
    pub(super) fn measure(&mut self, request: &Measure) -> Result<BTreeMap<String, f64>, ServiceError> {
        let metrics: Vec<Metric> = if request.metrics.is_empty() {
            let planned = self.evaluations.repeated.as_ref().map_or_else(Vec::new, |plan| plan.metrics.clone());
            // The reply has only numbers.
            planned.into_iter().filter(|metric| !metric.is_array()).collect()
        } else {
            let names = request.metrics.iter().filter(|name| *name != "loss");
            names.map(|name| self.measurable(name)).collect::<Result<_, _>>()?
        };
        let own = match &request.weights {
            None => None,
            Some(name) if self.kept.copies.contains_key(name) => {
                Some(self.learner.network.copy().map_err(TrainError::from)?)
            }
            Some(name) => return Err(no_copy(&self.kept, name)),
        };
        if let Some(copy) = request.weights.as_ref().and_then(|name| self.kept.copies.get(name)) {
            self.learner.network.write_all(&copy.tensors).map_err(TrainError::from)?;
        }
        let scored = self.score(&request.split, request.batches, &metrics);
        if let Some(own) = own {
            self.learner.network.write_all(&own).map_err(TrainError::from)?;
        }
        let wanted = |name: &str| request.metrics.is_empty() || request.metrics.iter().any(|metric| metric == name);
        let numbers = scored?.into_iter().filter_map(|(name, value)| match value {
            MetricValue::Number(number) if wanted(&name) => Some((name.into_owned(), number)),
            _ => None,
        });
        Ok(numbers.collect())
    }

    /// The metric of this name, if it is a number and fits the data.
    fn measurable(&self, name: &str) -> Result<Metric, ServiceError> {
        let metric = Metric::from_name(name).filter(|metric| !metric.is_array()).ok_or_else(|| {
            let numbers = Metric::ALL.iter().filter(|metric| !metric.is_array());
            let names: Vec<_> = numbers.map(|metric| metric.name()).chain(["loss".into()]).collect();
            ServiceError::no_such_name("metric", name, names.iter().map(AsRef::as_ref))
        })?;
        if let Some(shape) = self.learner.network.output_shape() {
            metric.check(shape, &self.feed.data.target).map_err(TrainError::from)?;
        }
        Ok(metric.of_class(self.feed.data.positive))
    }

    fn score(
        &self,
        split: &str,
        batches: Option<u64>,
        metrics: &[Metric],
    ) -> Result<Vec<(Cow<'static, str>, MetricValue)>, ServiceError> {
        let mut loader = loader_of(&self.feed, split, self.inference_batch_size())?;
        let all = loader.batches_per_epoch() as u64;
        let batches = if self.evaluations.trial { 1 } else { batches.map_or(all, |most| all.min(most)) };
        let mut score = Score::new(metrics);
        for _ in 0..batches {
            let batch = loader.next_batch().map_err(TrainError::from)?.batch;
            let mut batch = EvaluationBatch::new(batch, &self.learner)?;
            self.learner.infer(&mut batch, &[])?;
            score.add(&batch, &self.learner.loss)?;
        }
        Ok(score.values()?)
    }
}

/// The batches of a split in its own order.
fn loader_of(feed: &Feed, split: &str, batch_size: usize) -> Result<Loader, ServiceError> {
    known_split(&feed.data, split)?;
    Ok(in_order(&feed.data, split, batch_size)?)
}

/// Estimates the running statistics as cumulative averages over batches, in training mode; the generator that
/// dropout draws from is restored.
pub(super) fn recalibrate_batch_norm(
    learner: &mut Learner,
    feed: &Feed,
    request: &Recalibrate,
) -> Result<(), ServiceError> {
    // Only the graph tells which buffers are statistics, and how far a batch moves them.
    let graph = Arc::clone(learner.network.graph().map_err(TrainError::from)?);
    let mut loader = loader_of(feed, &request.split, feed.batches.size)?;
    let generator = random::generator_state(learner.network.device()).map_err(TrainError::from)?;
    let outcome = average_statistics(learner, &graph, &mut loader, request.batches);
    random::set_generator_state(learner.network.device(), &generator).map_err(TrainError::from)?;
    Ok(outcome?)
}

fn average_statistics(
    learner: &mut Learner,
    graph: &Graph,
    loader: &mut Loader,
    batches: u64,
) -> Result<(), TrainError> {
    let _no_gradients = tch::no_grad_guard();
    let statistics = learner.network.moving_buffers().filter(|named| named.tensor.kind() == Kind::Float);
    let buffers: Vec<(f64, Tensor)> = statistics
        .filter_map(|named| Some((batch_norm_momentum(graph, &named.name)?, named.tensor.shallow_clone())))
        .collect();
    let mut sums: Vec<Tensor> = buffers.iter().map(|(_, buffer)| buffer.f_zeros_like()).collect::<Result<_, _>>()?;
    let batches = batches.min(loader.batches_per_epoch() as u64);
    for _ in 0..batches {
        // A forward pass moves the buffers toward the batch's own statistics: from the value `b` with the
        // momentum `m` they become `b + m (s - b)`. With `b` zeroed first, `s` is the value over `m`.
        for (_, buffer) in &buffers {
            let _ = buffer.shallow_clone().f_zero_()?;
        }
        let batch = loader.next_batch()?.batch;
        let batch = EvaluationBatch::new(batch, learner)?;
        let _ = learner.network.compute(batch.of_model(Some(&batch.targets)), Mode::Train, &[])?;
        for (sum, (_, buffer)) in sums.iter_mut().zip(&buffers) {
            let _ = sum.f_add_(buffer)?;
        }
    }
    if batches == 0 {
        return Ok(());
    }
    for (sum, (momentum, buffer)) in sums.iter().zip(&buffers) {
        let mean = sum.f_div_scalar(*momentum * batches as f64)?;
        buffer.shallow_clone().f_copy_(&mean)?;
    }
    Ok(())
}

/// Updates outside the run's history and data order; the position stays. Returns their losses.
///
/// Each of `several` ranks trains on the whole batches, all alike: dropout, which otherwise draws other numbers on each,
/// draws the same ones.
pub(super) fn train_apart(
    learner: &mut Learner,
    feed: &mut Feed,
    epoch: u64,
    request: &TrainSteps,
    several: bool,
) -> Result<Vec<f64>, TrainError> {
    if !several {
        return train_steps(learner, feed, epoch, request);
    }
    let device = learner.network.device();
    let own = random::generator_state(device)?;
    torch::manual_seed(epoch.wrapping_mul(STEPS_OF_AN_EPOCH).wrapping_add(request.first));
    let losses = train_steps(learner, feed, epoch, request);
    random::set_generator_state(device, &own)?;
    losses
}

/// More updates than anybody makes outside a run: each has a seed of its own.
const STEPS_OF_AN_EPOCH: u64 = 1 << 32;

fn train_steps(
    learner: &mut Learner,
    feed: &mut Feed,
    epoch: u64,
    request: &TrainSteps,
) -> Result<Vec<f64>, TrainError> {
    let batches = feed.apart(epoch, request.first)?;
    let mut losses = Vec::new();
    let overflowed = learner.step.overflowed;
    for _ in 0..request.steps {
        let batch = batches.next_batch()?;
        let EvaluationBatch { inputs, others, targets, .. } = EvaluationBatch::new(batch, learner)?;
        learner.optimizer.clear_gradients()?;
        let loss = learner.loss_apart(Samples { inputs: &inputs, others: &others, targets: &targets })?;
        values::backward(&loss, &learner.take_loss_gradient()?)?;
        learner.unscale_gradients()?;
        if !learner.step.overflowed {
            if let Some(maximum) = learner.clip_gradient_norm {
                learner.optimizer.clip_gradient_norm(maximum)?;
            }
            learner.optimizer.step()?;
        }
        learner.scale_next_loss();
        losses.push(values::scalar(&loss)?);
    }
    learner.optimizer.clear_gradients()?;
    learner.step.overflowed = overflowed;
    Ok(losses)
}

/// The momentum of the batch norm that a buffer belongs to; `None` for another tensor that has no gradient.
fn batch_norm_momentum(graph: &Graph, buffer: &str) -> Option<f64> {
    graph.nodes().iter().filter(|node| node.buffers.iter().any(|spec| spec.name == buffer)).find_map(|node| match node
        .op
    {
        Op::BatchNorm { momentum, .. } => Some(momentum),
        _ => None,
    })
}
