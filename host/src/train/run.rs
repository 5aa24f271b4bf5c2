//! The loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plugin_api::abi::kinds::EventKind;
use plugin_api::event::Outcome;
use plugin_api::protocol::{Control, Record, RecordValue};

use super::control::{Asked, HOST};
use super::error::TrainError;
use super::evaluate::{Evaluation, Examples};
use super::ranks::SavedRanks;
use super::session::Session;
use crate::dispatch::{Dispatcher, Event, EventData, Failure, Moment, SavedState, ScheduleState};
use crate::expression::Surroundings;
use crate::report::table;

/// How a training ended.
#[derive(Debug)]
pub struct Ended {
    /// Its outcome.
    pub outcome: Outcome,
    /// The reason, if one was given.
    pub reason: String,
    /// What failed, when it failed.
    pub error: Option<TrainError>,
}

/// The loop with its callbacks.
pub struct Trainer {
    /// What the loop works on.
    pub session: Session,
    /// The callbacks.
    pub dispatcher: Dispatcher,
}

impl Trainer {
    /// Shows the callbacks the model, gives them the states of the checkpoint that the run resumes from, and moves those
    /// in the background to their threads.
    ///
    /// # Errors
    ///
    /// The first failure; the caller must still call `teardown`.
    pub fn set_up(
        &mut self,
        states: &BTreeMap<String, SavedState>,
        schedules: &BTreeMap<String, ScheduleState>,
    ) -> Result<(), TrainError> {
        self.session.tell_of_checkpoints(self.dispatcher.written_checkpoints());
        self.session.compare_ranks()?;
        self.session.share_weights()?;
        self.session.agree_on_evaluations(&self.dispatcher)?;
        self.dispatcher.connect_remotes(&self.session);
        self.fire(EventKind::SETUP)?;
        self.dispatcher.load_states(states, &mut self.session)?;
        self.dispatcher.restore_schedules(schedules);
        self.dispatcher
            .begin()
            .map_err(|source| TrainError::System { action: "cannot start a thread for a callback", source })
    }

    /// Ends every callback that was created. A failure whose policy stops the run still fails it here,
    /// unless it had already failed.
    pub fn tear_down(&mut self, ended: Ended) -> Ended {
        let event = Event::at(EventKind::TEARDOWN, self.session.position());
        let fired = self.dispatcher.fire(&event, &mut self.session);
        let flushed = self.dispatcher.flush(&mut self.session);
        match fired.and(flushed) {
            Err(failure) if ended.error.is_none() => {
                Ended { outcome: Outcome::Failed, reason: failure.to_string(), error: Some(failure.into()) }
            }
            _ => ended,
        }
    }

    /// Trains from the session's position until the end of the plan, a stop, or a failure. The end hooks always come;
    /// the job calls `teardown`.
    pub fn run(&mut self) -> Ended {
        let trained = self.train();
        let trained = trained.and_then(|()| self.finish());
        if trained.is_err() {
            self.act_on_failure();
        }
        self.end(trained)
    }

    fn train(&mut self) -> Result<(), TrainError> {
        self.session.outputs.progress(&self.session);
        self.fire(EventKind::TRAIN_START)?;
        while self.session.begin_epoch()? {
            if self.session.progress.is_at_epoch_start() {
                self.fire(EventKind::EPOCH_START)?;
            }
            while self.session.begin_step()? {
                self.fire(EventKind::STEP_START)?;
                self.session.forward_backward(&mut self.dispatcher)?;
                if self.session.shows_gradients()? {
                    self.fire(EventKind::GRADIENTS)?;
                }
                self.session.update()?;
                self.fire(EventKind::STEP_END)?;
                self.trigger(Moment::StepEnd)?;
                self.session.end_step()?;
                self.safe_point()?;
            }
            if self.session.controls.is_stopping() {
                break;
            }
            self.fire(EventKind::EPOCH_TRAINED)?;
            self.evaluate(false)?;
            self.session.end_epoch()?;
            self.session.compare_weights()?;
            self.fire(EventKind::EPOCH_END)?;
            self.trigger(Moment::EpochEnd)?;
            self.safe_point()?;
        }
        Ok(())
    }

    /// After the last epoch, once: the last changes to the weights, the evaluation of the test split, triggers at the end,
    /// and the checkpoints that they request.
    fn finish(&mut self) -> Result<(), TrainError> {
        self.fire(EventKind::TRAINED)?;
        if let Some(evaluation) = self.session.begin_test()? {
            self.pass_through(evaluation, false)?;
        }
        self.trigger(Moment::End)?;
        self.safe_point()?;
        self.dispatcher.flush(&mut self.session)?;
        self.safe_point()
    }

