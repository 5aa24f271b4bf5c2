//! What the loop works on, in parts that are mostly independent.
//!
//! | part | what it is |
//! |---|---|
//! | [`Learner`] | what learns: network, optimizer, loss, schedule, the current step |
//! | [`Progress`] | where it is: position, length, clock |
//! | [`Measured`] | measurements: averages, latest values, history |
//! | [`Controls`] | requests that are not handled yet |
//! | [`Kept`] | state kept beside it: copies, the checkpoint in progress |
//! | [`Feed`] | the input: data and batches |
//!
//! A session only combines them, and does what needs several of them: beginning and ending an epoch.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use plugin_api::protocol::RunInfo;
use plugin_api::protocol::requests::{Freeze, LimitBatches};

use super::checkpointing::{Fingerprints, Resume, frozen_by_run_file};
use super::control::{Controls, Interrupt, Requests};
use super::custom::{BatchStepFunction, Loss};
use super::error::TrainError;
use super::evaluate::{Evaluation, EvaluationPlan, Evaluations};
use super::feed::{Batches, Feed};
use super::kept::Kept;
use super::learner::{Learner, infer};
use super::loss_scale::LossScale;
use super::measured::Measured;
use super::metrics::Metric;
use super::optimizer::Optimizer;
use super::precision::Precision;
use super::profile::{Phase, Profile};
use super::progress::{Length, LiveProgress, Progress, Started};
use super::ranks::Ranks;
use super::schedule::Schedule;
use crate::config::Every;
use crate::data::{Data, TRAIN};
use crate::dispatch::{Dispatcher, WrittenCheckpoints};
use crate::distributed::{ProcessGroup, Share};
use crate::expression::Expressions;
use crate::history::{HistoryView, Metrics, Position};
use crate::model::{Frozen, ModelFile, Network};
use crate::services::Screen;
use crate::torch::buckets::BucketSizes;
use crate::torch::products::{self, Products, ProductsGuard};

/// What to train and how; already checked.
#[derive(Clone, Debug)]
pub struct TrainingPlan {
    /// How long.
    pub length: Length,
    /// The number of the first epoch.
    pub start_epoch: u64,
    /// The batches of an epoch.
    pub batches: Batches,
    /// What is minimized.
    pub loss: Loss,
    /// Metrics of the training split besides the loss.
    pub metrics: Vec<Metric>,
    /// The schedule of the learning rate.
    pub schedule: Schedule,
    /// The largest norm of all gradients together; larger ones are scaled down.
    pub clip_gradient_norm: Option<f64>,
    /// What forward and backward compute in.
    pub precision: Precision,
    /// The seed of everything random.
    pub seed: u64,
    /// What is frozen from the beginning.
    pub freeze: Freeze,
    /// The evaluation, if there is one.
    pub evaluation: Option<EvaluationPlan>,
    /// When it comes.
    pub evaluate_every: Every,
    /// The single evaluation after the training.
    pub test: Option<EvaluationPlan>,
    /// The names of the metrics that the run will give: those of [`metric_names`](super::metric_names), and what
    /// callbacks declare, in which `*` stands for any text.
    pub known: BTreeSet<String>,
    /// Only one batch of each split.
    pub trial: bool,
}

/// The target of the log's line about each epoch.
pub(crate) const EPOCH_LOG: &str = "epoch";

/// The outputs of the loop: the console, the run folder, the status file.
pub trait RunOutputs {
    /// The console.
    fn screen(&self) -> Arc<dyn Screen>;
    /// Something was published.
    fn artifact(&self, kind: &str, path: &str);
    /// The metrics of a split have been put: of `train` at the end of an epoch, of another by an evaluation.
    fn measured(&self, split: &str, session: &Session);
    /// A batch of an evaluation or of a prediction is done, of so many.
    fn batch(&self, done: u64, of: u64) {
        let _ = (done, of);
    }
    /// The run has progressed: called when it begins, and after each epoch, evaluation and control.
    fn progress(&self, session: &Session);
}

