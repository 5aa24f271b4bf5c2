//! The fake host as a test sees it.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::host_call;
use super::world::World;
use crate::abi::kinds::{EventKind, ServiceKind, Status};
use crate::abi::{
    Bytes, CreateTable, EvaluationTable, EventTable, LibraryTable, MINOR, ReplyTable, Table, TensorTable, Text,
    TextsTable,
};
use crate::callback::Callback;
use crate::error::{Error, Result};
use crate::event::{Outcome, Position};
use crate::export::{Kind, Library, library_table};
use crate::protocol::requests::{Artifact, ControlRequest, Custom, Measure, Predict, StatusLine};
use crate::protocol::{
    CheckpointWritten, Control, Descriptor, HookTime, ParameterGroup, Record, RecordValue, RunInfo, Tap, TensorSet,
};
use crate::services::Caller;
use crate::tensor::Tensor;

/// A library with one kind, as `#[plugin] const KINDS` would export it.
struct OneKind<T>(PhantomData<T>);

impl<T: Callback> Library for OneKind<T> {
    const KINDS: &'static [Kind] = &[Kind::of::<T>()];
}

/// One instance of a callback, and a host that sends it the events that the test chooses.
///
/// The run has 3 epochs of 10 steps unless [`FakeHost::with_info`] changes it; its folder is a
/// temporary one that is removed with the host.
///
/// Methods named after an event send it. Each returns the error of the hook, and `Ok` where the
/// callback does not subscribe to the event.
pub struct FakeHost {
    library: LibraryTable,
    descriptor: Descriptor,
    instance: *mut c_void,
    panicked: bool,
    background: bool,
    world: Box<World>,
    folder: PathBuf,
}

impl FakeHost {
    /// Creates an instance of `T` named after its kind, with options as a run file would give them.
    ///
    /// # Errors
    ///
    /// Options that `T` does not understand or refuses; a panic in `T::new`, with its place.
    pub fn new<T: Callback>(options: serde_json::Value) -> Result<Self> {
        Self::named::<T>(T::KIND, options)
    }

    /// The same with another name.
    ///
    /// # Errors
    ///
    /// Those of [`FakeHost::new`].
    pub fn named<T: Callback>(name: &str, options: serde_json::Value) -> Result<Self> {
        let library = library_table::<OneKind<T>>();
        let mut text = Vec::new();
        // SAFETY: the reply outlives the call.
        let status = unsafe { (library.describe)(0, &raw const *reply_into(&mut text)) };
        if status != Status::OK {
            return Err(Error::new(String::from_utf8_lossy(&text).into_owned()).context("describe"));
        }
        let descriptor: Descriptor = serde_json::from_slice(&text)?;
        let folder = temporary_folder();
        let mut world = Box::new(World::new(name, &folder));
        world.given.needs.clone_from(&descriptor.needs);
        let text_of_options = options.to_string();
        world.given.options = options;
        world.hook.event = EventKind::CREATE;
        let mut instance = std::ptr::null_mut();
        text.clear();
        let status = host_call::enter(&mut world, |host| {
            let request = CreateTable {
                size: size_of::<CreateTable>() as u32,
                minor: MINOR,
                options: Text::new(&text_of_options),
                instance: Text::new(name),
                log: host_call::take_log,
                host,
            };
            // SAFETY: request, place and reply outlive the call.
            unsafe { (library.create)(0, &raw const request, &raw mut instance, &raw const *reply_into(&mut text)) }
        });
        if status != Status::OK {
            let reported = world.hook.fault.take().filter(|_| text.is_empty()).map(|fault| fault.message);
            return Err(Error::new(reported.unwrap_or_else(|| String::from_utf8_lossy(&text).into_owned())));
        }
        world.hook.event = EventKind::SETUP;
        let host = Self { library, descriptor, instance, panicked: false, background: false, world, folder };
        std::fs::create_dir_all(&host.folder)?;
        Ok(host)
    }

    /// Changes the description of the run, before its first event.
    #[must_use]
    pub fn with_info(mut self, change: impl FnOnce(&mut RunInfo)) -> Self {
        change(&mut self.world.given.info);
        self
    }

