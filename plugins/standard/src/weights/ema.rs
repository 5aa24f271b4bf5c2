//! `ema`: an exponential moving average of the weights, updated after each step (Polyak and Juditsky 1992; TensorFlow's
//! `ExponentialMovingAverage`, Keras' `SwapEMAWeights`, timm's `ModelEmaV3`).
//!
//! After an update `t`, counted from 0, `average = d × average + (1 − d) × weights` with `d = decay`; with `warm_up`,
//! `d = min(decay, (1 + t) / (10 + t))`, so that the first weights do not stay in a short run's average.
//!
//! It is never updated once an epoch: the same decay would then reach over as many epochs as it does over steps.

use plugin_api::event::{At, Evaluation};
use plugin_api::protocol::CopyAction;
use plugin_api::{Callback, Creation, Error, Need, Ranks, Result, Run, decode_state, encode_state, plugin};
use serde::{Deserialize, Serialize};

use super::average::{Average, Saved};

/// Options of `ema`.
#[plugin]
pub(crate) struct Options {
    /// The share of the average that stays at an update. 0.999 is an average over about the last 1000 updates.
    #[schemars(range(min = 0.0, max = 1.0))]
    decay: f64,
    /// Begin with a smaller decay, (1 + t) / (10 + t) at the update t, until that is more than `decay`.
    warm_up: bool,
    /// The number of steps between two updates. On an accelerator, each update copies the weights to the CPU.
    #[schemars(range(min = 1))]
    every_steps: u64,
    /// Average floating-point buffers too, such as the statistics of batch norm. Without it they are those of the training;
    /// integer buffers always are.
    buffers: bool,
    /// Evaluate the averaged weights. The training's own are back as soon as the evaluation is over.
    evaluate: bool,
    /// End the run with the averaged weights: the evaluation of `test`, exports and checkpoints at the end have them. A run
    /// that resumes from such a checkpoint goes on from its own weights.
    swap_at_end: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { decay: 0.999, warm_up: true, every_steps: 1, buffers: true, evaluate: true, swap_at_end: true }
    }
}

/// The state in checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct State {
    updates: u64,
    tensors: Vec<Saved>,
}

pub(crate) struct Ema {
    options: Options,
    updates: u64,
    /// From `train_start` on.
    average: Option<Average>,
    /// From the checkpoint that the run resumed from, until `train_start`.
    saved: Option<Vec<Saved>>,
    /// Whether this process has trained a step.
    has_trained: bool,
    /// Whether the model has the averaged weights for an evaluation.
    is_swapped: bool,
    /// Whether the run has ended with the averaged weights.
    has_ended: bool,
    /// The host's copy of the training's own weights, during an evaluation.
    own: String,
    /// The host's copy that becomes the averaged weights at the end.
    averaged: String,
}

#[plugin]
impl Callback for Ema {
    const KIND: &'static str = "ema";
    const SUMMARY: &'static str = "Evaluates and keeps an exponential moving average of the weights";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    const NEEDS: &'static [Need] = &[Need::WRITES_WEIGHTS];
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        if !(0.0..1.0).contains(&options.decay) {
            return Err(Error::new(format!(
                "`decay` must be at least 0 and less than 1, such as 0.999, not {}",
                options.decay
            )));
        }
        if options.every_steps == 0 {
            return Err(Error::new("`every_steps` must be at least 1"));
        }
        Ok(Self {
            options,
            updates: 0,
            average: None,
            saved: None,
            has_trained: false,
            is_swapped: false,
            has_ended: false,
            own: format!("{}-own", creation.instance),
            averaged: format!("{}-average", creation.instance),
        })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        let State { updates, tensors } = decode_state(state)?;
        self.updates = updates;
        self.saved = Some(tensors);
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        let tensors = match (&self.average, &self.saved) {
            (Some(average), _) => average.save(),
            (None, saved) => saved.clone().unwrap_or_default(),
        };
        encode_state(&State { updates: self.updates, tensors })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let mut average = Average::begin(run, self.options.buffers)?;
        match self.saved.take() {
            Some(saved) => average.load(&saved)?,
            None => self.take_place(run)?,
        }
        self.average = Some(average);
        Ok(())
    }

    fn on_epoch_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        // The copy of a checkpoint is of an earlier step, which one that is taken before any step is not.
        if self.has_trained { self.take_place(run) } else { Ok(()) }
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.has_trained = true;
        let Some(average) = self.average.as_mut() else { return Ok(()) };
        if !event.global_step.is_multiple_of(self.options.every_steps) {
            return Ok(());
        }
        average.move_toward_weights(run, 1.0 - self.options.decay_at(self.updates))?;
        self.updates += 1;
        Ok(())
    }

    fn on_eval_start(&mut self, run: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        let Some(average) = self.average.as_ref() else { return Ok(()) };
        if !self.options.evaluate || self.has_ended || self.updates == 0 {
            return Ok(());
        }
        run.copy_weights(&self.own, CopyAction::Take)?;
        self.is_swapped = true;
        average.write_to_model(run)
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        if !std::mem::take(&mut self.is_swapped) {
            return Ok(());
        }
        run.copy_weights(&self.own, CopyAction::Restore)?;
        // A checkpoint would hold it.
        run.copy_weights(&self.own, CopyAction::Drop)
    }

    fn on_trained(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let Some(average) = self.average.as_ref() else { return Ok(()) };
        if !self.options.swap_at_end || self.updates == 0 {
            return Ok(());
        }
        self.has_ended = true;
        average.end_with(run, &self.averaged)
    }
}

impl Options {
    /// The decay at an update, counted from 0.
    fn decay_at(&self, update: u64) -> f64 {
        let warming_up = (1.0 + update as f64) / (10.0 + update as f64);
        if self.warm_up { self.decay.min(warming_up) } else { self.decay }
    }
}

impl Ema {
    /// Takes the copy whose place the averaged weights take at the end: see [`Average::end_with`].
    fn take_place(&self, run: &mut Run<'_>) -> Result<()> {
        if self.options.swap_at_end { run.copy_weights(&self.averaged, CopyAction::Take) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