/// The state of a training, on the training thread.
pub struct Session {
    pub(super) learner: Learner,
    pub(super) progress: Progress,
    pub(super) measured: Measured,
    pub(super) controls: Controls,
    pub(super) kept: Kept,
    pub(super) feed: Feed,
    pub(super) evaluations: Evaluations,
    pub(super) group: ProcessGroup,
    /// What several ranks need beside the group; goes before it.
    pub(super) ranks: Option<Ranks>,
    pub(super) outputs: Box<dyn RunOutputs>,
    pub(super) info: RunInfo,
    /// The expressions that callbacks asked for so far.
    pub(super) expressions: Arc<Expressions>,
    /// The graph as JSON, once it was requested.
    pub(super) graph_text: Option<Arc<str>>,
    /// The digests of what the run is made from, and the description of the data, for checkpoints.
    pub(super) fingerprints: Fingerprints,
    pub(super) data_text: Arc<str>,
    /// The resolved run file, for checkpoints.
    pub(super) run_file: Arc<str>,
    /// Whether it has patterns of `[model] freeze`.
    pub(super) run_file_freezes: bool,
    /// The files of a model that is not made of layers, for checkpoints.
    pub(super) model_files: Vec<(ModelFile, Arc<[u8]>)>,
    /// Gives what a program's own batch step remembers, for checkpoints.
    pub(super) program_state: Option<Box<dyn Fn() -> Vec<u8>>>,
    /// Where the time goes, while a callback asks for it.
    pub(super) profile: Option<Box<Profile>>,
    /// Who computes its products, on this thread.
    pub(super) products: ProductsGuard,
}

/// The parts of a session.
pub struct Parts {
    /// The plan.
    pub plan: TrainingPlan,
    /// The model.
    pub network: Network,
    /// The optimizer over its parameters.
    pub optimizer: Optimizer,
    /// The data; for a training it has the split `train`.
    pub data: Data,
    /// The digests of what the run is made from, which checkpoints hold.
    pub fingerprints: Fingerprints,
    /// The description of the data as JSON, which checkpoints hold.
    pub data_text: Arc<str>,
    /// The description of the run; the session fills in what the plan determines.
    pub info: RunInfo,
    /// The outputs of the loop.
    pub outputs: Box<dyn RunOutputs>,
    /// Counts signals.
    pub interrupt: Interrupt,
    /// What other threads and processes ask for.
    pub requests: Requests,
    /// The processes of the run.
    pub group: ProcessGroup,
    /// The sizes of the buckets in which several of them sum gradients, unless the checkpoint says.
    pub bucket_sizes: BucketSizes,
    /// The resolved run file.
    pub run_file: Arc<str>,
    /// The files of a model that is not made of layers; checkpoints hold them.
    pub model_files: Vec<(ModelFile, Arc<[u8]>)>,
    /// Where to resume, or the checkpoint of a job that does not train.
    pub resume: Option<Resume>,
    /// What the session is for.
    pub purpose: Purpose,
    /// Who computes products of f32 on the CPU.
    pub products: Products,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To train.
    Train,
    /// To use the weights of a checkpoint as they are; the data may lack the split `train`.
    Infer,
}

impl Session {
    /// A session at the beginning, or where `resume` says.
    ///
    /// # Errors
    ///
    /// When the data cannot be loaded, or the checkpoint does not fit the model.
    pub fn new(parts: Parts) -> Result<Self, TrainError> {
        let Parts {
            plan,
            network,
            optimizer,
            data,
            fingerprints,
            data_text,
            mut info,
            outputs,
            interrupt,
            requests,
            group,
            bucket_sizes,
            run_file,
            model_files,
            resume,
            purpose,
            products,
        } = parts;
        let saved_ranks = resume.as_ref().and_then(|resume| resume.ranks(&group));
        let bucket_sizes = saved_ranks.map_or(bucket_sizes, |saved| saved.bucket_sizes());
        let products = products::enter(products)?;
        let position = resume.as_ref().map_or_else(Position::default, |resume| resume.position());
        info.data = data.info();
        info.lora = network.lora().map(|lora| lora.info());
        let feed = match purpose {
            Purpose::Train => {
                let limits = resume.as_ref().map(Resume::limits).unwrap_or_default();
                Feed::new(data, plan.batches, limits, position, Share::of(&group))?
            }
            Purpose::Infer => Feed::idle(data, plan.batches),
        };
        let mut progress = Progress::new(position, plan.length, feed.steps_per_epoch());
        let mut feed = feed;
        if plan.start_epoch > 1 && resume.is_none() {
            progress.start_at(plan.start_epoch, feed.samples_per_epoch());
            feed.restart(progress.next_epoch())?;
        }
        if let Some(resume) = resume.as_ref().filter(|_| purpose == Purpose::Train) {
            progress.count_from(resume.counted_from());
        }
        info.steps_per_epoch = progress.steps_per_epoch;
        info.total_steps = progress.total_steps;
        info.epochs = progress.planned_epochs();
        info.training_samples = feed.training_samples();
        let mut learner = Learner::new(
            network,
            optimizer,
            plan.loss.clone(),
            plan.schedule.clone(),
            plan.clip_gradient_norm,
            plan.precision,
            feed.data.input_names(),
        )?;
        if plan.trial {
            learner.set_loss_scale(Some(LossScale::of_trial()));
        }
        info.metrics = plan.known.iter().cloned().collect();
        let ranks = Ranks::new(&group, &learner.network, bucket_sizes)?;
        let mut session = Self {
            measured: Measured::new(plan.metrics, plan.known),
            learner,
            progress,
            controls: Controls::new(interrupt, requests, !group.is_single()),
            kept: Kept::default(),
            feed,
            evaluations: Evaluations {
                repeated: plan.evaluation,
                every: plan.evaluate_every,
                test: plan.test,
                trial: plan.trial,
                are_whole: false,
            },
            ranks,
            group,
            outputs,
            info,
            expressions: Arc::default(),
            graph_text: None,
            fingerprints,
            data_text,
            run_file_freezes: !frozen_by_run_file(&run_file).patterns.is_empty(),
            run_file,
            model_files,
            program_state: None,
            profile: None,
            products,
        };
        session.look_at_screen();
        let saved = resume.as_ref().and_then(|resume| resume.frozen(&plan.freeze));
        if let Some(resume) = resume {
            let path = resume.path().to_owned();
            let restored = match purpose {
                Purpose::Train => session.restore(resume),
                Purpose::Infer => session.adopt(resume),
            };
            restored.map_err(|source| TrainError::Resume { path, source: Box::new(source) })?;
        }
        if purpose == Purpose::Train {
            session.freeze_first(plan.freeze, saved)?;
        }
        Ok(session)
    }

