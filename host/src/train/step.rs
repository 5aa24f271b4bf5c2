//! One optimizer update: load, forward and backward, update.

use std::cell::Cell;
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::changes::Change;
use super::custom::{Around, run_batch_step};
use super::error::TrainError;
use super::feed::{Feed, StepBatch, StepSizes};
use super::learner::Learner;
use super::loss_scale::{LossScale, MANY_OVERFLOWS};
use super::measured::Measured;
use super::profile::Phase;
use super::progress::Progress;
use super::ranks::Computed;
use super::session::Session;
use crate::dispatch::Dispatcher;
use crate::history::Position;
use crate::model::{Forwarded, ModelBatch};
use crate::torch::{TorchError, values};

/// The part of the current step that callbacks see.
#[derive(Default)]
pub(super) struct Step {
    /// The run's position.
    pub(super) position: Position,
    /// The samples of the step, all its batches joined, on the model's device.
    pub(super) inputs: Option<Tensor>,
    /// The inputs beside the samples, in the data's order.
    pub(super) others: Vec<Tensor>,
    pub(super) targets: Option<Tensor>,
    /// The model's output, from backward on. While it still has a graph it is detached only when it is handed out, so that a
    /// step whose output nobody reads saves that.
    pub(super) outputs: Option<Tensor>,
    /// The mean loss over the step's samples, on the model's device; as `outputs`.
    pub(super) loss: Option<Tensor>,
    /// Its value, once somebody has read it.
    loss_value: Cell<Option<f64>>,
    /// Values of the tapped nodes, in the order of the taps for activations.
    pub(super) tapped: Vec<Tensor>,
    pub(super) gradient_norm: Option<f64>,
    /// With which backward begins, on the model's device: 1, or the scale of the loss.
    loss_gradient: Option<Tensor>,
    /// Whether a number of its gradients is not finite, in f16.
    pub(super) overflowed: bool,
    /// What callbacks wrote into the batch, in order.
    pub(super) changes: Vec<Change>,
    /// Batch sizes of the step, for accumulation.
    sizes: StepSizes,
    /// Where there are several ranks: the weight of all samples of the step, as a part of their number.
    whole_weight: Option<f64>,
    /// Where there are several ranks, from the sums on: whether anything was asked for on any of them.
    pub(super) asked: Option<bool>,
    seconds: Seconds,
}

/// A batch as the model and the loss take it.
#[derive(Clone, Copy)]
pub(super) struct Samples<'a> {
    pub(super) inputs: &'a Tensor,
    pub(super) others: &'a [Tensor],
    pub(super) targets: &'a Tensor,
}

impl<'a> Samples<'a> {
    /// What the model takes of it.
    pub(super) fn of_model(self) -> ModelBatch<'a> {
        ModelBatch { inputs: self.inputs, others: self.others, targets: Some(self.targets) }
    }
}

/// What is computed from a batch: the outputs, the mean loss with its graph, and the values of nodes without.
pub(super) struct Forward {
    pub(super) outputs: Tensor,
    pub(super) loss: Tensor,
    pub(super) tapped: Vec<Tensor>,
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
    /// The value of the loss, if there is one. It is read from the tensor once, whoever asks first.
    pub(super) fn loss_value(&self) -> Result<Option<f64>, TorchError> {
        let (None, Some(loss)) = (self.loss_value.get(), &self.loss) else { return Ok(self.loss_value.get()) };
        self.loss_value.set(Some(values::scalar(loss)?));
        Ok(self.loss_value.get())
    }

    /// Sets the mean loss over the samples of all ranks, and their weight as a part of their number.
    pub(super) fn set_whole_loss(&mut self, loss: Tensor, weight: f64) {
        self.loss = Some(loss);
        self.loss_value.set(None);
        self.whole_weight = Some(weight);
    }

    /// Samples of the step, of all ranks.
    fn samples(&self) -> i64 {
        self.sizes.global.iter().sum()
    }

