//! `swa`: stochastic weight averaging (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better
//! Generalization"; `torch.optim.swa_utils`).
//!
//! From `start` on, the weights at each trigger (by default after each epoch) count equally in an average. The run ends
//! with the average. The statistics of batch norm are not averaged: they are estimated again for the averaged weights,
//! over the whole training split.

use std::collections::BTreeMap;

use plugin_api::event::{At, Trigger};
use plugin_api::protocol::{CopyAction, DataInfo, RunInfo, TensorSet};
use plugin_api::{
    Callback, Creation, Error, ErrorKind, Need, Ranks, Result, Run, decode_state, encode_state, plugin, tracing,
};
use serde::{Deserialize, Serialize};

use super::average::{Average, Saved};
use super::values::is_f32;

const LEARNING_RATE: &str = "learning_rate";

/// Options of `swa`.
#[plugin]
pub(crate) struct Options {
    /// The first epoch whose weights are averaged, or a share of the run below 1 after which they are: 0.75 of 40 epochs
    /// begins with epoch 31.
    #[schemars(range(min = 0.0))]
    start: f64,
    /// The learning rate while weights are averaged, which is constant so that the weights keep moving. If not given, it
    /// stays what the run's schedule says.
    #[schemars(range(min = 0.0))]
    learning_rate: Option<f64>,
    /// The number of epochs in which the learning rate goes from that of the start to `learning_rate`, linearly; 0 sets it
    /// at once.
    anneal_epochs: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { start: 0.75, learning_rate: None, anneal_epochs: 10 }
    }
}

/// The state in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// The first epoch that was averaged, once it is reached: a run that is then extended does not begin again.
    first_epoch: Option<u64>,
    /// How many weights are in the average.
    count: u64,
    /// The global step of the last ones.
    counted: Option<u64>,
    /// The learning rate of each parameter group at the start.
    rates: BTreeMap<String, f64>,
    tensors: Vec<Saved>,
}

pub(crate) struct Swa {
    options: Options,
    state: State,
    /// From the first weights on.
    average: Option<Average>,
    /// The first epoch to average.
    first_epoch: u64,
    /// Whether this process has trained an epoch.
    has_trained: bool,
    /// Whether the run has ended with the average.
    has_ended: bool,
    /// The host's copy that becomes the average at the end.
    copy: String,
}

#[plugin]
impl Callback for Swa {
    const KIND: &'static str = "swa";
    const SUMMARY: &'static str = "Ends the run with the equal average of the weights of its last epochs";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    const NEEDS: &'static [Need] = &[Need::WRITES_WEIGHTS];
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        let start = options.start;
        if !(start >= 0.0 && start.is_finite()) || (start >= 1.0 && start.fract() != 0.0) {
            return Err(Error::new(format!(
                "`start` must be an epoch, such as 30, or a share of the run from 0 to less than 1, such as 0.75, not {start}"
            )));
        }
        if let Some(rate) = options.learning_rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
            return Err(Error::new(format!("`learning_rate` must be more than 0, not {rate}")));
        }
        Ok(Self {
            options,
            state: State::default(),
            average: None,
            first_epoch: u64::MAX,
            has_trained: false,
            has_ended: false,
            copy: format!("{}-average", creation.instance),
        })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.state = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        if let Some(average) = &self.average {
            self.state.tensors = average.save();
        }
        let saved = encode_state(&self.state)?;
        // It is in `average`; twice in memory it would only take room.
        if self.average.is_some() {
            self.state.tensors.clear();
        }
        Ok(saved)
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let info = run.info()?;
        self.first_epoch = self.state.first_epoch.unwrap_or_else(|| self.options.first_epoch(&info));
        let epochs = epochs(&info);
        if epochs > 0.0 && self.first_epoch as f64 > epochs.ceil() {
            tracing::warn!(
                "the run ends before epoch {}, in which `{}` begins: nothing is averaged; set `start` to an earlier epoch",
                self.first_epoch,
                info.instance
            );
        }
        if self.state.count == 0 {
            return run.copy_weights(&self.copy, CopyAction::Take);
        }
        let mut average = Average::begin(run, false)?;
        average.load(&std::mem::take(&mut self.state.tensors))?;
        self.average = Some(average);
        Ok(())
    }

    fn on_epoch_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        // The copy of a checkpoint is of an earlier step, which one that is taken before any step is not.
        if self.has_trained {
            run.copy_weights(&self.copy, CopyAction::Take)?;
        }
        if event.epoch < self.first_epoch {
            return Ok(());
        }
        self.state.first_epoch = Some(self.first_epoch);
        self.set_learning_rate(run, event.epoch - self.first_epoch)
    }

    fn on_epoch_trained(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.has_trained = true;
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        let is_counted = self.state.counted == Some(event.global_step);
        if event.epoch < self.first_epoch || self.has_ended || is_counted {
            return Ok(());
        }
        // The equal average of n + 1 weights is that of n, moved by 1 / (n + 1) of the distance.
        match self.average.as_mut() {
            Some(average) => average.move_toward_weights(run, 1.0 / (self.state.count as f64 + 1.0))?,
            None => self.average = Some(Average::begin(run, false)?),
        }
        self.state.count += 1;
        self.state.counted = Some(event.global_step);
        Ok(())
    }

    fn on_trained(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let Some(average) = &self.average else { return Ok(()) };
        self.has_ended = true;
        average.end_with(run, &self.copy)?;
        recalibrate(run)
    }
}

impl Options {
    fn first_epoch(&self, info: &RunInfo) -> u64 {
        if self.start >= 1.0 { self.start as u64 } else { (self.start * epochs(info)).floor() as u64 + 1 }
    }
}

impl Swa {
    /// The learning rate of an epoch, the `since`th after the start, from 0.
    fn set_learning_rate(&mut self, run: &mut Run<'_>, since: u64) -> Result<()> {
        let Some(goal) = self.options.learning_rate else { return Ok(()) };
        for group in run.hyper_parameters()? {
            let Some(&now) = group.values.get(LEARNING_RATE) else { continue };
            let from = *self.state.rates.entry(group.name.clone()).or_insert(now);
            let share = match self.options.anneal_epochs {
                0 => 1.0,
                epochs => (since as f64 / epochs as f64).min(1.0),
            };
            run.set_hyper_parameter(Some(&group.name), LEARNING_RATE, (1.0 - share) * from + share * goal)?;
        }
        Ok(())
    }
}

/// The planned epochs; a run that is planned in steps may end within one. 0 if the plan is not known.
fn epochs(info: &RunInfo) -> f64 {
    match info.steps_per_epoch {
        0 => info.epochs as f64,
        steps => info.total_steps as f64 / steps as f64,
    }
}

/// Estimates the statistics of batch norm for the weights that the model has. Floating-point buffers are such statistics.
fn recalibrate(run: &mut Run<'_>) -> Result<()> {
    if !run.tensors(TensorSet::Buffers)?.iter().any(is_f32) {
        return Ok(());
    }
    // A trial tries one batch; else the whole split.
    let batches = if run.info()?.trial { 1 } else { u64::MAX };
    match run.recalibrate_batch_norm(DataInfo::TRAIN, batches) {
        Err(error) if error.kind() == ErrorKind::NoSuchName => {
            tracing::warn!("the averaged model keeps the buffers of the last step: {error}");
            Ok(())
        }
        recalibrated => recalibrated,
    }
}

#[cfg(test)]
mod tests;
