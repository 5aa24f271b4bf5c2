//! What the loop works on: model, optimizer, data, position, and what it knows so far.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use plugin_api::protocol::{ConsoleLine, Control, RunInfo, Tap};
use tch::Tensor;

use super::checkpointing::{PendingCheckpoint, Resume};
use super::control::{Asked, Controls, Stop};
use super::custom::{BatchStepFunction, Loss};
use super::error::TrainError;
use super::evaluate::EvaluationBatch;
use super::metrics::{Accumulator, Average, Metric};
use super::optimizer::Optimizer;
use super::precision::Precision;
use super::schedule::Schedule;
use super::services::TrainingSnapshot;
use super::step::Step;
use crate::config::Every;
use crate::data::{Data, Loader, LoaderOptions, Order, TRAIN};
use crate::dispatch::Emitter;
use crate::model::{NamedTensor, Network};
use crate::record::{History, Metrics, Position};

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Passes over the training split.
    Epochs(u64),
    /// Optimizer updates.
    Steps(u64),
}

/// What to train and how; everything is checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long.
    pub length: Length,
    /// Samples of a batch.
    pub batch_size: usize,
    /// Batches of one update.
    pub accumulate: u64,
    /// What is minimised.
    pub loss: Loss,
    /// Metrics of the training split besides the loss.
    pub metrics: Vec<Metric>,
    /// The course of the learning rate.
    pub schedule: Schedule,
    /// The largest norm of all gradients together; larger ones are scaled down.
    pub clip_gradient_norm: Option<f64>,
    /// What forward and backward compute in.
    pub precision: Precision,
    /// The seed of everything random.
    pub seed: u64,
    /// The evaluation, if there is one.
    pub evaluation: Option<EvaluationPlan>,
    /// When it comes.
    pub evaluate_every: Every,
    /// The evaluation that comes once, when training is over.
    pub test: Option<EvaluationPlan>,
    /// One batch of each split and no more.
    pub trial: bool,
}

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

/// The console; callbacks in the background use it too.
pub trait Screen: Send + Sync {
    /// Prints a line.
    fn line(&self, text: &str);
    /// Shows a status line, with a bar where there is a progress from 0 to 1; takes it away when the text is empty.
    fn status(&self, name: &str, text: &str, progress: Option<f64>);
    /// The newest lines, oldest first, without those up to `number`; none where none are kept.
    fn lines_after(&self, _number: u64) -> Vec<ConsoleLine> {
        Vec::new()
    }
}

/// What lies around the loop, and what it does not do itself: the console, the run folder, the status file.
pub trait Ambience {
    /// The console.
    fn screen(&self) -> Arc<dyn Screen>;
    /// Something was published.
    fn artifact(&self, kind: &str, path: &str);
    /// The run goes on: called after each epoch, evaluation and control.
    fn progress(&self, session: &Session);
}

/// How many signals asked for the end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(pub Arc<AtomicUsize>);

/// The state of a training, on the training thread.
pub struct Session {
    pub(super) plan: Plan,
    pub(super) network: Network,
    pub(super) optimizer: Optimizer,
    pub(super) data: Data,
    pub(super) loader: Loader,
    pub(super) position: Position,
    pub(super) steps_per_epoch: u64,
    pub(super) total_steps: u64,
    pub(super) history: Arc<RwLock<History>>,
    /// Shared with remotes.
    pub(super) metrics: Arc<RwLock<Metrics>>,
    pub(super) controls: Controls,
    pub(super) step: Step,
    pub(super) loss_average: Average,
    pub(super) accumulators: Vec<Accumulator>,
    pub(super) evaluation: Option<EvaluationBatch>,
    pub(super) taps: Vec<PlannedTap>,
    pub(super) copies: BTreeMap<String, Vec<NamedTensor>>,
    pub(super) snapshots: BTreeMap<String, TrainingSnapshot>,
    pub(super) pending: Option<Arc<PendingCheckpoint>>,
    /// Whether the epoch at `position` is over: its evaluation and `epoch_end` too.
    pub(super) epoch_is_over: bool,
    /// Who owns a hyper-parameter that the schedule no longer sets, by group and name.
    pub(super) owners: BTreeMap<(String, String), String>,
    pub(super) clock: Clock,
    pub(super) info: RunInfo,
    pub(super) ambience: Box<dyn Ambience>,
    /// A program's own way from a batch to its loss.
    pub(super) batch_step: Option<RefCell<Box<BatchStepFunction>>>,
    /// Sends what that emits.
    pub(super) emitter: Option<Emitter>,
    interrupt: Interrupt,
    /// The graph as JSON, once somebody asked for it.
    pub(super) graph_text: Option<Arc<str>>,
    /// The resolved run file, for checkpoints.
    pub(super) run_file: Arc<str>,
}

