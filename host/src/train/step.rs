//! One optimizer update: load, forward and backward, update.

use tch::{Device, Kind, Tensor};

use super::error::TrainError;
use super::precision::Precision;
use super::session::Session;
use crate::torch::autocast::{self, Autocast};
use crate::torch::values;

/// What callbacks can see of the step at hand.
#[derive(Default)]
pub(super) struct Step {
    /// The samples of the step, all its batches joined, on the model's device.
    pub(super) inputs: Option<Tensor>,
    pub(super) targets: Option<Tensor>,
    /// The model's output, from backward on. Its graph hangs on it: whoever hands it out detaches it, so that a step
    /// whose output nobody reads need not.
    pub(super) outputs: Option<Tensor>,
    /// The mean loss over the step's samples, on the model's device; as to its graph, see `outputs`.
    pub(super) loss: Option<Tensor>,
    /// Values of the tapped nodes, in the order of the taps for activations.
    pub(super) tapped: Vec<Tensor>,
    pub(super) gradient_norm: Option<f64>,
    /// The gradient of a loss by itself: a one on the model's device.
    one: Option<Tensor>,
    /// Batch sizes of the step, for accumulation.
    sizes: Vec<i64>,
    seconds: Seconds,
}

/// Time spent in steps, by the processor's counter.
#[derive(Default)]
struct Seconds {
    clock: quanta::Clock,
    began: u64,
    last: f64,
    total: f64,
}

impl Step {
    pub(super) fn total_seconds(&self) -> f64 {
        self.seconds.total
    }

    pub(super) fn last_seconds(&self) -> f64 {
        self.seconds.last
    }

    pub(super) fn clear_seconds(&mut self) {
        self.seconds.total = 0.0;
    }
}

impl Session {
    /// Loads the samples of the next step; false at the end of the epoch.
    pub(super) fn begin_step(&mut self) -> Result<bool, TrainError> {
        if !self.has_next_step() {
            return Ok(false);
        }
        self.step.seconds.began = self.step.seconds.clock.raw();
        self.position.step += 1;
        self.position.global_step += 1;
        // What the last step left is freed here, not between its hooks.
        (self.step.inputs, self.step.targets) = (None, None);
        (self.step.outputs, self.step.loss) = (None, None);
        self.step.tapped.clear();
        let first = self.loader.next_batch()?;
        let mut is_last = first.is_last;
        self.step.sizes.clear();
        self.step.sizes.push(first.batch.size as i64);
        let (mut inputs, mut targets) = (first.batch.inputs, first.batch.targets);
        if self.plan.accumulate > 1 {
            let mut parts = (vec![inputs], vec![targets]);
            while !is_last && self.step.sizes.len() < self.plan.accumulate as usize {
                let next = self.loader.next_batch()?;
                is_last = next.is_last;
                self.step.sizes.push(next.batch.size as i64);
                parts.0.push(next.batch.inputs);
                parts.1.push(next.batch.targets);
            }
            inputs = Tensor::f_cat(&parts.0, 0)?;
            targets = Tensor::f_cat(&parts.1, 0)?;
        }
        self.position.samples += self.step.sizes.iter().sum::<i64>() as u64;
        // Batches are on the CPU.
        if self.network.device() != Device::Cpu {
            (inputs, targets) = (self.to_device(inputs)?, self.to_device(targets)?);
        }
        self.step.inputs = Some(inputs);
        self.step.targets = Some(targets);
        self.optimizer.clear_gradients()?;
        Ok(true)
    }