    /// Triggers at the failure that ends the run, and the checkpoints that they request; what fails here is only logged.
    fn act_on_failure(&mut self) {
        self.session.leave_step();
        if self.session.position().global_step == 0 {
            return;
        }
        let acted = self.trigger(Moment::Failure).map_err(TrainError::from).and_then(|()| {
            while let Some(Asked { by, reason, .. }) = self.session.controls.take(Control::Checkpoint) {
                // The other ranks may be gone.
                self.take_checkpoint(&by, &reason, None)?;
            }
            Ok(())
        });
        if let Err(error) = acted {
            tracing::error!("{error}");
        }
    }

    fn end(&mut self, trained: Result<(), TrainError>) -> Ended {
        // Whatever was queued is written before `train_end`, which tells that it is.
        self.session.finish_checkpoints();
        let (mut outcome, mut reason) = match (&trained, self.session.controls.stop()) {
            (Err(error), _) => (Outcome::Failed, error.to_string()),
            (Ok(()), Some(stop)) if stop.interrupted => (Outcome::Interrupted, stop.reason.clone()),
            (Ok(()), Some(stop)) if stop.finishes => (Outcome::Finished, stop.reason.clone()),
            (Ok(()), Some(stop)) => (Outcome::Stopped, format!("`{}`: {}", stop.by, stop.reason)),
            (Ok(()), None) => (Outcome::Finished, String::new()),
        };
        let mut error = trained.err();
        if let Some(TrainError::Plugin(_)) = &error {
            // Its `error` event was delivered when it failed.
        } else if let Some(error) = &error {
            let event =
                Event::with_texts(EventKind::ERROR, self.session.position(), [HOST, "train", &error.to_string()]);
            self.note(event);
        }
        let event = Event::with_texts(EventKind::TRAIN_END, self.session.position(), [outcome.name(), &reason, ""]);
        let ended = self.dispatcher.fire(&event, &mut self.session);
        let ended = ended.and_then(|()| self.dispatcher.flush(&mut self.session));
        self.dispatcher.close_remotes();
        if let Err(failure) = ended
            && error.is_none()
        {
            outcome = Outcome::Failed;
            reason = failure.to_string();
            error = Some(failure.into());
        }
        Ended { outcome, reason, error }
    }

    /// Delivers an event whose own failures are only logged, since another failure is being reported.
    fn note(&mut self, event: Event) {
        if let Err(failure) = self.dispatcher.fire(&event, &mut self.session) {
            tracing::error!("{failure}");
        }
    }

    #[inline]
    fn fire(&mut self, event: EventKind) -> Result<(), Box<Failure>> {
        self.dispatcher.fire_at(event, &mut self.session)
    }

    #[inline]
    fn trigger(&mut self, moment: Moment) -> Result<(), Box<Failure>> {
        let started = self.session.started();
        self.dispatcher.trigger(moment, || started.elapsed(), &mut self.session)
    }

    /// Evaluates the split of the plan, if there is one and it was `asked` for or is due at the end of an epoch.
    fn evaluate(&mut self, asked: bool) -> Result<(), TrainError> {
        if !asked && !self.session.evaluations.is_due(&self.session.progress) {
            return Ok(());
        }
        // A callback may also ask after the epoch, and it may be due after the epoch's last step.
        let mid_epoch = asked && !self.session.progress.epoch_is_trained();
        match self.session.begin_evaluation(mid_epoch)? {
            Some(evaluation) => self.pass_through(evaluation, false),
            None => Ok(()),
        }
    }

    /// Runs through the batches of an evaluation. One that is a job ends where somebody asks for the end, and then has no
    /// result unless it counts as finished; that of a training is always whole.
    pub(super) fn pass_through(&mut self, mut evaluation: Evaluation, is_job: bool) -> Result<(), TrainError> {
        self.dispatcher.fire(&evaluation.event(EventKind::EVAL_START), &mut self.session)?;
        // After the callbacks, which may have swapped the weights.
        self.session.share_buffers()?;
        let by_step =
            self.dispatcher.wants(EventKind::EVAL_STEP_START) || self.dispatcher.wants(EventKind::EVAL_STEP_END);
        let mut stop = None;
        while stop.is_none() && evaluation.load_batch(&mut self.session.learner)? {
            if by_step {
                self.dispatcher.fire(&evaluation.event(EventKind::EVAL_STEP_START), &mut self.session)?;
            }
            evaluation.compute_batch(&mut self.session.learner)?;
            if by_step {
                self.dispatcher.fire(&evaluation.event(EventKind::EVAL_STEP_END), &mut self.session)?;
            }
            let (done, of) = evaluation.progress();
            self.session.outputs.batch(done, of);
            stop = is_job.then(|| self.session.controls.asked_stop()).flatten();
        }
        if stop.is_some_and(|stop| !stop.finishes) {
            self.session.learner.evaluation = None;
            return Ok(());
        }
        let Session { learner, measured, group, .. } = &mut self.session;
        let (split, examples) = (evaluation.split(), evaluation.take_examples());
        let ended = evaluation.end(learner, measured, group)?;
        self.session.outputs.measured(&split, &self.session);
        self.session.outputs.progress(&self.session);
        self.dispatcher.fire(&ended, &mut self.session)?;
        match examples {
            Some(examples) => self.show(&split, &examples),
            None => Ok(()),
        }
    }