/// A tap that a callback asked for, with its node resolved.
pub(super) struct PlannedTap {
    pub(super) tap: Tap,
    /// The node's index, for an activation.
    pub(super) node: Option<usize>,
}

/// When the run began, counting the time of the processes before this one.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    at: Instant,
    before: Duration,
}

impl Started {
    /// The run's time over all its processes.
    pub fn elapsed(&self) -> Duration {
        self.before + self.at.elapsed()
    }
}

pub(super) struct Clock {
    pub(super) started: Started,
    pub(super) epoch: Instant,
    /// Steps of the epoch in this process.
    pub(super) steps: u64,
    /// What the loop had waited for data when the epoch began.
    pub(super) waited: Duration,
}

/// What a session is made of.
pub struct Parts {
    /// The plan.
    pub plan: Plan,
    /// The model.
    pub network: Network,
    /// The optimizer over its parameters.
    pub optimizer: Optimizer,
    /// The data; it has the split `train`.
    pub data: Data,
    /// What the run is; the session fills in what follows from the plan.
    pub info: RunInfo,
    /// What lies around.
    pub ambience: Box<dyn Ambience>,
    /// Counts signals.
    pub interrupt: Interrupt,
    /// The resolved run file.
    pub run_file: Arc<str>,
    /// Where to go on from.
    pub resume: Option<Resume>,
}

impl Session {
    /// A session at the beginning, or where `resume` says.
    ///
    /// # Errors
    ///
    /// When the data cannot be loaded, or the checkpoint does not fit the model.
    pub fn new(parts: Parts) -> Result<Self, TrainError> {
        let Parts { plan, network, optimizer, data, mut info, ambience, interrupt, run_file, resume } = parts;
        let position = resume.as_ref().map_or_else(Position::default, |resume| resume.position());
        let loader = training_loader(&data, &plan, position)?;
        let batches = loader.batches_per_epoch() as u64;
        let steps_per_epoch = batches.div_ceil(plan.accumulate);
        let total_steps = match plan.length {
            Length::Epochs(epochs) => epochs * steps_per_epoch,
            Length::Steps(steps) => steps,
        };
        info.steps_per_epoch = steps_per_epoch;
        info.total_steps = total_steps;
        info.epochs = match plan.length {
            Length::Epochs(epochs) => epochs,
            Length::Steps(_) => 0,
        };
        info.data = data.info();
        info.training_samples = data.splits.get(TRAIN).map_or(0, |split| split.len() as u64);
        let accumulators = plan.metrics.iter().map(|metric| metric.accumulator()).collect();
        let now = Instant::now();
        let mut session = Self {
            network,
            optimizer,
            data,
            loader,
            position,
            steps_per_epoch,
            total_steps,
            history: Arc::default(),
            metrics: Arc::default(),
            controls: Controls::default(),
            step: Step::default(),
            loss_average: Average::default(),
            accumulators,
            evaluation: None,
            taps: Vec::new(),
            copies: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            pending: None,
            epoch_is_over: true,
            owners: BTreeMap::new(),
            clock: Clock {
                started: Started { at: now, before: Duration::ZERO },
                epoch: now,
                steps: 0,
                waited: Duration::ZERO,
            },
            plan,
            info,
            ambience,
            batch_step: None,
            emitter: None,
            interrupt,
            graph_text: None,
            run_file,
        };
        if let Some(resume) = resume {
            let path = resume.path().to_owned();
            session.restore(resume).map_err(|source| TrainError::Resume { path, source: Box::new(source) })?;
        }
        Ok(session)
    }