    /// The next step makes it anew.
    pub(super) fn forget_loss_gradient(&mut self) {
        self.loss_gradient = None;
    }

    pub(super) fn total_seconds(&self) -> f64 {
        self.seconds.total
    }

    /// Of the last step of the epoch in this process; `None` before the first.
    pub(super) fn last_seconds(&self) -> Option<f64> {
        (self.seconds.total > 0.0).then_some(self.seconds.last)
    }

    pub(super) fn clear_seconds(&mut self) {
        self.seconds.total = 0.0;
    }
}

impl Learner {
    /// Loads the samples of the next step.
    pub(super) fn begin_step(&mut self, feed: &mut Feed, progress: &mut Progress) -> Result<(), TrainError> {
        self.step.seconds.began = self.step.seconds.clock.raw();
        progress.begin_step();
        // The tensors of the last step are freed here, not between its hooks.
        (self.step.inputs, self.step.targets) = (None, None);
        self.step.others.clear();
        self.step.changes.clear();
        (self.step.outputs, self.step.loss) = (None, None);
        self.step.loss_value.set(None);
        (self.step.whole_weight, self.step.asked) = (None, None);
        self.step.tapped.clear();
        let StepBatch { mut inputs, mut others, mut targets } = feed.next_step(&mut self.step.sizes)?;
        progress.position.samples += self.step.sizes.global.iter().sum::<i64>() as u64;
        self.step.position = progress.position;
        // Batches are on the CPU.
        if self.network.device() != Device::Cpu {
            (inputs, targets) = (self.to_device(inputs)?, self.to_device(targets)?);
            others = self.all_to_device(others)?;
        }
        self.step.inputs = Some(inputs);
        self.step.others = others;
        self.step.targets = Some(targets);
        self.optimizer.clear_gradients()?;
        Ok(())
    }

    /// Computes outputs, loss and gradients without autograd; false where the network is not one for that.
    fn step_by_chain(&mut self) -> Result<bool, TrainError> {
        let (Some(chain), Step { inputs: Some(inputs), targets: Some(targets), .. }) = (&mut self.chain, &self.step)
        else {
            return Ok(false);
        };
        let (outputs, loss) = match inputs.dim() {
            2 => chain.step(inputs, targets)?,
            _ => chain.step(&inputs.f_flatten(1, -1)?, targets)?,
        };
        (self.step.outputs, self.step.loss) = (Some(outputs), Some(loss));
        Ok(true)
    }

    /// Outputs and mean loss, the loss with its graph, and the values of `nodes` without.
    fn forward(&self, samples: Samples<'_>, nodes: &[usize]) -> Result<Forward, TrainError> {
        let _autocast = self.autocast()?;
        let Forwarded { output, loss, values } = self.training_outputs(samples.of_model(), nodes)?;
        let loss = self.loss_of(&output, loss, samples.targets)?;
        Ok(Forward { outputs: output, loss, tapped: values })
    }

    /// The loss of a batch apart from the run, with its graph. Events that a program's own step sends then are not
    /// delivered.
    pub(super) fn loss_apart(&self, samples: Samples<'_>) -> Result<Tensor, TrainError> {
        let forward = match &self.batch_step {
            Some(step) => run_batch_step(step, Around::Apart(self), samples, &[]),
            None => self.forward(samples, &[]),
        };
        Ok(forward?.loss)
    }

    /// Forward and backward where this rank has no sample of a batch: only if other ranks need it for their statistics. It adds
    /// nothing to the gradients.
    fn pass_without_samples(&self, loss_gradient: &Tensor) -> Result<(), TrainError> {
        let (true, Some(inputs)) = (self.network.is_synchronized(), &self.step.inputs) else { return Ok(()) };
        let none = |tensor: &Tensor| tensor.f_narrow(0, 0, 0);
        let (inputs, others) = (none(inputs)?, self.step.others.iter().map(none).collect::<Result<Vec<_>, _>>()?);
        let batch = ModelBatch { inputs: &inputs, others: &others, targets: None };
        let outputs = self.training_outputs(batch, &[])?.output;
        Ok(values::backward(&outputs.f_sum(Kind::Float)?, loss_gradient)?)
    }