    /// Computes outputs, loss and gradients. With accumulation the gradients are those of the joined batch: each
    /// batch's mean loss is weighted by its share of the samples, or of their class weights.
    pub(super) fn forward_backward(&mut self) -> Result<(), TrainError> {
        let (Some(inputs), Some(targets)) = (&self.step.inputs, &self.step.targets) else {
            return Ok(());
        };
        let one = match self.step.one.take() {
            Some(one) => one,
            None => Tensor::f_ones([0i64; 0], (Kind::Float, self.network.device()))?,
        };
        let nodes: Vec<usize> = self.taps.iter().filter_map(|tap| tap.node).collect();
        if let [_] = self.step.sizes[..] {
            let (outputs, loss, tapped) = self.forward(inputs, targets, &nodes)?;
            values::backward(&loss, &one)?;
            self.step.one = Some(one);
            values::forget_graph(&loss)?;
            values::forget_graph(&outputs)?;
            self.step.loss = Some(loss);
            self.step.outputs = Some(outputs);
            self.step.tapped = tapped;
            return Ok(());
        }
        let weights = self.batch_weights(targets)?;
        let total: f64 = weights.iter().sum();
        let (mut outputs, mut tapped): (Vec<Tensor>, Vec<Vec<Tensor>>) = (Vec::new(), Vec::new());
        let mut mean: Option<Tensor> = None;
        let mut start = 0;
        for (&size, weight) in self.step.sizes.iter().zip(weights) {
            let (inputs, targets) = (inputs.f_narrow(0, start, size)?, targets.f_narrow(0, start, size)?);
            let (output, loss, values) = self.forward(&inputs, &targets, &nodes)?;
            let share = loss * (weight / total);
            values::backward(&share, &one)?;
            let share = share.f_detach()?;
            mean = Some(match mean {
                Some(mean) => mean + share,
                None => share,
            });
            outputs.push(output.f_detach()?);
            tapped.push(values);
            start += size;
        }
        self.step.one = Some(one);
        self.step.loss = mean;
        self.step.outputs = Some(Tensor::f_cat(&outputs, 0)?);
        self.step.tapped = (0..nodes.len())
            .map(|tap| tapped.iter().filter_map(|values| values.get(tap)).collect::<Vec<_>>())
            .filter(|values| !values.is_empty())
            .map(|values| Tensor::f_cat(&values, 0))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// What the mean loss of each of the step's batches weighs.
    fn batch_weights(&self, targets: &Tensor) -> Result<Vec<f64>, TrainError> {
        let mut start = 0;
        let weigh = |size: &i64| -> Result<f64, TrainError> {
            let weight = self.plan.loss.weight(&targets.f_narrow(0, start, *size)?, *size as usize)?;
            start += size;
            Ok(weight)
        };
        self.step.sizes.iter().map(weigh).collect()
    }

    /// The schedule's factor for the update at the present position.
    pub(super) fn schedule_factor(&self) -> f64 {
        // The first update follows none.
        let finished = self.position.global_step.saturating_sub(1);
        self.plan.schedule.factor(finished, self.total_steps, self.steps_per_epoch)
    }

    /// Outputs and mean loss, the loss with its graph, and the values of `nodes` without.
    pub(super) fn forward(
        &self,
        inputs: &Tensor,
        targets: &Tensor,
        nodes: &[usize],
    ) -> Result<(Tensor, Tensor, Vec<Tensor>), TrainError> {
        if let Some(step) = &self.batch_step {
            return self.run_batch_step(step, inputs, targets, nodes);
        }
        let _autocast = self.autocast()?;
        let (outputs, tapped) = self.training_outputs(inputs, nodes)?;
        let loss = self.plan.loss.compute(&outputs, targets)?;
        Ok((outputs, loss, tapped))
    }

    /// The precision of the run, until this is dropped.
    pub(super) fn autocast(&self) -> Result<Option<Autocast>, TrainError> {
        Ok(match self.plan.precision {
            Precision::F32 => None,
            Precision::Bf16 => Some(autocast::enter(self.network.device(), Kind::BFloat16)?),
        })
    }

    /// Clips, sets the learning rate and updates, unless a callback had the update skipped; then counts the step's
    /// metrics.
    pub(super) fn update(&mut self) -> Result<(), TrainError> {
        if let Some(maximum) = self.plan.clip_gradient_norm {
            self.step.gradient_norm = Some(self.optimizer.clip_gradient_norm(maximum)?);
        }
        self.optimizer.schedule(self.schedule_factor());
        if std::mem::take(&mut self.controls.skip_update) {
            tracing::debug!(step = self.position.global_step, "the update is skipped");
        } else {
            self.optimizer.step()?;
        }
        if let (Some(outputs), Some(targets), Some(loss)) = (&self.step.outputs, &self.step.targets, &self.step.loss) {
            let size: i64 = self.step.sizes.iter().sum();
            let weight = self.plan.loss.weight(targets, size as usize)?;
            self.loss_average.add(values::scalar(loss)?, weight);
            for accumulator in &mut self.accumulators {
                accumulator.add(outputs, targets)?;
            }
        }
        Ok(())
    }

    /// Counts the step's time, callbacks included.
    pub(super) fn end_step(&mut self) {
        let seconds = &mut self.step.seconds;
        seconds.last = seconds.clock.delta_as_nanos(seconds.began, seconds.clock.raw()) as f64 * 1e-9;
        seconds.total += seconds.last;
        self.clock.steps += 1;
    }
}