    /// Where the run is.
    #[inline]
    pub fn position(&self) -> Position {
        self.position
    }

    /// When the run began.
    pub fn started(&self) -> Started {
        self.clock.started
    }

    pub(super) fn set_time_before(&mut self, before: Duration) {
        self.clock.started.before = before;
    }

    /// What the run is.
    pub fn info(&self) -> &RunInfo {
        &self.info
    }

    /// The latest value of each metric.
    pub fn metrics(&self) -> &Arc<RwLock<Metrics>> {
        &self.metrics
    }

    /// Every value so far.
    pub fn history(&self) -> &Arc<RwLock<History>> {
        &self.history
    }

    /// The model.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// How far the run is, from 0 to 1.
    pub fn progress(&self) -> f64 {
        match self.plan.length {
            Length::Steps(steps) => self.position.global_step as f64 / steps.max(1) as f64,
            // An epoch that was cut short counts as one.
            Length::Epochs(epochs) => {
                let done =
                    if self.epoch_is_over { 1.0 } else { self.position.step as f64 / self.steps_per_epoch as f64 };
                (self.position.epoch.saturating_sub(1) as f64 + if self.position.epoch == 0 { 0.0 } else { done })
                    / epochs.max(1) as f64
            }
        }
    }

    /// How long the loop waited for data in all.
    pub fn waited_for_data(&self) -> Duration {
        self.loader.waited()
    }

    /// Whether the loop is held by a `pause`.
    pub fn is_paused(&self) -> bool {
        self.controls.paused
    }

    /// Folder that relative paths of callbacks belong to.
    pub(super) fn in_run_folder(&self, path: &str) -> PathBuf {
        Path::new(&self.info.folder).join(path)
    }

    // --- epochs

    /// Goes on to the next epoch, or to the rest of the one that a checkpoint interrupted; false at the end.
    pub(super) fn begin_epoch(&mut self) -> Result<bool, TrainError> {
        if self.is_stopping() || (self.epoch_is_over && self.plan_is_done()) {
            return Ok(false);
        }
        if self.epoch_is_over {
            self.position.epoch += 1;
            self.position.step = 0;
            self.epoch_is_over = false;
            self.loss_average = Average::default();
            self.accumulators = self.plan.metrics.iter().map(|metric| metric.accumulator()).collect();
        }
        self.clock.epoch = Instant::now();
        self.clock.steps = 0;
        self.clock.waited = self.loader.waited();
        Ok(true)
    }

    /// Whether everything planned is done. An epoch that was cut short counts as one.
    pub(super) fn plan_is_done(&self) -> bool {
        match self.plan.length {
            Length::Epochs(epochs) => self.position.epoch >= epochs,
            Length::Steps(steps) => self.position.global_step >= steps,
        }
    }

    /// Whether no step of the epoch was done, so that `epoch_start` is due.
    pub(super) fn is_at_epoch_start(&self) -> bool {
        self.position.step == 0
    }

    /// Whether the epoch at the present position has no further step.
    pub(super) fn epoch_is_trained(&self) -> bool {
        self.epoch_is_over || self.position.step >= self.steps_per_epoch
    }

    /// Whether the epoch has another step.
    pub(super) fn has_next_step(&self) -> bool {
        !self.controls.end_epoch
            && self.controls.stop.is_none()
            && self.position.step < self.steps_per_epoch
            && (matches!(self.plan.length, Length::Epochs(_)) || self.position.global_step < self.total_steps)
    }

