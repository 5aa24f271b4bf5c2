//! What callbacks ask of the model and the data: outputs, metrics, batches, steps apart from the run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_api::abi::TensorTable;
use plugin_api::protocol::{BatchRequest, Measure, Predict, Recalibrate, TrainSteps};
use tch::{Kind, Tensor};

use super::super::TrainError;
use super::super::evaluate::Score;
use super::super::metrics::{Metric, MetricValue};
use super::super::session::Session;
use super::tensors::{borrowed, lend};
use crate::data::{Loader, LoaderOptions, Order, SampleType, TRAIN};
use crate::dispatch::{Caller, Reply, ServiceError};
use crate::model::{Graph, Mode, Op};
use crate::torch::values;

/// Apart from the run's own order, so that `train_steps` does not repeat the batches that come next.
const APART: u64 = 0x9e37_79b9_7f4a_7c15;

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
                let graph = self.network.graph().ok_or(ServiceError::NoGraph)?;
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
                let mut loader = self.loader_of(split, batch_size)?;
                let batches = request.batches.min(loader.batches_per_epoch() as u64);
                for _ in 0..batches {
                    let batch = loader.next_batch().map_err(TrainError::from)?.batch;
                    let batch = self.evaluation_batch(batch)?;
                    let (output, tapped) = self.infer_inputs(&batch.inputs, &nodes)?;
                    outputs.push(output);
                    targets.push(batch.targets);
                    values.push(tapped);
                }
            }
            (None, [inputs]) => {
                let inputs = self.to_device(borrowed(inputs)?)?;
                self.check_inputs(&inputs)?;
                let (output, tapped) = self.infer_inputs(&inputs, &nodes)?;
                outputs.push(output);
                values.push(tapped);
            }
            (None, _) => {
                return Err(ServiceError::Failed("give one tensor of inputs, or a split".to_owned()));
            }
        }
        if outputs.is_empty() {
            return Err(ServiceError::Failed("no batch was asked for".to_owned()));
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

    fn check_inputs(&self, inputs: &Tensor) -> Result<(), ServiceError> {
        let expected = self.data.sample_shape.as_slice();
        let (kind, dtype) = match self.data.sample_type {
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

    fn inference_batch_size(&self) -> usize {
        self.plan.evaluation.as_ref().map_or(self.plan.batch_size, |plan| plan.batch_size)
    }

    fn loader_of(&self, split: &str, batch_size: usize) -> Result<Loader, ServiceError> {
        if !self.data.splits.contains_key(split) {
            return Err(ServiceError::no_such_name("split", split, self.data.splits.keys().map(String::as_str)));
        }
        Ok(self.in_order(split, batch_size)?)
    }

    /// Metrics over a split, of the model or of a named copy, which stands in its place meanwhile.
    pub(super) fn measure(&mut self, request: &Measure, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
        let metrics: Vec<Metric> = if request.metrics.is_empty() {
            let planned = self.plan.evaluation.as_ref().map_or_else(Vec::new, |plan| plan.metrics.clone());
            // The reply has numbers.
            planned.into_iter().filter(|metric| !metric.is_array()).collect()
        } else {
            let names = request.metrics.iter().filter(|name| *name != "loss");
            names.map(|name| self.measurable(name)).collect::<Result<_, _>>()?
        };
        let own = match &request.weights {
            None => None,
            Some(name) if self.copies.contains_key(name) => Some(self.network.copy().map_err(TrainError::from)?),
            Some(name) => return Err(self.no_copy(name)),
        };
        if let Some(copy) = request.weights.as_ref().and_then(|name| self.copies.get(name)) {
            self.network.write_all(copy).map_err(TrainError::from)?;
        }
        let scored = self.score(&request.split, &metrics);
        if let Some(own) = own {
            self.network.write_all(&own).map_err(TrainError::from)?;
        }
        let wanted = |name: &str| request.metrics.is_empty() || request.metrics.iter().any(|metric| metric == name);
        let numbers = scored?.into_iter().filter_map(|(name, value)| match value {
            MetricValue::Number(number) if wanted(&name) => Some((name, number)),
            _ => None,
        });
        let values: BTreeMap<_, f64> = numbers.collect();
        reply.value(&values)
    }

    /// The metric of this name, if it is a number and fits the data.
    fn measurable(&self, name: &str) -> Result<Metric, ServiceError> {
        let metric = Metric::from_name(name).filter(|metric| !metric.is_array()).ok_or_else(|| {
            let numbers = Metric::ALL.iter().filter(|metric| !metric.is_array());
            let names: Vec<_> = numbers.map(|metric| metric.name()).chain(["loss".into()]).collect();
            ServiceError::no_such_name("metric", name, names.iter().map(AsRef::as_ref))
        })?;
        if let Some(shape) = self.network.output_shape() {
            metric.check(shape, &self.data.target).map_err(TrainError::from)?;
        }
        Ok(metric)
    }

    fn score(&self, split: &str, metrics: &[Metric]) -> Result<Vec<(Cow<'static, str>, MetricValue)>, ServiceError> {
        let mut loader = self.loader_of(split, self.inference_batch_size())?;
        let batches = if self.plan.trial { 1 } else { loader.batches_per_epoch() };
        let mut score = Score::new(metrics);
        for _ in 0..batches {
            let batch = loader.next_batch().map_err(TrainError::from)?.batch;
            let mut batch = self.evaluation_batch(batch)?;
            self.infer(&mut batch, &[])?;
            score.add(&batch, &self.plan.loss)?;
        }
        Ok(score.values()?)
    }

    /// Estimates the running statistics as cumulative averages over batches, in training mode; the generator that
    /// dropout draws from is put back.
    pub(super) fn recalibrate_batch_norm(
        &mut self,
        caller: &Caller<'_>,
        request: &Recalibrate,
    ) -> Result<(), ServiceError> {
        self.weights_may_change(caller)?;
        // Which buffers are statistics, and what a batch moves them by, the graph alone tells.
        let graph = Arc::clone(self.network.graph().ok_or(ServiceError::NoGraph)?);
        let mut loader = self.loader_of(&request.split, self.plan.batch_size)?;
        let generator = crate::torch::random::generator_state(self.network.device()).map_err(TrainError::from)?;
        let outcome = self.average_statistics(&graph, &mut loader, request.batches);
        crate::torch::random::set_generator_state(self.network.device(), &generator).map_err(TrainError::from)?;
        Ok(outcome?)
    }

    fn average_statistics(&mut self, graph: &Graph, loader: &mut Loader, batches: u64) -> Result<(), TrainError> {
        let _no_gradients = tch::no_grad_guard();
        let buffers: Vec<(String, Tensor)> = self
            .network
            .buffers()
            .iter()
            .filter(|named| named.tensor.kind() == Kind::Float)
            .map(|named| (named.name.clone(), named.tensor.shallow_clone()))
            .collect();
        let mut sums: Vec<Tensor> =
            buffers.iter().map(|(_, buffer)| buffer.f_zeros_like()).collect::<Result<_, _>>()?;
        let batches = batches.min(loader.batches_per_epoch() as u64);
        for _ in 0..batches {
            // A batch's own statistics are what a forward pass moves the buffers towards: from the value `b` at the
            // momentum `m` they become `b + m (s - b)`. With `b` zeroed first, `s` is the value over `m`.
            for (_, buffer) in &buffers {
                let _ = buffer.shallow_clone().f_zero_()?;
            }
            let batch = loader.next_batch()?.batch;
            let inputs = self.to_device(batch.inputs)?;
            let _ = self.network.forward(&inputs, Mode::Train)?;
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
    pub(super) fn batch_of_split(&self, request: &BatchRequest, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
        let split = self.data.splits.get(&request.split).ok_or_else(|| {
            ServiceError::no_such_name("split", &request.split, self.data.splits.keys().map(String::as_str))
        })?;
        let size = self.plan.batch_size as u64;
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
        let batch = self.evaluation_batch(split.gather(&indices).map_err(TrainError::from)?)?;
        lend("inputs".to_owned(), batch.inputs, reply)?;
        lend("targets".to_owned(), batch.targets, reply)
    }

    /// Updates outside the run's history and data order; the position stays.
    pub(super) fn train_apart(
        &mut self,
        caller: &Caller<'_>,
        request: &TrainSteps,
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        self.weights_may_change(caller)?;
        reply.value(&self.losses_apart(request.steps)?)
    }

    fn losses_apart(&mut self, steps: u64) -> Result<Vec<f64>, TrainError> {
        let options = LoaderOptions {
            batch_size: self.plan.batch_size,
            order: Order::Shuffled { seed: self.plan.seed ^ APART },
            first_epoch: self.position.epoch.max(1),
            first_batch: 0,
            augmentation: self.data.augmentation.clone(),
        };
        let mut loader = Loader::start(Arc::clone(self.data.split(TRAIN)?), options)?;
        let mut losses = Vec::new();
        for _ in 0..steps {
            let batch = loader.next_batch()?.batch;
            let (inputs, targets) = (self.to_device(batch.inputs)?, self.to_device(batch.targets)?);
            self.optimizer.clear_gradients()?;
            let (_, loss, _) = self.forward(&inputs, &targets, &[])?;
            loss.f_backward()?;
            if let Some(maximum) = self.plan.clip_gradient_norm {
                self.optimizer.clip_gradient_norm(maximum)?;
            }
            self.optimizer.step()?;
            losses.push(values::scalar(&loss)?);
        }
        self.optimizer.clear_gradients()?;
        Ok(losses)
    }
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