    /// The weight of the mean loss of each of the step's batches.
    fn batch_weights(&self, targets: &Tensor) -> Result<Vec<f64>, TrainError> {
        let mut start = 0;
        let weigh = |size: &i64| -> Result<f64, TrainError> {
            let weight = self.loss.weight(&targets.f_narrow(0, start, *size)?, *size as usize)?;
            start += size;
            Ok(weight)
        };
        self.step.sizes.own.iter().map(weigh).collect()
    }

    /// The schedule's factor for the update at the present position.
    pub(super) fn schedule_factor(&self, progress: &Progress) -> f64 {
        // No update precedes the first.
        let finished = progress.position.global_step.saturating_sub(1);
        self.schedule.factor(finished, progress.total_steps, progress.steps_per_epoch)
    }

    /// The gradient of the loss, with which backward begins.
    pub(super) fn take_loss_gradient(&mut self) -> Result<Tensor, TrainError> {
        let value = self.loss_scale.map_or(1.0, LossScale::value);
        let make = || Tensor::f_full([0i64; 0], value, (Kind::Float, self.network.device()));
        Ok(self.step.loss_gradient.take().map_or_else(make, Ok)?)
    }

    /// Gives the gradients of a scaled loss their own size.
    pub(super) fn unscale_gradients(&mut self) -> Result<(), TrainError> {
        let Some(scale) = self.loss_scale else { return Ok(()) };
        self.step.overflowed = !self.optimizer.unscale_gradients(scale.value())?;
        Ok(())
    }

    /// Whether callbacks get the step's gradients. In f16 they are not shown those that are infinite only because the loss was
    /// scaled too far.
    pub(super) fn shows_gradients(&self) -> Result<bool, TrainError> {
        let (Some(scale), true) = (self.loss_scale, self.step.overflowed) else { return Ok(true) };
        Ok(scale.is_smallest() || self.step.loss_value()?.is_some_and(|loss| !loss.is_finite()))
    }

    /// Finds the scale of the next step's loss.
    pub(super) fn scale_next_loss(&mut self) {
        let Some(scale) = self.loss_scale else { return };
        let next = scale.after_step(!self.step.overflowed);
        if next.value() != scale.value() {
            tracing::debug!(step = self.step.position.global_step, "the scale of the loss is {}", next.value());
            self.step.forget_loss_gradient();
        }
        if next.has_failed() {
            tracing::warn!(
                "none of the last {MANY_OVERFLOWS} steps had finite gradients in f16, however little the loss was scaled: they left the \
                 weights as they were. The loss or a value inside the model is NaN or too large for f16; bf16 has the range of f32"
            );
        }
        self.loss_scale = Some(next);
    }

    /// Clips, sets the learning rate and, unless the update is `skipped` or has no finite gradients, updates.
    pub(super) fn update(&mut self, progress: &Progress, skipped: bool) -> Result<(), TrainError> {
        let skipped = skipped || self.step.overflowed;
        if let (Some(maximum), false) = (self.clip_gradient_norm, self.step.overflowed) {
            self.step.gradient_norm = Some(self.optimizer.clip_gradient_norm(maximum)?);
        }
        let factor = self.schedule_factor(progress);
        self.optimizer.schedule(factor);
        self.scale_next_loss();
        if skipped {
            tracing::debug!(step = progress.position.global_step, "the update is skipped");
            return Ok(());
        }
        Ok(self.optimizer.step()?)
    }