    /// Puts the epoch's averages.
    pub(super) fn end_epoch(&mut self) -> Result<(), TrainError> {
        let ended_early = self.controls.end_epoch && self.position.step < self.steps_per_epoch;
        self.controls.end_epoch = false;
        self.epoch_is_over = true;
        if let Some(loss) = self.loss_average.value() {
            self.put("train_loss", loss);
        }
        for index in 0..self.accumulators.len() {
            let name = format!("train_{}", self.accumulators[index].metric().name());
            if let Some(value) = self.accumulators[index].value()? {
                self.put_value(&name, value);
            }
        }
        let seconds = self.clock.epoch.elapsed().as_secs_f64();
        self.put("epoch_seconds", seconds);
        if self.clock.steps > 0 {
            let steps = self.clock.steps as f64;
            let waited = self.loader.waited().saturating_sub(self.clock.waited);
            self.put("step_seconds", self.step.total_seconds() / steps);
            self.put("data_wait_seconds", waited.as_secs_f64() / steps);
            self.step.clear_seconds();
        }
        for (name, rate) in self.learning_rates() {
            self.put(&name, rate);
        }
        if let Some(norm) = self.step.gradient_norm {
            self.put("gradient_norm", norm);
        }
        if ended_early {
            // The batches that the loader has gathered belong to the epoch that was cut short.
            let next = Position { epoch: self.position.epoch + 1, step: 0, ..self.position };
            self.loader = training_loader(&self.data, &self.plan, next)?;
        }
        self.ambience.progress(self);
        Ok(())
    }

    // --- control

    /// Whether nobody asked for anything since the last safe point.
    #[inline]
    pub(super) fn nothing_asked(&mut self) -> bool {
        if self.interrupt.0.load(Ordering::Relaxed) > 0 && self.controls.stop.is_none() {
            self.controls.ask(Control::Stop, "host", "a signal asked for the end");
        }
        self.controls.asked.is_empty()
    }

    pub(super) fn next_asked(&mut self) -> Option<Asked> {
        self.controls.asked.pop_front()
    }

    pub(super) fn stop(&self) -> Option<&Stop> {
        self.controls.stop.as_ref()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.controls.stop.is_some()
    }

    /// Remembers the first request; false for a further one.
    pub(super) fn request_stop(&mut self, by: String, reason: String) -> bool {
        if self.controls.stop.is_some() {
            return false;
        }
        tracing::info!(%by, %reason, "stopping");
        let interrupted = by == "host" && self.interrupt.0.load(Ordering::Relaxed) > 0;
        self.controls.stop = Some(Stop { by, reason, interrupted });
        true
    }

    pub(super) fn request_end_of_epoch(&mut self, by: &str, reason: &str) {
        tracing::info!(by, reason, "ending the epoch");
        // After the epoch it would end the next one.
        self.controls.end_epoch = !self.epoch_is_over;
    }

    pub(super) fn set_paused(&mut self, paused: bool) {
        self.controls.paused = paused;
        self.ambience.progress(self);
    }

    pub(super) fn take_resume(&mut self) -> bool {
        self.controls.take_resume()
    }

    pub(super) fn stop_is_asked(&mut self) -> bool {
        self.nothing_asked();
        self.controls.stop_is_asked()
    }

    /// A tensor on the model's device.
    pub(super) fn to_device(&self, tensor: Tensor) -> Result<Tensor, TrainError> {
        if tensor.device() == self.network.device() {
            return Ok(tensor);
        }
        Ok(tensor.f_to_device(self.network.device())?)
    }
}

/// Batches of the training split, from behind `position` on.
pub(super) fn training_loader(data: &Data, plan: &Plan, position: Position) -> Result<Loader, TrainError> {
    let train = data.split(TRAIN)?;
    let options = LoaderOptions {
        batch_size: plan.batch_size,
        order: Order::Shuffled { seed: plan.seed },
        first_epoch: position.epoch.max(1),
        // Before the first epoch its first batch; the loader goes on into the next epoch by itself.
        first_batch: (position.step * plan.accumulate) as usize,
        augmentation: data.augmentation.clone(),
    };
    Ok(Loader::start(Arc::clone(train), options)?)
}