    /// Computes outputs and loss of each training batch with `step` from now on.
    pub fn set_batch_step(&mut self, step: Box<BatchStepFunction>) {
        self.learner.batch_step = Some(Rc::new(step.into()));
    }

    /// Puts what `save` gives into each checkpoint.
    pub fn set_program_state(&mut self, save: Box<dyn Fn() -> Vec<u8>>) {
        self.program_state = Some(save);
    }

    /// Tells the callbacks of checkpoints that are written while the training goes on.
    pub(super) fn tell_of_checkpoints(&mut self, written: WrittenCheckpoints) {
        self.kept.written = Some(written);
    }

    /// Freezes what the checkpoint says or, without one, what the run file's patterns fit.
    fn freeze_first(&mut self, request: Freeze, saved: Option<Frozen>) -> Result<(), TrainError> {
        match saved {
            Some(frozen) => Ok(self.learner.network.set_frozen(frozen)?),
            None if request.patterns.is_empty() => Ok(()),
            None => self.learner.freeze(&request, true),
        }
    }

    /// Takes only the first batches of a split: in the next evaluation of it, and in the next epoch.
    pub(super) fn limit_batches(&mut self, request: &LimitBatches) -> Result<(), TrainError> {
        self.feed.limits.ask(&request.split, request.batches);
        if self.progress.epoch_is_over { self.apply_limits() } else { Ok(()) }
    }

    /// Between two epochs: gives the next one the number of batches that was asked for.
    fn apply_limits(&mut self) -> Result<(), TrainError> {
        if !self.feed.limits.begin_epoch() {
            return Ok(());
        }
        self.feed.restart(self.progress.next_epoch())?;
        self.progress.set_steps_per_epoch(self.feed.steps_per_epoch());
        self.info.steps_per_epoch = self.progress.steps_per_epoch;
        self.info.total_steps = self.progress.total_steps;
        Ok(())
    }

    // --- what others see

    /// When the run began.
    pub fn started(&self) -> Started {
        self.progress.started()
    }

    /// What the run is.
    pub fn info(&self) -> &RunInfo {
        &self.info
    }

    /// The latest value of each metric that was put.
    pub fn metrics(&self) -> &Metrics {
        &self.measured.latest
    }

    /// The model.
    pub fn network(&self) -> &Network {
        &self.learner.network
    }

    /// The run's progress, from 0 to 1.
    pub fn progress(&self) -> f64 {
        self.progress.fraction()
    }

    /// How long the loop waited for data in all.
    pub fn waited_for_data(&self) -> Duration {
        self.feed.waited()
    }

    /// Where the run is, for other threads: it is told after each step.
    pub fn live_progress(&self) -> Arc<LiveProgress> {
        Arc::clone(&self.progress.live)
    }