    /// Counts the step's loss and metrics.
    pub(super) fn measure(&self, measured: &mut Measured) -> Result<(), TrainError> {
        let Some(loss) = self.step.loss_value()? else { return Ok(()) };
        if let Some(weight) = self.step.whole_weight {
            measured.loss.add(loss, weight * self.step.samples() as f64);
        }
        let (Some(outputs), Some(targets)) = (&self.step.outputs, &self.step.targets) else { return Ok(()) };
        if self.step.whole_weight.is_none() {
            measured.loss.add(loss, self.loss.weight(targets, self.step.samples() as usize)?);
        }
        for accumulator in &mut measured.accumulators {
            accumulator.add(outputs, targets)?;
        }
        Ok(())
    }
}

impl Session {
    /// Computes outputs, loss and gradients. With accumulation the gradients are those of the joined batch: each
    /// batch's mean loss is weighted by its share of the samples, or of their class weights.
    pub(super) fn compute_gradients(&mut self, callbacks: &mut Dispatcher) -> Result<(), TrainError> {
        let loss_gradient = self.learner.take_loss_gradient()?;
        let nodes = self.learner.tapped_nodes();
        if let [size] = self.learner.step.sizes.own[..] {
            if size == 0 {
                // Only where there are several ranks.
                self.begin_sums(Computed::default(), 1.0)?;
                self.learner.pass_without_samples(&loss_gradient)?;
                self.learner.step.loss_gradient = Some(loss_gradient);
                return Ok(());
            }
            // What a program computes, what callbacks see inside the model and where the time goes is known only of steps by
            // operators.
            let by_operators = self.learner.batch_step.is_some() || !nodes.is_empty() || self.profile.is_some();
            if !by_operators && self.learner.step_by_chain()? {
                self.learner.step.loss_gradient = Some(loss_gradient);
                return self.begin_only_sum(None).map(drop);
            }
            let Some(forward) = self.forward_whole(callbacks, &nodes)? else { return Ok(()) };
            let Forward { outputs, loss, tapped } = forward;
            let share = self.begin_only_sum(Some(&loss))?;
            self.enter(Phase::Backward);
            match share {
                Some(share) => values::backward(&loss, &loss_gradient.f_mul_scalar(share)?)?,
                None => values::backward(&loss, &loss_gradient)?,
            }
            values::forget_graph(&loss)?;
            values::forget_graph(&outputs)?;
            let step = &mut self.learner.step;
            (step.loss, step.outputs, step.tapped, step.loss_gradient) =
                (Some(loss), Some(outputs), tapped, Some(loss_gradient));
            return Ok(());
        }
        let Some((inputs, others, targets)) = self.learner.step.batch() else { return Ok(()) };
        let weights = self.learner.batch_weights(&targets)?;
        // The sum over all ranks is divided by what their weights come to.
        let is_shared = self.ranks.is_some();
        let total: f64 = if is_shared { self.learner.step.samples() as f64 } else { weights.iter().sum() };
        let (mut outputs, mut tapped): (Vec<Tensor>, Vec<Vec<Tensor>>) = (Vec::new(), Vec::new());
        let mut mean: Option<Tensor> = None;
        let mut computed = Computed::default();
        let sizes = self.learner.step.sizes.own.clone();
        let last = sizes.iter().rposition(|size| *size > 0);
        let mut start = 0;
        for (index, (size, weight)) in sizes.into_iter().zip(weights).enumerate() {
            if size == 0 {
                self.learner.pass_without_samples(&loss_gradient)?;
                continue;
            }
            let (inputs, targets) = (inputs.f_narrow(0, start, size)?, targets.f_narrow(0, start, size)?);
            let others = others.iter().map(|other| other.f_narrow(0, start, size)).collect::<Result<Vec<_>, _>>()?;
            let samples = Samples { inputs: &inputs, others: &others, targets: &targets };
            let batch = self.forward(callbacks, samples, &nodes)?;
            if is_shared {
                computed.add(weight / total, values::scalar(&batch.loss)?);
                if Some(index) == last {
                    self.begin_sums(computed, 1.0)?;
                }
            }
            let share = batch.loss * (weight / total);
            self.enter(Phase::Backward);
            values::backward(&share, &loss_gradient)?;
            self.enter(Phase::Forward);
            let share = share.f_detach()?;
            mean = Some(match mean {
                Some(mean) => mean + share,
                None => share,
            });
            outputs.push(batch.outputs.f_detach()?);
            tapped.push(batch.tapped);
            start += size;
        }
        if last.is_none() {
            self.learner.step.loss_gradient = Some(loss_gradient);
            return self.begin_sums(computed, 1.0);
        }
        let step = &mut self.learner.step;
        step.loss_gradient = Some(loss_gradient);
        step.loss = mean;
        step.outputs = Some(Tensor::f_cat(&outputs, 0)?);
        step.tapped = (0..nodes.len())
            .map(|tap| tapped.iter().filter_map(|values| values.get(tap)).collect::<Vec<_>>())
            .filter(|values| !values.is_empty())
            .map(|values| Tensor::f_cat(&values, 0))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// [`Self::begin_sums`] of a step of one batch, whose loss is `loss` or the step's. Its gradients are weighed where they
    /// are summed; or else it returns the weight, since ranks that normalize together exchange gradients within backward.
    fn begin_only_sum(&mut self, loss: Option<&Tensor>) -> Result<Option<f64>, TrainError> {
        if self.ranks.is_none() {
            return Ok(None);
        }
        let step = &self.learner.step;
        let (Some(loss), Some(targets), [size]) = (loss.or(step.loss.as_ref()), &step.targets, &step.sizes.own[..])
        else {
            return Ok(None);
        };
        let share = self.learner.loss.weight(targets, *size as usize)? / step.samples() as f64;
        let mut computed = Computed::default();
        computed.add(share, values::scalar(loss)?);
        let weighed = self.learner.network.is_synchronized();
        self.begin_sums(computed, if weighed { 1.0 } else { share })?;
        Ok(weighed.then_some(share))
    }

    /// [`Self::forward`] of a step of one batch; `None` before the first step.
    fn forward_whole(&mut self, callbacks: &mut Dispatcher, nodes: &[usize]) -> Result<Option<Forward>, TrainError> {
        let Step { inputs: Some(inputs), others, targets: Some(targets), .. } = &self.learner.step else {
            return Ok(None);
        };
        if self.learner.batch_step.is_none() {
            return self.learner.forward(Samples { inputs, others, targets }, nodes).map(Some);
        }
        match self.learner.step.batch() {
            Some((inputs, others, targets)) => {
                let samples = Samples { inputs: &inputs, others: &others, targets: &targets };
                self.forward(callbacks, samples, nodes).map(Some)
            }
            None => Ok(None),
        }
    }

    fn forward(
        &mut self,
        callbacks: &mut Dispatcher,
        samples: Samples<'_>,
        nodes: &[usize],
    ) -> Result<Forward, TrainError> {
        let Some(step) = &self.learner.batch_step else { return self.learner.forward(samples, nodes) };
        let step = Rc::clone(step);
        let forward = run_batch_step(&step, Around::Run(self, callbacks), samples, nodes)?;
        // A listener that failed does not fail the program's step, but it may end the run.
        callbacks.check()?;
        Ok(forward)
    }
}

impl Step {
    /// Handles of their own of its samples, other inputs and targets: while a program's step sends an event, its listeners use
    /// the whole session.
    fn batch(&self) -> Option<(Tensor, Vec<Tensor>, Tensor)> {
        let others = self.others.iter().map(Tensor::shallow_clone).collect();
        Some((self.inputs.as_ref()?.shallow_clone(), others, self.targets.as_ref()?.shallow_clone()))
    }

    /// Counts the step's time, callbacks included.
    pub(super) fn end(&mut self) {
        let seconds = &mut self.seconds;
        seconds.last = seconds.clock.delta_as_nanos(seconds.began, seconds.clock.raw()) as f64 * 1e-9;
        seconds.total += seconds.last;
    }
}