    /// Shows some samples of an evaluation on the console, and puts them as a record for the monitors.
    fn show(&mut self, split: &str, examples: &Examples) -> Result<(), TrainError> {
        let (columns, rows) = examples.table();
        let mut text = Vec::new();
        // Nothing that is written to memory fails.
        let _ = table::write_rows(&columns, rows, None, &mut text);
        self.session.outputs.screen().line(String::from_utf8_lossy(&text).trim_end());
        let value = RecordValue::Table { columns, rows: rows.to_vec() };
        let record = Arc::new(Record { name: format!("{split}_results"), value });
        let data = EventData::Record { author: HOST.into(), record };
        let event = Event { kind: EventKind::RECORD, position: self.session.position(), data };
        Ok(self.dispatcher.fire(&event, &mut self.session)?)
    }

    /// Between two steps, or after an epoch: handles the requests of callbacks and signals.
    #[inline]
    fn safe_point(&mut self) -> Result<(), TrainError> {
        self.dispatcher.safe_point(&mut self.session)?;
        if !self.session.controls.is_stopping() && self.session.evaluations.is_due_by_step(&self.session.progress) {
            // It also answers who asked for one.
            self.session.controls.take(Control::Evaluate);
            self.evaluate(true)?;
            self.trigger(Moment::Evaluated)?;
        }
        if self.session.nothing_asked()? {
            return Ok(());
        }
        self.obey()
    }

    fn obey(&mut self) -> Result<(), TrainError> {
        while let Some(asked) = self.session.controls.next() {
            let Asked { by, reason, .. } = &asked;
            match asked.action {
                Control::Stop => {
                    let stopping = Event::with_texts(EventKind::STOPPING, self.session.position(), [by, reason, ""]);
                    if self.session.controls.request_stop(&asked) {
                        self.session.outputs.progress(&self.session);
                        self.dispatcher.fire(&stopping, &mut self.session)?;
                    }
                }
                // The evaluation of the epoch that this step ends comes next.
                Control::Evaluate if self.session.epoch_evaluation_comes() => {}
                Control::EndEpoch => self.session.request_end_of_epoch(by, reason),
                Control::Evaluate => {
                    self.evaluate(true)?;
                    self.trigger(Moment::Evaluated)?;
                }
                Control::Checkpoint => self.checkpoint(by, reason)?,
                Control::Pause => self.pause(by, reason)?,
                // A resume without a pause, or an unknown request of a newer plugin, has no effect.
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a checkpoint with the state of each callback, after all have handled everything before it.
    fn checkpoint(&mut self, by: &str, reason: &str) -> Result<(), TrainError> {
        let ranks = self.session.collect_ranks()?;
        self.take_checkpoint(by, reason, ranks)
    }

    fn take_checkpoint(&mut self, by: &str, reason: &str, ranks: Option<SavedRanks>) -> Result<(), TrainError> {
        let position = self.session.position();
        self.dispatcher.flush(&mut self.session)?;
        let states = self.dispatcher.save_states(&mut self.session)?;
        self.session.begin_checkpoint(states, self.dispatcher.schedule_states(), ranks);
        let event = Event::with_texts(EventKind::CHECKPOINT, position, [by, reason, ""]);
        let fired = self.dispatcher.fire(&event, &mut self.session);
        self.session.end_checkpoint();
        Ok(fired?)
    }

    /// Pauses the loop until a `resume`, a `stop` or a signal.
    fn pause(&mut self, by: &str, reason: &str) -> Result<(), TrainError> {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        tracing::info!(by, reason, "paused");
        self.session.set_paused(true);
        while !self.session.controls.take_resume() && !self.session.controls.stop_is_asked() {
            std::thread::sleep(LOOK_EVERY);
            // The requests of remotes and background callbacks are read with the next event.
            self.dispatcher.flush(&mut self.session)?;
            self.session.decide_together()?;
            if let Some(asked) = self.session.controls.take(Control::Checkpoint) {
                self.checkpoint(&asked.by, &asked.reason)?;
            }
        }
        self.session.set_paused(false);
        tracing::info!("resumed");
        Ok(())
    }

    /// As [`Self::run`], for a trial of one step: also calls every trigger and takes a checkpoint.
    pub fn run_trial(&mut self) -> Ended {
        let trained = self.train();
        let trained = trained.and_then(|()| self.try_everything());
        let trained = trained.and_then(|()| self.finish());
        self.end(trained)
    }

    fn try_everything(&mut self) -> Result<(), TrainError> {
        self.dispatcher.trigger_all(&mut self.session)?;
        self.safe_point()?;
        self.checkpoint(HOST, "trial")
    }
}