    /// Every value of every metric so far.
    pub fn history(&self) -> HistoryView {
        HistoryView::now(Arc::clone(&self.measured.history))
    }

    /// Who asked the run to stop, and why.
    pub fn stopping(&self) -> Option<(&str, &str)> {
        self.controls.stop().map(|stop| (stop.by.as_str(), stop.reason.as_str()))
    }

    /// Whether the loop is paused.
    pub fn is_paused(&self) -> bool {
        self.controls.paused
    }

    /// The folder of callbacks' relative paths.
    pub(super) fn in_run_folder(&self, path: &str) -> PathBuf {
        Path::new(&self.info.folder).join(path)
    }

    /// The outputs of the model for `inputs`, in inference mode.
    ///
    /// # Errors
    ///
    /// Those of the model.
    pub fn infer(&self, inputs: &tch::Tensor) -> Result<tch::Tensor, TrainError> {
        let inputs = self.learner.to_device(inputs.shallow_clone())?;
        Ok(infer(&self.learner.network, (&inputs).into(), &[])?.output)
    }

    // --- epochs and steps

    /// Continues to the next epoch, or to the rest of the one that a checkpoint interrupted; false at the end.
    pub(super) fn begin_epoch(&mut self) -> Result<bool, TrainError> {
        if self.controls.is_stopping() || (self.progress.epoch_is_over && self.progress.plan_is_done()) {
            return Ok(false);
        }
        if self.progress.epoch_is_over {
            self.apply_limits()?;
        }
        if self.progress.begin_epoch() {
            self.measured.begin_epoch();
        }
        self.feed.begin_epoch();
        Ok(true)
    }

    /// Loads the samples of the next step; false at the end of the epoch.
    pub(super) fn begin_step(&mut self) -> Result<bool, TrainError> {
        if !self.progress.has_next_step(&self.controls) {
            return Ok(false);
        }
        // Whatever weights a callback left are trained from here on.
        self.kept.restored = None;
        self.enter(Phase::Data);
        self.group.set_computing(true);
        self.learner.begin_step(&mut self.feed, &mut self.progress)?;
        self.group.set_computing(false);
        self.enter(Phase::Callbacks);
        Ok(true)
    }

    /// Computes outputs, loss and gradients, the gradients summed over all ranks. A program's own step may send events to
    /// the callbacks.
    pub(super) fn forward_backward(&mut self, callbacks: &mut Dispatcher) -> Result<(), TrainError> {
        self.enter(Phase::Forward);
        self.share_buffers()?;
        self.group.set_computing(true);
        let before = self.before_changed_step()?;
        if let Err(error) = self.compute_gradients(callbacks) {
            self.compute_without_changes(callbacks, before, error).map_err(|error| self.explained(error))?;
        }
        self.finish_sums()?;
        self.learner.unscale_gradients()?;
        self.group.set_computing(false);
        self.enter(Phase::Callbacks);
        Ok(())
    }

    /// Whether the `gradients` hooks are called.
    pub(super) fn shows_gradients(&self) -> Result<bool, TrainError> {
        self.learner.shows_gradients()
    }

    /// Updates the weights, unless a callback skipped the update, and counts the step's metrics.
    pub(super) fn update(&mut self) -> Result<(), TrainError> {
        self.enter(Phase::Optimizer);
        let skipped = std::mem::take(&mut self.controls.skip_update);
        self.learner.update(&self.progress, skipped)?;
        self.progress.is_updated();
        self.learner.measure(&mut self.measured)?;
        self.enter(Phase::Callbacks);
        Ok(())
    }

    /// After a failure: a step whose update is not done has not happened.
    pub(super) fn leave_step(&mut self) {
        self.progress.leave_step();
    }

    /// Counts the step's time, callbacks included.
    pub(super) fn end_step(&mut self) -> Result<(), TrainError> {
        self.leave();
        self.learner.step.end();
        self.progress.steps_in_process += 1;
        self.progress.tell();
        if self.measured.live.is_read() { self.show_running_metrics() } else { Ok(()) }
    }