    /// Answers as a host does when the callback runs in the background: from what its `NEEDS` list. Hooks still run on
    /// the thread of the test.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.background = true;
        self
    }

    /// The descriptor of the kind.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Whether the callback has a hook for `event`.
    pub fn subscribes(&self, event: EventKind) -> bool {
        self.descriptor.hooks.iter().any(|hook| hook == event.name())
    }
}

/// The answers of the services.
impl FakeHost {
    /// Puts a metric, and a point of the history at the position of the last event.
    pub fn put_metric(&mut self, name: &str, value: f64) {
        self.world.put_metric(name, value);
    }

    /// Adds a known metric without a value.
    pub fn know_metric(&mut self, name: &str) {
        self.world.given.metrics.entry(name.to_owned()).or_insert(None);
        self.world.remote.metric(name, self.world.given.metrics[name]);
    }

    /// Adds a tensor to a set, or replaces the one with its name.
    pub fn put_tensor(&mut self, set: TensorSet, tensor: Tensor) {
        let tensors = self.world.given.tensors.entry(set).or_default();
        match tensors.iter_mut().find(|other| other.name() == tensor.name()) {
            Some(other) => *other = tensor,
            None => tensors.push(tensor),
        }
    }

    /// Sets the loss of the current step.
    pub fn set_loss(&mut self, loss: f64) {
        self.world.given.loss = Some(loss);
    }

    /// Sets the cost of the hooks.
    pub fn set_hook_times(&mut self, times: Vec<HookTime>) {
        self.world.given.times = times;
    }

    /// Sets a hyper-parameter, owned by the schedule; creates the parameter group if it does not exist.
    pub fn put_hyper_parameter(&mut self, group: &str, name: &str, value: f64) {
        let groups = &mut self.world.given.groups;
        if !groups.iter().any(|other| other.name == group) {
            let (values, owners) = (BTreeMap::new(), BTreeMap::new());
            groups.push(ParameterGroup { name: group.to_owned(), values, owners });
        }
        for other in groups.iter_mut().filter(|other| other.name == group) {
            other.values.insert(name.to_owned(), value);
        }
    }

    /// Sets the model's graph. Parameters and buffers are then only those that [`Self::put_tensor`] puts.
    pub fn set_graph(&mut self, graph: serde_json::Value) {
        for set in [TensorSet::Parameters, TensorSet::Buffers] {
            self.world.given.tensors.entry(set).or_default();
        }
        self.world.given.graph = Some(graph);
    }

    /// Adds a batch to a split.
    pub fn put_batch(&mut self, split: &str, inputs: Tensor, targets: Tensor) {
        let batch = [inputs.named("inputs"), targets.named("targets")];
        self.world.given.batches.entry(split.to_owned()).or_default().push(batch);
    }

    /// Answers `Run::predict` and `Run::predict_split`: `answer` gets the request and its inputs, and
    /// returns the tensor `outputs` and the requested nodes.
    pub fn answer_predict(&mut self, answer: impl FnMut(&Predict, &[Tensor]) -> Result<Vec<Tensor>> + 'static) {
        self.world.given.predict = Some(Box::new(answer));
    }

    /// Answers `Run::measure`.
    pub fn answer_measure(&mut self, answer: impl FnMut(&Measure) -> Result<BTreeMap<String, f64>> + 'static) {
        self.world.given.measure = Some(Box::new(answer));
    }

    /// Answers `Run::train_steps`: `answer` gets the number of steps and returns their losses.
    pub fn answer_train_steps(&mut self, answer: impl FnMut(u64) -> Result<Vec<f64>> + 'static) {
        self.world.given.train_steps = Some(Box::new(answer));
    }

