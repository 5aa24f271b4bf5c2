//! Answers from the model and the data: outputs, metrics, batches, and training steps outside the run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_api::abi::TensorTable;
use plugin_api::protocol::requests::{BatchRequest, Measure, Predict, Recalibrate};
use tch::{Kind, Tensor};

use super::super::error::TrainError;
use super::super::evaluate::{EvaluationBatch, Score};
use super::super::feed::Feed;
use super::super::learner::Learner;
use super::super::metrics::{Metric, MetricValue};
use super::super::session::Session;
use super::tensors::{borrowed, lend};
use super::weights::no_copy;
use crate::data::{Data, Loader, SampleType};
use crate::model::{Graph, Mode, Op};
use crate::services::{Reply, ServiceError};
use crate::torch::{random, values};

impl Session {
    pub(super) fn predict(
        &self,
        request: &Predict,
        tables: &[TensorTable],
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        let nodes = request
            .nodes
            .iter()
            .map(|name| {
                let graph = self.learner.network.graph().ok_or(ServiceError::NoGraph)?;
                graph.nodes().iter().position(|node| &node.name == name).ok_or_else(|| {
                    ServiceError::no_such_name("node", name, graph.nodes().iter().map(|node| node.name.as_str()))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut outputs = Vec::new();
        let mut targets = Vec::new();
        let mut values: Vec<Vec<Tensor>> = Vec::new();
        match (&request.split, tables) {
            (Some(split), _) => {
                let batch_size = self.inference_batch_size();
                let mut loader = loader_of(&self.feed, split, batch_size)?;
                let batches = request.batches.min(loader.batches_per_epoch() as u64);
                for _ in 0..batches {
                    let batch = loader.next_batch().map_err(TrainError::from)?.batch;
                    let batch = EvaluationBatch::new(batch, &self.learner)?;
                    let (output, tapped) = self.learner.predict(&batch.inputs, &nodes)?;
                    outputs.push(output);
                    targets.push(batch.targets);
                    values.push(tapped);
                }
            }
            (None, [inputs]) => {
                let inputs = self.learner.to_device(borrowed(inputs)?)?;
                check_inputs(&self.feed.data, &inputs)?;
                let (output, tapped) = self.learner.predict(&inputs, &nodes)?;
                outputs.push(output);
                values.push(tapped);
            }
            (None, _) => {
                return Err(ServiceError::Failed("the request needs one tensor of inputs, or a split".to_owned()));
            }
        }
        if outputs.is_empty() {
            return Err(ServiceError::Failed("the request has no batches".to_owned()));
        }
        let join = |parts: &[Tensor]| Tensor::f_cat(parts, 0).map_err(TrainError::from);
        lend("outputs".to_owned(), join(&outputs)?, reply)?;
        if !targets.is_empty() {
            lend("targets".to_owned(), join(&targets)?, reply)?;
        }
        for (index, name) in request.nodes.iter().enumerate() {
            let parts: Vec<Tensor> = values.iter().map(|tapped| tapped[index].shallow_clone()).collect();
            lend(name.clone(), join(&parts)?, reply)?;
        }
        Ok(())
    }

    fn inference_batch_size(&self) -> usize {
        self.evaluations.repeated.as_ref().map_or(self.feed.batches.size, |plan| plan.batch_size)
    }

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
        let scored = self.score(&request.split, &metrics);
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

    fn score(&self, split: &str, metrics: &[Metric]) -> Result<Vec<(Cow<'static, str>, MetricValue)>, ServiceError> {
        let mut loader = loader_of(&self.feed, split, self.inference_batch_size())?;
        let batches = if self.evaluations.trial { 1 } else { loader.batches_per_epoch() };
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

/// Whether the model takes these inputs.
fn check_inputs(data: &Data, inputs: &Tensor) -> Result<(), ServiceError> {
    let expected = data.sample_shape.as_slice();
    let (kind, dtype) = match data.sample_type {
        SampleType::F32 => (Kind::Float, "f32"),
        SampleType::I64 => (Kind::Int64, "i64"),
    };
    let size = inputs.size();
    if inputs.kind() == kind && size.len() == expected.len() + 1 && size[1..] == *expected {
        return Ok(());
    }
    Err(ServiceError::Failed(format!(
        "the model takes {dtype} inputs of shape [batch, {}], not {:?} of {size:?}",
        expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        inputs.kind()
    )))
}

/// The batches of a split in its own order.
fn loader_of(feed: &Feed, split: &str, batch_size: usize) -> Result<Loader, ServiceError> {
    if !feed.data.splits.contains_key(split) {
        return Err(ServiceError::no_such_name("split", split, feed.data.splits.keys().map(String::as_str)));
    }
    Ok(feed.in_order(split, batch_size)?)
}

/// Estimates the running statistics as cumulative averages over batches, in training mode; the generator that
/// dropout draws from is restored.
pub(super) fn recalibrate_batch_norm(
    learner: &mut Learner,
    feed: &Feed,
    request: &Recalibrate,
) -> Result<(), ServiceError> {
    // Only the graph tells which buffers are statistics, and how far a batch moves them.
    let graph = Arc::clone(learner.network.graph().ok_or(ServiceError::NoGraph)?);
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
    let buffers: Vec<(String, Tensor)> = learner
        .network
        .buffers()
        .iter()
        .filter(|named| named.tensor.kind() == Kind::Float)
        .map(|named| (named.name.clone(), named.tensor.shallow_clone()))
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
        let inputs = learner.to_device(batch.inputs)?;
        let _ = learner.network.forward(&inputs, Mode::Train)?;
        for (sum, (_, buffer)) in sums.iter_mut().zip(&buffers) {
            let _ = sum.f_add_(buffer)?;
        }
    }
    if batches == 0 {
        return Ok(());
    }
    for (sum, (name, buffer)) in sums.iter().zip(&buffers) {
        let momentum = batch_norm_momentum(graph, name);
        let mean = sum.f_div_scalar(momentum * batches as f64)?;
        buffer.shallow_clone().f_copy_(&mean)?;
    }
    Ok(())
}

/// A batch of a split, in the split's own order and of the training's batch size.
pub(super) fn batch_of_split(
    learner: &Learner,
    feed: &Feed,
    request: &BatchRequest,
    reply: &mut Reply<'_>,
) -> Result<(), ServiceError> {
    let split = feed.data.splits.get(&request.split).ok_or_else(|| {
        ServiceError::no_such_name("split", &request.split, feed.data.splits.keys().map(String::as_str))
    })?;
    let size = feed.batches.size as u64;
    let begin = request.index.saturating_mul(size).min(split.len() as u64);
    let end = begin.saturating_add(size).min(split.len() as u64);
    if begin == end {
        return Err(ServiceError::Failed(format!(
            "the split `{}` has {} batches, none of index {}",
            request.split,
            (split.len() as u64).div_ceil(size),
            request.index
        )));
    }
    let indices: Vec<u32> = (begin as u32..end as u32).collect();
    let batch = EvaluationBatch::new(split.gather(&indices).map_err(TrainError::from)?, learner)?;
    lend("inputs".to_owned(), batch.inputs, reply)?;
    lend("targets".to_owned(), batch.targets, reply)
}

/// Updates outside the run's history and data order; the position stays. Returns their losses.
pub(super) fn train_apart(learner: &mut Learner, feed: &Feed, epoch: u64, steps: u64) -> Result<Vec<f64>, TrainError> {
    let mut loader = feed.apart(epoch)?;
    let mut losses = Vec::new();
    for _ in 0..steps {
        let batch = loader.next_batch()?.batch;
        let (inputs, targets) = (learner.to_device(batch.inputs)?, learner.to_device(batch.targets)?);
        learner.optimizer.clear_gradients()?;
        let (_, loss, _) = learner.forward(&inputs, &targets, &[])?;
        loss.f_backward()?;
        if let Some(maximum) = learner.clip_gradient_norm {
            learner.optimizer.clip_gradient_norm(maximum)?;
        }
        learner.optimizer.step()?;
        losses.push(values::scalar(&loss)?);
    }
    learner.optimizer.clear_gradients()?;
    Ok(losses)
}

/// The momentum of the batch norm that a buffer belongs to.
fn batch_norm_momentum(graph: &Graph, buffer: &str) -> f64 {
    graph
        .nodes()
        .iter()
        .filter(|node| node.buffers.iter().any(|spec| spec.name == buffer))
        .find_map(|node| match node.op {
            Op::BatchNorm { momentum, .. } => Some(momentum),
            _ => None,
        })
        .unwrap_or(1.0)
}