    /// Puts the epoch's averages.
    pub(super) fn end_epoch(&mut self) -> Result<(), TrainError> {
        let ended_early = self.controls.end_epoch && !self.progress.epoch_is_trained();
        self.controls.end_epoch = false;
        self.progress.epoch_is_over = true;
        let position = self.progress.position;
        self.measured.end_epoch(position, &self.group)?;
        self.measured.put(position, "epoch_seconds", self.progress.epoch_seconds());
        if self.progress.steps_in_process > 0 {
            let steps = self.progress.steps_in_process as f64;
            self.measured.put(position, "step_seconds", self.learner.step.total_seconds() / steps);
            self.measured.put(position, "data_wait_seconds", self.feed.waited_in_epoch().as_secs_f64() / steps);
            if let Some(wait) = self.take_wait(steps) {
                self.measured.put(position, "rank_wait_seconds", wait);
            }
            self.learner.step.clear_seconds();
        }
        for (name, rate) in self.learner.learning_rates() {
            self.measured.put(position, &name, rate);
        }
        if let Some(norm) = self.learner.step.gradient_norm {
            self.measured.put(position, "gradient_norm", norm);
        }
        if let Some(scale) = self.learner.loss_scale {
            self.measured.put(position, "loss_scale", scale.value());
        }
        if ended_early {
            // The prefetched batches belong to the epoch that was cut short.
            self.feed.restart(self.progress.next_epoch())?;
        }
        self.log_epoch();
        self.outputs.measured(TRAIN, self);
        self.outputs.progress(self);
        Ok(())
    }

    /// Logs the metrics that the epoch that ends has put.
    fn log_epoch(&self) {
        let Position { epoch, global_step, .. } = self.progress.position;
        let of_epoch = self.measured.latest.iter().filter(|(_, metric)| metric.position == self.progress.position);
        let metrics: Vec<String> = of_epoch.map(|(name, metric)| format!("{name}={}", metric.value)).collect();
        tracing::info!(target: EPOCH_LOG, epoch, step = global_step, metrics = metrics.join(" "), "epoch");
    }

    /// Takes note of the terminal, whose size changes.
    pub(super) fn look_at_screen(&mut self) {
        let screen = self.outputs.screen();
        (self.info.console_width, self.info.console_colors) = (screen.width(), screen.has_colors());
    }

    // --- evaluation

    /// Begins the plan's evaluation; `None` when it has none.
    pub(super) fn begin_evaluation(&mut self, mid_epoch: bool) -> Result<Option<Evaluation>, TrainError> {
        let plan = self.evaluations.repeated.as_ref();
        plan.map(|plan| self.evaluation_of(plan, mid_epoch)).transpose()
    }

    /// Whether the last step of an epoch is done, and the epoch's evaluation comes next.
    pub(super) fn epoch_evaluation_comes(&self) -> bool {
        let progress = &self.progress;
        !progress.epoch_is_over
            && !progress.has_next_step(&self.controls)
            && !self.controls.is_stopping()
            && self.evaluations.is_due(progress)
    }

    /// Begins the evaluation after the training; `None` if there is none, or after a signal.
    pub(super) fn begin_test(&mut self) -> Result<Option<Evaluation>, TrainError> {
        let plan = self.evaluations.test.as_ref().filter(|_| !self.controls.is_interrupted());
        plan.map(|plan| self.evaluation_of(plan, false)).transpose()
    }

    fn evaluation_of(&self, plan: &EvaluationPlan, mid_epoch: bool) -> Result<Evaluation, TrainError> {
        let share = if self.evaluations.are_whole { Share::whole() } else { Share::of(&self.group) };
        Evaluation::begin(plan, &self.feed, self.progress.position, mid_epoch, self.evaluations.trial, share)
    }

    // --- control

    /// Whether there were no requests since the last safe point. One decision for all ranks: after a step it came with the
    /// gradients whether any rank has one.
    #[inline]
    pub(super) fn nothing_asked(&mut self) -> Result<bool, TrainError> {
        if self.group.is_single() {
            return Ok(self.controls.nothing_asked());
        }
        match self.learner.step.asked.take() {
            Some(false) => Ok(true),
            _ => self.controls.decide(&self.group),
        }
    }

    /// Where there are several ranks: takes what any of them was asked for.
    pub(super) fn decide_together(&mut self) -> Result<(), TrainError> {
        if !self.group.is_single() {
            self.controls.decide(&self.group)?;
        }
        Ok(())
    }

    pub(super) fn request_end_of_epoch(&mut self, by: &str, reason: &str) {
        tracing::info!(by, reason, "ending the epoch");
        // After the epoch, it would end the next one.
        self.controls.end_epoch = !self.progress.epoch_is_over;
    }

    pub(super) fn set_paused(&mut self, paused: bool) {
        self.controls.paused = paused;
        self.outputs.progress(self);
    }
}
