//! The services of the host during a hook.

mod model;

use std::collections::BTreeMap;
use std::marker::PhantomData;

use crate::abi::{HostHandle, TensorTable, Text};
use crate::call::{self, Answer, Decode, Encode};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::requests::{
    ArrayPut, Artifact, ControlRequest, CopyRequest, Custom, Evaluate, HyperParameterSet, Line, LinesAfter, MetricPut,
    Name, Path, Profile, QueueCheckpoint, StatusLine, TensorsRequest,
};
use crate::protocol::{
    Action, ArrayPoint, Blob, CheckpointWritten, ConsoleLine, Control, CopyAction, Evaluated, HookTime, ParameterGroup,
    Point, Record, RecordValue, Recording, RunInfo, Span, Tap, TensorInfo, TensorSet, WeightsInfo,
};
use crate::remote::Remote;
use crate::services::{Nothing, Service, ServiceKind, typed};
use crate::tensor::TensorView;

/// The run, during one hook: metrics, records, control, tensors, and the other services.
///
/// It cannot outlive its hook or leave its thread; other threads need [`Run::remote`].
///
/// Each call fetches on demand; what you do not read costs nothing.
#[derive(Debug)]
pub struct Run<'hook> {
    host: HostHandle,
    /// In `load_state`, the version of the plugin that saved the state.
    saved_version: &'hook str,
    hook: PhantomData<(&'hook (), *mut ())>,
}

impl<'hook> Run<'hook> {
    /// The run in `load_state`.
    pub(crate) fn with_saved_version(self, saved_version: &'hook str) -> Self {
        Self { saved_version, ..self }
    }
}

