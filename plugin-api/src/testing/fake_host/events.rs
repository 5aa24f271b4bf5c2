//! The events that a test sends.

use std::ffi::c_void;

use super::FakeHost;
use crate::abi::kinds::{EventKind, Status};
use crate::abi::{Bytes, EvaluationTable, EventTable, Table, Text, TextsTable};
use crate::error::{Error, Result};
use crate::event::{Outcome, Position};
use crate::protocol::{Record, RecordValue, TensorSet};
use crate::services::Caller;
use crate::tensor::Tensor;
use crate::testing::host_call;

/// Events.
impl FakeHost {
    /// Sends an event that carries only the position, which stays that of the last event.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn fire(&mut self, event: EventKind) -> Result<()> {
        self.send(event, std::ptr::null())
    }

    /// Sets the position of the events that follow: in `epoch`, after `global_step` steps.
    pub fn set_position(&mut self, epoch: u64, global_step: u64) {
        let per_epoch = self.world.given.info.steps_per_epoch.max(1);
        let batch = self.world.given.info.training_samples / per_epoch;
        self.world.hook.position = Position {
            epoch,
            step: global_step.saturating_sub(epoch.saturating_sub(1).saturating_mul(per_epoch)),
            global_step,
            samples: global_step.saturating_mul(batch),
        };
    }

    /// Sends `setup`.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn setup(&mut self) -> Result<()> {
        self.fire(EventKind::SETUP)
    }

    /// Sends `train_start`.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn train_start(&mut self) -> Result<()> {
        self.fire(EventKind::TRAIN_START)
    }

    /// Sends `train_end`, and ends the remotes. The reason is that of the first stop request.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn train_end(&mut self, outcome: Outcome) -> Result<()> {
        let reason = self.stopped().unwrap_or_default().to_owned();
        let sent = self.send_texts(EventKind::TRAIN_END, [outcome.name(), &reason, ""], &[], f64::NAN);
        self.collect_remote();
        self.world.remote.close();
        sent
    }

    /// Sends `epoch_start`, at the end of the epoch before.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn epoch_start(&mut self, epoch: u64) -> Result<()> {
        self.set_position(epoch, self.steps_of(epoch.saturating_sub(1)));
        self.fire(EventKind::EPOCH_START)
    }

    /// Sends `epoch_trained`, after the epoch's last step.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn epoch_trained(&mut self, epoch: u64) -> Result<()> {
        self.set_position(epoch, self.steps_of(epoch));
        self.fire(EventKind::EPOCH_TRAINED)
    }

    /// Sends `trained`, where the run is.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn trained(&mut self) -> Result<()> {
        self.fire(EventKind::TRAINED)
    }

    /// Sends `epoch_end`, after the epoch's last step.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn epoch_end(&mut self, epoch: u64) -> Result<()> {
        self.set_position(epoch, self.steps_of(epoch));
        self.fire(EventKind::EPOCH_END)
    }

    /// Sends `step_start` of a step, counted over the run from 1.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn step_start(&mut self, global_step: u64) -> Result<()> {
        self.set_position(self.epoch_of(global_step), global_step);
        self.fire(EventKind::STEP_START)
    }

    /// Sends `gradients` of a step, counted over the run from 1.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn gradients(&mut self, global_step: u64) -> Result<()> {
        self.set_position(self.epoch_of(global_step), global_step);
        self.fire(EventKind::GRADIENTS)
    }

    /// Sends `step_end` of a step, counted over the run from 1.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn step_end(&mut self, global_step: u64) -> Result<()> {
        self.set_position(self.epoch_of(global_step), global_step);
        self.fire(EventKind::STEP_END)
    }

    /// Sends one of the four events of an evaluation, which is not in mid-epoch. `batch` counts from
    /// 1; it is 0 for `eval_start` and `eval_end`.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn evaluation(&mut self, event: EventKind, split: &str, batch: u64, batches: u64) -> Result<()> {
        let split = Text::new(split);
        let size = size_of::<EvaluationTable>() as u32;
        let table = EvaluationTable { size, mid_epoch: 0, split, batch, batches };
        self.send(event, (&raw const table).cast())
    }

    /// Sends `trigger` at the position of the last event, with the cause that the schedule would give.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn trigger(&mut self, cause: &str) -> Result<()> {
        self.send_texts(EventKind::TRIGGER, [cause, "", ""], &[], f64::NAN)
    }

    /// Sends `record`, as if the instance `author` had put it.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn record(&mut self, author: &str, record: &Record) -> Result<()> {
        let value = if let RecordValue::Scalar { value } = record.value { value } else { f64::NAN };
        self.world.hook.record = Some(record.clone());
        let texts = [&record.name, author, record.value.type_name()];
        let sent = self.send_texts(EventKind::RECORD, texts, &[], value);
        self.world.hook.record = None;
        sent
    }

    /// Sends `custom`, as if the instance `author` had sent it.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn custom(&mut self, author: &str, name: &str, payload: &[u8]) -> Result<()> {
        self.custom_with(author, name, payload, Vec::new())
    }

    /// Sends `custom` with tensors.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn custom_with(&mut self, author: &str, name: &str, payload: &[u8], tensors: Vec<Tensor>) -> Result<()> {
        self.world.given.tensors.insert(TensorSet::Event, tensors);
        let sent = self.send_texts(EventKind::CUSTOM, [name, author, ""], payload, f64::NAN);
        self.world.given.tensors.remove(&TensorSet::Event);
        sent
    }

    /// Sends `checkpoint` at the position of the last event.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn checkpoint(&mut self, asked_by: &str, reason: &str) -> Result<()> {
        self.send_texts(EventKind::CHECKPOINT, [asked_by, reason, ""], &[], f64::NAN)
    }

    /// Ends the writing of the first queued checkpoint and sends `checkpoint_written`, at the position of the last event; with
    /// an `error`, it could not be written. If none is queued, it is the event of another instance's.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn checkpoint_written(&mut self, error: Option<&str>) -> Result<()> {
        let mut path = "another".to_owned();
        if !self.world.seen.queued.is_empty() {
            path = self.world.seen.queued.remove(0);
            if error.is_none() {
                self.world.write_checkpoint(&path)?;
            }
        }
        self.send_texts(EventKind::CHECKPOINT_WRITTEN, [&path, error.unwrap_or_default(), ""], &[], 0.0)
    }

    /// Sends `artifact`, as if the instance `author` had published it.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn artifact(&mut self, kind: &str, path: &str, author: &str) -> Result<()> {
        self.send_texts(EventKind::ARTIFACT, [kind, path, author], &[], f64::NAN)
    }

    /// Sends `stopping`.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn stopping(&mut self, by: &str, reason: &str) -> Result<()> {
        self.send_texts(EventKind::STOPPING, [by, reason, ""], &[], f64::NAN)
    }

    /// Sends `error`: `by` failed in `hook`.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn error(&mut self, by: &str, hook: &str, message: &str) -> Result<()> {
        self.send_texts(EventKind::ERROR, [by, hook, message], &[], f64::NAN)
    }

    /// Sends `teardown`.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn teardown(&mut self) -> Result<()> {
        self.fire(EventKind::TEARDOWN)
    }

    /// Sends `save_state` and returns the bytes; none from a callback without the hook.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn save_state(&mut self) -> Result<Vec<u8>> {
        self.world.hook.state = None;
        self.fire(EventKind::SAVE_STATE)?;
        Ok(self.world.hook.state.take().unwrap_or_default())
    }

    /// Sends `load_state`.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn load_state(&mut self, state: &[u8]) -> Result<()> {
        self.load_state_of("", state)
    }

    /// Sends `load_state` with what a plugin of this version has saved.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn load_state_of(&mut self, version: &str, state: &[u8]) -> Result<()> {
        self.send_texts(EventKind::LOAD_STATE, [version, "", ""], state, f64::NAN)
    }

    fn steps_of(&self, epochs: u64) -> u64 {
        epochs.saturating_mul(self.world.given.info.steps_per_epoch.max(1))
    }

    fn epoch_of(&self, global_step: u64) -> u64 {
        global_step.saturating_sub(1) / self.world.given.info.steps_per_epoch.max(1) + 1
    }

    fn send_texts(&mut self, event: EventKind, texts: [&str; 3], bytes: &[u8], value: f64) -> Result<()> {
        let [first, second, third] = texts.map(Text::new);
        let table = TextsTable {
            size: size_of::<TextsTable>() as u32,
            first,
            second,
            third,
            bytes: Bytes::new(bytes),
            value,
            ..TextsTable::default_table()
        };
        self.send(event, (&raw const table).cast())
    }

    /// Sends an event whose table is `data`; what the table points to outlives the call.
    fn send(&mut self, kind: EventKind, data: *const c_void) -> Result<()> {
        self.collect_remote();
        if !self.subscribes(kind) {
            return Ok(());
        }
        if self.panicked {
            return Err(Error::new("the callback has panicked: a host sends it no more events"));
        }
        let Position { epoch, step, global_step, samples } = self.world.hook.position;
        let event = EventTable { size: size_of::<EventTable>() as u32, kind, epoch, step, global_step, samples, data };
        self.world.hook.event = kind;
        // Always inline, whatever the instance's dispatch.
        let at_once = matches!(kind, EventKind::SETUP | EventKind::LOAD_STATE);
        self.world.given.caller = if self.background && !at_once { Caller::Background } else { Caller::Inline };
        self.world.hook.fault = None;
        let (handle, instance) = (self.library.handle, self.instance);
        host_call::take_logs();
        // SAFETY: the instance is this library's, one hook at a time; the event outlives the call.
        let status = host_call::enter(&mut self.world, |host| unsafe { handle(0, instance, &raw const event, host) });
        self.world.hook.lent.clear();
        self.world.seen.logs.extend(host_call::take_logs());
        let fault = self.world.hook.fault.take().unwrap_or_default();
        match status {
            Status::OK => self.world.catch_up(),
            Status::PANIC => {
                self.panicked = true;
                Err(Error::new(fault.message).context(format!("panicked at {}", fault.place)))
            }
            _ => Err(Error::new(fault.message)),
        }
    }

    fn collect_remote(&mut self) {
        let left = self.world.remote.take();
        self.world.seen.requests.extend(left.requests);
        self.world.seen.records.extend(left.records);
    }
}