    /// Makes a service fail from now on, as a full disk would.
    pub fn fail(&mut self, service: ServiceKind, message: &str) {
        self.world.given.failing.insert(service, message.to_owned());
    }
}

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
        self.send_texts(EventKind::CUSTOM, [name, author, ""], payload, f64::NAN)
    }

    /// Sends `checkpoint` at the position of the last event.
    ///
    /// # Errors
    ///
    /// The hook's error or panic.
    pub fn checkpoint(&mut self, asked_by: &str, reason: &str) -> Result<()> {
        self.send_texts(EventKind::CHECKPOINT, [asked_by, reason, ""], &[], f64::NAN)
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
        self.send_texts(EventKind::LOAD_STATE, ["", "", ""], state, f64::NAN)
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

/// What the callback did. What it did through a `Remote` is visible from the next event on.
impl FakeHost {
    /// The run folder.
    pub fn folder(&self) -> &Path {
        Path::new(&self.world.given.info.folder)
    }

    /// The latest value of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.world.given.metrics.get(name).copied().flatten()
    }

    /// A hyper-parameter, in the first group that has it.
    pub fn hyper_parameter(&self, name: &str) -> Option<f64> {
        self.world.given.groups.iter().find_map(|group| group.values.get(name)).copied()
    }

    /// A tensor of a set.
    pub fn tensor(&self, set: &TensorSet, name: &str) -> Option<&Tensor> {
        self.world.given.tensors.get(set)?.iter().find(|tensor| tensor.name() == name)
    }

    /// All requests to the loop.
    pub fn requests(&self) -> &[ControlRequest] {
        &self.world.seen.requests
    }

    /// Whether `action` was requested.
    pub fn requested(&self, action: Control) -> bool {
        self.requests().iter().any(|request| request.action == action)
    }

    /// The reason of the first stop request.
    pub fn stopped(&self) -> Option<&str> {
        let stop = self.requests().iter().find(|request| request.action == Control::Stop)?;
        Some(&stop.reason)
    }

    /// The records that were put.
    pub fn records(&self) -> &[Record] {
        &self.world.seen.records
    }

    /// The custom events that were sent.
    pub fn emitted(&self) -> &[Custom] {
        &self.world.seen.emitted
    }

    /// The lines on the console.
    pub fn lines(&self) -> &[String] {
        &self.world.seen.lines
    }

    /// A status line that is on the console now.
    pub fn status(&self, name: &str) -> Option<&StatusLine> {
        self.world.seen.statuses.get(name)
    }

    /// What was published.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.world.seen.artifacts
    }

    /// The checkpoints that were written; each is an empty folder.
    pub fn checkpoints(&self) -> &[CheckpointWritten] {
        &self.world.seen.checkpoints
    }

    /// The requested taps.
    pub fn taps(&self) -> &[Tap] {
        &self.world.seen.taps
    }

    /// What hooks logged with `tracing`, as `WARN message field=value`; nothing if the test has set
    /// a subscriber of its own.
    pub fn logs(&self) -> &[String] {
        &self.world.seen.logs
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        self.world.remote.close();
        // An instance that a panic left inconsistent does not run again, not even its destructor.
        if !self.panicked {
            // SAFETY: made by `create`, and ended once, here. A panic in the callback's own drop is
            // caught inside the function, and there is nobody to tell.
            unsafe { (self.library.destroy)(0, self.instance) };
        }
        // A folder that cannot be removed is left to the system's temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn temporary_folder() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("plugin-api-testing-{}-{count}", std::process::id()))
}

/// A reply table that appends its bytes to `bytes`.
fn reply_into(bytes: &mut Vec<u8>) -> Box<ReplyTable> {
    unsafe extern "C" fn take_bytes(context: *mut c_void, bytes: Bytes) {
        // SAFETY: `context` is the vector of `reply_into`, borrowed by its caller; the bytes are
        // borrowed until this function returns.
        unsafe { (*context.cast::<Vec<u8>>()).extend_from_slice(bytes.read()) };
    }
    unsafe extern "C" fn take_tensor(_: *mut c_void, _: *const TensorTable) {}
    Box::new(ReplyTable {
        size: size_of::<ReplyTable>() as u32,
        reserved: 0,
        context: std::ptr::from_mut(bytes).cast(),
        bytes: take_bytes,
        tensor: take_tensor,
    })
}