impl Run<'_> {
    /// In `on_load_state`, the version of the plugin that saved the state: another one may have written it in another form.
    /// Empty in other hooks, and of a checkpoint that does not say.
    pub fn saved_version(&self) -> &str {
        self.saved_version
    }

    pub(crate) fn new(host: HostHandle) -> Self {
        Self { host, saved_version: "", hook: PhantomData }
    }

    fn call<Q: Encode, R: Decode>(&self, service: Service<Q, R>, request: &Q) -> Result<R> {
        call::call(self.host, service, request)
    }

    /// Calls a service with bytes as they are: for tests of hosts.
    #[doc(hidden)]
    pub fn call_raw(&self, service: ServiceKind, payload: &[u8], tensors: &[TensorView<'_>]) -> Result<Vec<u8>> {
        let tensors: Vec<_> = tensors.iter().map(|view| *view.table()).collect();
        Ok(call::call_raw(self.host, service, payload, &tensors)?.bytes)
    }

    fn views(&self, answer: Answer) -> Vec<TensorView<'_>> {
        answer
            .tensors
            .into_iter()
            // SAFETY: valid until the hook returns, and a view borrows `self`, which ends before that.
            .map(|table| unsafe { TensorView::from_table(table) })
            .collect()
    }

    /// The instance's name, the run folder, the run file, ….
    ///
    /// # Errors
    ///
    /// Only those of every service: a spent handle, or a host that is too old.
    #[doc = service_rule!(RUN_INFO)]
    pub fn info(&self) -> Result<RunInfo> {
        self.call(typed::RUN_INFO, &Nothing)
    }

    // --- metrics, records, history

    /// The latest value of a metric.
    ///
    /// # Errors
    ///
    /// Of the kind [`NoSuchName`](ErrorKind::NoSuchName) when the run has no metric of that name, with the nearest ones;
    /// of the kind [`NoValue`](ErrorKind::NoValue) when it has one that has no value yet.
    #[doc = service_rule!(METRIC)]
    pub fn metric(&self, name: &str) -> Result<f64> {
        self.call(typed::METRIC, &Name { name: name.to_owned() })
    }

    /// The latest value of a metric, or `None` if it has none yet.
    ///
    /// # Errors
    ///
    /// Of the kind [`NoSuchName`](ErrorKind::NoSuchName) when the run has no metric of that name.
    pub fn latest_metric(&self, name: &str) -> Result<Option<f64>> {
        match self.metric(name) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::NoValue => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The latest value of each metric.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(METRICS)]
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        self.call(typed::METRICS, &Nothing)
    }

    /// The latest value of each metric, with the position at which it was measured. One of an earlier step belongs to
    /// other weights: compare its `global_step` with the event's before you say that a value is of these.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(METRIC_POINTS)]
    pub fn metric_points(&self) -> Result<BTreeMap<String, Point>> {
        self.call(typed::METRIC_POINTS, &Nothing)
    }

    /// The metrics that hold at `global_step`, at which the run is: those of evaluated splits only if they were measured
    /// there, since others are of other weights; all others as they are.
    ///
    /// # Errors
    ///
    /// Those of every service.
    pub fn current_metrics(&self, global_step: u64) -> Result<BTreeMap<String, f64>> {
        Ok(self.info()?.data.current(self.metric_points()?, global_step))
    }

    /// After which step the weights of the model were those of the training, and what was measured of them: unless a
    /// callback restored earlier ones, after the last step.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(WEIGHTS_INFO)]
    pub fn weights_info(&self) -> Result<WeightsInfo> {
        self.call(typed::WEIGHTS_INFO, &Nothing)
    }

    /// The metrics that were put at `global_step`, at which the run is: those of the weights as they are. A value that is
    /// still being averaged, during an epoch, is not among them.
    ///
    /// # Errors
    ///
    /// Those of every service.
    pub fn metrics_of_step(&self, global_step: u64) -> Result<BTreeMap<String, f64>> {
        let known = self.history_names()?;
        let mut metrics = BTreeMap::new();
        let points = self.metric_points()?.into_iter();
        for (name, _) in points.filter(|(name, point)| point.global_step == global_step && known.contains(name)) {
            if let Some(put) = self.history(&name)?.pop().filter(|put| put.global_step == global_step) {
                metrics.insert(name, put.value);
            }
        }
        Ok(metrics)
    }

    /// Puts a metric: it is readable at once, also by later callbacks in the same pass, and part of the history.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(METRIC_PUT)]
    pub fn put_metric(&mut self, name: &str, value: f64) -> Result<()> {
        let name = name.to_owned();
        self.call(typed::METRIC_PUT, &MetricPut { name, value }).map(drop)
    }

    /// Puts a record for the monitors; delivered as an event once this hook has returned.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(RECORD_PUT)]
    pub fn put_record(&mut self, name: &str, value: RecordValue) -> Result<()> {
        let name = name.to_owned();
        self.call(typed::RECORD_PUT, &Record { name, value }).map(drop)
    }

    /// In `on_record`: the record.
    ///
    /// # Errors
    ///
    /// In another hook.
    #[doc = service_rule!(RECORD)]
    pub fn current_record(&self) -> Result<Record> {
        self.call(typed::RECORD, &Nothing)
    }

    /// The names in the history.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(HISTORY_NAMES)]
    pub fn history_names(&self) -> Result<Vec<String>> {
        self.call(typed::HISTORY_NAMES, &Nothing)
    }

    /// All values of a metric so far, oldest first.
    ///
    /// # Errors
    ///
    /// When there is no such name; the message lists the nearest ones.
    #[doc = service_rule!(HISTORY_SERIES)]
    pub fn history(&self, name: &str) -> Result<Vec<Point>> {
        let name = name.to_owned();
        self.call(typed::HISTORY_SERIES, &Name { name })
    }

    /// The newest value of a metric in the history, with the step at which it was put or measured; unlike
    /// [`Self::latest_metric`], never the running one of an epoch that is not over.
    ///
    /// # Errors
    ///
    /// When there is no such name; the message lists the nearest ones.
    #[doc = service_rule!(HISTORY_LATEST)]
    pub fn history_latest(&self, name: &str) -> Result<Point> {
        let name = name.to_owned();
        self.call(typed::HISTORY_LATEST, &Name { name })
    }

    /// All values so far of the metrics whose names begin with `prefix`, such as `val_`, oldest first. Series of arrays are left
    /// out.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(HISTORY_SERIES)]
    pub fn history_with_prefix(&self, prefix: &str) -> Result<BTreeMap<String, Vec<Point>>> {
        let arrays = self.latest_arrays()?;
        let mut names = self.history_names()?;
        names.retain(|name| name.starts_with(prefix) && !arrays.contains_key(name));
        names.into_iter().map(|name| Ok((name.clone(), self.history(&name)?))).collect()
    }

    /// Forgets every value or array of a name, and its latest value: of a metric of your own that no longer means anything. It
    /// may get new ones. A name without any is no error.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(HISTORY_REMOVE)]
    pub fn remove_history(&mut self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.call(typed::HISTORY_REMOVE, &Name { name }).map(drop)
    }

    /// All arrays of a name so far, oldest first.
    ///
    /// # Errors
    ///
    /// When there is no such name; the message lists the nearest ones.
    #[doc = service_rule!(HISTORY_ARRAYS)]
    pub fn history_arrays(&self, name: &str) -> Result<Vec<ArrayPoint>> {
        let name = name.to_owned();
        self.call(typed::HISTORY_ARRAYS, &Name { name })
    }

    /// The latest array of each series of arrays, such as a confusion matrix.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(LATEST_ARRAYS)]
    pub fn latest_arrays(&self) -> Result<BTreeMap<String, ArrayPoint>> {
        self.call(typed::LATEST_ARRAYS, &Nothing)
    }

    /// Puts an array into the history.
    ///
    /// # Errors
    ///
    /// When the shape holds another number of values.
    #[doc = service_rule!(ARRAY_PUT)]
    pub fn put_array(&mut self, name: &str, shape: &[u64], values: &[f32]) -> Result<()> {
        let put = ArrayPut { name: name.to_owned(), shape: shape.to_vec(), values: values.to_vec() };
        self.call(typed::ARRAY_PUT, &put).map(drop)
    }

    /// The value of an expression now, in the language of the run file's `if`. `variables` are names of your own in it; any
    /// other name is a position or a metric. An option with the format `expression` in its schema is checked before the run.
    ///
    /// # Errors
    ///
    /// A text that is no expression; of the kind [`NoSuchName`](ErrorKind::NoSuchName) when it names a metric that the run
    /// does not have.
    #[doc = service_rule!(EVALUATE)]
    pub fn evaluate(&self, expression: &str, variables: &[(&str, f64)]) -> Result<Evaluated> {
        self.call(typed::EVALUATE, &evaluate(expression, variables, false))
    }

    /// The value of an expression that gives a number. It is NaN if a metric in it has no value yet.
    ///
    /// # Errors
    ///
    /// Those of [`Run::evaluate`]; an expression that gives something else.
    pub fn evaluate_number(&self, expression: &str, variables: &[(&str, f64)]) -> Result<f64> {
        match self.evaluate(expression, variables)? {
            Evaluated::Number(number) => Ok(number),
            _ => Err(Error::new(format!("`{expression}` does not give a number"))),
        }
    }

    /// What actions such as `stop('done'); put('doubled', 2 * val_loss)` ask for now, in order. Nothing is done yet. An
    /// option with the format `actions` in its schema is checked before the run.
    ///
    /// # Errors
    ///
    /// As [`Run::evaluate`].
    #[doc = service_rule!(EVALUATE)]
    pub fn evaluate_actions(&self, actions: &str, variables: &[(&str, f64)]) -> Result<Vec<Action>> {
        match self.call(typed::EVALUATE, &evaluate(actions, variables, true))? {
            Evaluated::Actions(actions) => Ok(actions),
            _ => Err(Error::new(format!("`{actions}` does not give actions"))),
        }
    }

    // --- hyper-parameters and control

    /// The optimizer's parameter groups with their hyper-parameters.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(HYPER_PARAMETERS)]
    pub fn hyper_parameters(&self) -> Result<Vec<ParameterGroup>> {
        self.call(typed::HYPER_PARAMETERS, &Nothing)
    }

    /// Sets a hyper-parameter of `group`, or of every group that has it. From then on this instance
    /// owns it: the host's schedule no longer changes it, also after a resume.
    ///
    /// # Errors
    ///
    /// When there is no such group or hyper-parameter; the message lists the nearest ones.
    #[doc = service_rule!(HYPER_PARAMETER_SET)]
    pub fn set_hyper_parameter(&mut self, group: Option<&str>, name: &str, value: f64) -> Result<()> {
        let set = HyperParameterSet { group: group.map(str::to_owned), name: name.to_owned(), value };
        self.call(typed::HYPER_PARAMETER_SET, &set).map(drop)
    }

    /// Asks the loop for something, at its next safe point. `reason` is shown to people, with this instance's name.
    ///
    /// # Errors
    ///
    /// [`Control::SkipUpdate`] outside `on_gradients`.
    #[doc = service_rule!(CONTROL)]
    pub fn request(&mut self, action: Control, reason: &str) -> Result<()> {
        let reason = reason.to_owned();
        self.call(typed::CONTROL, &ControlRequest { action, reason }).map(drop)
    }

    /// Asks for the end of the run, which then counts as stopped, not as failed.
    ///
    /// # Errors
    ///
    /// Those of every service.
    pub fn stop(&mut self, reason: &str) -> Result<()> {
        self.request(Control::Stop, reason)
    }

    /// In `on_gradients`: leaves out this step's update.
    ///
    /// # Errors
    ///
    /// In another hook.
    pub fn skip_update(&mut self, reason: &str) -> Result<()> {
        self.request(Control::SkipUpdate, reason)
    }

    // --- tensors

    /// Names, shapes and element types of a set.
    ///
    /// # Errors
    ///
    /// When the set is not available at this event.
    #[doc = service_rule!(TENSOR_LIST)]
    pub fn list(&self, set: TensorSet) -> Result<Vec<TensorInfo>> {
        let names = Vec::new();
        self.call(typed::TENSOR_LIST, &TensorsRequest { set, names })
    }

    /// All tensors of a set, in the model's order: borrowed, not copied.
    ///
    /// # Errors
    ///
    /// When the set is not available at this event.
    #[doc = service_rule!(TENSOR_READ)]
    pub fn tensors(&self, set: TensorSet) -> Result<Vec<TensorView<'_>>> {
        let names = Vec::new();
        let answer = call::answer(self.host, typed::TENSOR_READ, &TensorsRequest { set, names }, &[])?;
        Ok(self.views(answer))
    }

    /// One tensor of a set: borrowed, not copied.
    ///
    /// # Errors
    ///
    /// When it does not exist; the message lists the nearest names.
    #[doc = service_rule!(TENSOR_READ)]
    pub fn tensor(&self, set: TensorSet, name: &str) -> Result<TensorView<'_>> {
        let names = vec![name.to_owned()];
        let answer = call::answer(self.host, typed::TENSOR_READ, &TensorsRequest { set, names }, &[])?;
        self.views(answer).pop().ok_or_else(|| Error::new(format!("the host gave no tensor `{name}`")))
    }

    /// A copy on the CPU of a view that lies elsewhere; valid as long as the view.
    ///
    /// # Errors
    ///
    /// When the device fails.
    #[doc = service_rule!(TENSOR_TO_HOST)]
    pub fn to_host(&self, view: &TensorView<'_>) -> Result<TensorView<'_>> {
        let answer = call::call_raw(self.host, ServiceKind::TENSOR_TO_HOST, &[], &[*view.table()])?;
        self.views(answer).pop().ok_or_else(|| Error::new("the host gave no copy"))
    }

    /// Writes tensors of a set, by their names. Declare it in `Callback::NEEDS`.
    ///
    /// Weights may be written when no step is in progress: not between `step_start` and `step_end`.
    /// The optimizer continues from what is written; its own state does not change unless it is
    /// written too.
    ///
    /// # Errors
    ///
    /// Another shape or element type, an unknown name, a hook in which the set may not be written,
    /// or a callback in the background; then nothing is written.
    #[doc = service_rule!(TENSOR_WRITE)]
    pub fn write(&mut self, set: TensorSet, tensors: &[TensorView<'_>]) -> Result<()> {
        let names = tensors.iter().map(|view| view.name().to_owned()).collect();
        let tables: Vec<_> = tensors.iter().map(|view| *view.table()).collect();
        call::answer(self.host, typed::TENSOR_WRITE, &TensorsRequest { set, names }, &tables).map(drop)
    }

    /// Takes, restores or drops a named copy of the weights (parameters and buffers), kept by the
    /// host; `TensorSet::Copy` reads and writes it, `Run::measure` measures it.
    ///
    /// # Errors
    ///
    /// When there is no copy of that name, or the weights cannot be written in this hook.
    #[doc = service_rule!(WEIGHTS_COPY)]
    pub fn copy_weights(&mut self, name: &str, action: CopyAction) -> Result<()> {
        let name = name.to_owned();
        self.call(typed::WEIGHTS_COPY, &CopyRequest { name, action }).map(drop)
    }

    /// Takes, restores or drops a named copy of the whole training state: weights, optimizer with its hyper-parameters and
    /// who owns them, and random generators, but not position and history.
    ///
    /// # Errors
    ///
    /// When there is no copy of that name, or the weights cannot be written in this hook.
    #[doc = service_rule!(TRAINING_STATE_COPY)]
    pub fn copy_training_state(&mut self, name: &str, action: CopyAction) -> Result<()> {
        let name = name.to_owned();
        self.call(typed::TRAINING_STATE_COPY, &CopyRequest { name, action }).map(drop)
    }

    /// In `on_setup`: asks for a value to be fetched with each step; it is in `TensorSet::Taps`
    /// at `step_end` and `trigger`, and at `eval_step_end` if it is an activation.
    ///
    /// # Errors
    ///
    /// In another hook, or when there is no such node or parameter.
    #[doc = service_rule!(TAP)]
    pub fn tap(&mut self, tap: &Tap) -> Result<()> {
        self.call(typed::TAP, tap).map(drop)
    }

    /// The loss of the current step or evaluation batch; waits for the device.
    ///
    /// # Errors
    ///
    /// In a hook without a loss.
    #[doc = service_rule!(LOSS)]
    pub fn loss(&self) -> Result<f64> {
        self.call(typed::LOSS, &Nothing)
    }

    // --- output

    /// Sends a custom event, delivered once this hook has returned.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(EMIT)]
    pub fn emit(&mut self, name: &str, payload: &[u8]) -> Result<()> {
        self.emit_with(name, payload, &[])
    }

    /// Sends a custom event with tensors, under the names given here; listeners read them in `on_custom` as
    /// [`TensorSet::Event`].
    ///
    /// A view that the host lent in this hook, or a part of it, is passed on without a copy, with the values that it has
    /// when the event is delivered. A tensor in memory of your own is copied once, unless nobody listens. Listeners in the
    /// background get copies if their `NEEDS` name [`Need::EVENT`](crate::Need::EVENT).
    ///
    /// It takes `&self`, unlike [`Self::emit`], because views that the host lent borrow this.
    ///
    /// # Errors
    ///
    /// A tensor of your own that is not on the CPU.
    #[doc = service_rule!(EMIT)]
    pub fn emit_with(&self, name: &str, payload: &[u8], tensors: &[(&str, &TensorView<'_>)]) -> Result<()> {
        let custom = Custom { name: name.to_owned(), payload: Blob(payload.to_vec()) };
        let named = |(name, view): &(&str, &TensorView<'_>)| TensorTable { name: Text::new(name), ..*view.table() };
        let tables: Vec<_> = tensors.iter().map(named).collect();
        call::answer(self.host, typed::EMIT, &custom, &tables).map(drop)
    }

    /// In `on_checkpoint`: writes the checkpoint to `path`, relative to the run folder or absolute.
    /// It is written completely or not at all.
    ///
    /// # Errors
    ///
    /// In another hook, or when the disk fails.
    #[doc = service_rule!(WRITE_CHECKPOINT)]
    pub fn write_checkpoint(&mut self, path: &str) -> Result<CheckpointWritten> {
        let path = path.to_owned();
        self.call(typed::WRITE_CHECKPOINT, &Path { path })
    }

    /// What was recorded of the time of steps since the last call, by whichever callback; records from now on what is asked
    /// for. It costs nothing until somebody asks.
    ///
    /// # Errors
    ///
    /// In the background.
    #[doc = service_rule!(PROFILE)]
    pub fn profile(&mut self, record: Recording) -> Result<Vec<Span>> {
        self.call(typed::PROFILE, &Profile { record })
    }

    /// In `on_checkpoint`: copies the checkpoint, and writes it to `path` on a thread of the host while the training goes on,
    /// after those that were queued before; [`on_checkpoint_written`](crate::Callback::on_checkpoint_written) tells the end.
    /// Those of `instead_of` that wait are left out; returns them. Each that waits holds a copy of the whole state in memory.
    /// What is queued is written even where the run fails.
    ///
    /// # Errors
    ///
    /// In another hook, or in the background, where [`Self::write_checkpoint`] does not hold up the training.
    #[doc = service_rule!(QUEUE_CHECKPOINT)]
    pub fn queue_checkpoint(&mut self, path: &str, instead_of: &[&str]) -> Result<Vec<String>> {
        let instead_of = instead_of.iter().map(|path| (*path).to_owned()).collect();
        self.call(typed::QUEUE_CHECKPOINT, &QueueCheckpoint { path: path.to_owned(), instead_of })
    }

    /// Announces something published: it is listed in `status.json`, and an `artifact` event follows.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(ARTIFACT)]
    pub fn publish(&mut self, kind: &str, path: &str) -> Result<()> {
        let artifact = Artifact { kind: kind.to_owned(), path: path.to_owned() };
        self.call(typed::ARTIFACT, &artifact).map(drop)
    }

    /// Prints a line on the host's console; only the host writes to the terminal.
    ///
    /// ANSI colors (SGR) stay where [`RunInfo::console_colors`](crate::protocol::RunInfo::console_colors) says that they are shown;
    /// every other control sequence, and characters that are not seen, are taken out. A tab is a space.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(CONSOLE_LINE)]
    pub fn console_line(&mut self, text: &str) -> Result<()> {
        let text = text.to_owned();
        self.call(typed::CONSOLE_LINE, &Line { text }).map(drop)
    }

    /// Shows a status line on the host's console, with a bar if there is a progress from 0 to 1;
    /// an empty text removes it. It has no colors.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(CONSOLE_STATUS)]
    pub fn console_status(&mut self, name: &str, text: &str, progress: Option<f64>) -> Result<()> {
        let status = StatusLine { name: name.to_owned(), text: text.to_owned(), progress };
        self.call(typed::CONSOLE_STATUS, &status).map(drop)
    }

    /// The newest lines of the console after the number `after`, oldest first; 0 asks for all
    /// that the host has kept.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(CONSOLE_LINES)]
    pub fn console_lines(&self, after: u64) -> Result<Vec<ConsoleLine>> {
        self.call(typed::CONSOLE_LINES, &LinesAfter { after })
    }

    /// The cost of each hook of each callback, most expensive first: as of the beginning of this event in `epoch_end`
    /// and `train_end`, in other hooks as of the first event after the last call of this service.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(HOOK_TIMES)]
    pub fn hook_times(&self) -> Result<Vec<HookTime>> {
        self.call(typed::HOOK_TIMES, &Nothing)
    }

    /// Says that this hook waits on purpose, such as for a person: `hook_warning` and `hook_timeout` count from now on again.
    /// Call it more often than they say, for as long as the hook waits.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(KEEP_ALIVE)]
    pub fn keep_alive(&self) -> Result<()> {
        self.call(typed::KEEP_ALIVE, &Nothing).map(drop)
    }

    /// A handle for other threads, until `train_end`: control, records and read-only metrics.
    ///
    /// # Errors
    ///
    /// Those of every service.
    #[doc = service_rule!(REMOTE)]
    pub fn remote(&self) -> Result<Remote> {
        let ticket = self.call(typed::REMOTE, &Nothing)?;
        Ok(Remote::new(HostHandle { table: self.host.table, ticket }))
    }

    /// The next minor's service: seconds since the run began.
    ///
    /// # Errors
    ///
    /// A host that is too old for it.
    #[cfg(feature = "next-minor")]
    pub fn uptime(&self) -> Result<f64> {
        self.call(typed::UPTIME, &Nothing)
    }
}

fn evaluate(expression: &str, variables: &[(&str, f64)], actions: bool) -> Evaluate {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    Evaluate { expression: expression.to_owned(), variables, actions }
}
