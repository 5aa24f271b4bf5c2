//! Well-behaved: calls every service in a suitable hook, and writes the answers.
//!
//! Each line of the file is a JSON object with `hook`, `service`, and either `value` or `error` and `error_kind`.
//! It does not change the training, except for what `skip_update`, `learning_rate` and the options request.

mod batches;
mod journal;

use std::thread::JoinHandle;
use std::time::Duration;

use journal::Journal;
use plugin_api::event::{
    ArtifactPublished, At, Checkpoint, Custom, Evaluation, RecordPut, Stopping, TrainEnd, Trigger,
};
use plugin_api::protocol::{Blob, Control, CopyAction, RecordValue, Recording, Tap, TapOf, TapReduce, TensorSet};
use plugin_api::{Callback, Creation, EventKind, Kind, Need, Remote, Result, Run, Tensor, TensorView, plugin};
use serde_json::{Value, json};

/// Its actions besides calling services.
#[plugin]
#[derive(Default)]
struct Options {
    /// The file to append to; empty: none.
    path: String,
    /// Leaves out the update of this global step; 0: of none.
    skip_update: u64,
    /// Ends the epoch after this global step; 0: after none.
    end_epoch: u64,
    /// Pauses the run at this global step, and resumes it from another thread; 0: never.
    pause: u64,
    /// Asks for a stop at this global step; 0: never.
    stop: u64,
    /// Asks for an evaluation at this global step; 0: never.
    evaluate: u64,
    /// Asks for a checkpoint at this global step; 0: never.
    checkpoint: u64,
    /// Sets the learning rate at the first step; 0: not.
    learning_rate: f64,
}

struct Services {
    options: Options,
    journal: Journal,
    remote: Option<Remote>,
    thread: Option<JoinHandle<()>>,
    /// Hooks that were already exercised: once is enough.
    done: Vec<&'static str>,
    /// What `save_state` gives.
    steps: u64,
}

impl Services {
    /// Whether `hook` comes for the first time.
    fn first(&mut self, hook: &'static str) -> bool {
        let first = !self.done.contains(&hook);
        if first {
            self.done.push(hook);
        }
        first
    }
}

#[plugin]
impl Callback for Services {
    const KIND: &'static str = "services";
    const SUMMARY: &'static str = "Calls every service and writes down what came back";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[
        Need::WRITES_WEIGHTS,
        Need::WRITES_GRADIENTS,
        Need::WRITES_BATCH,
        Need::TRAINING_STATE,
        Need::outputs(EventKind::STEP_END),
        Need::taps(EventKind::STEP_END),
    ];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let journal = Journal::open(&options.path)?;
        Ok(Self { options, journal, remote: None, thread: None, done: Vec::new(), steps: 0 })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        tracing::info!(answer = 42, "the services plugin logs");
        let journal = self.journal.at("setup");
        journal.note("run_info", run.info())?;
        let graph = journal.note("graph", run.graph())?;
        journal.note("metrics", run.metrics())?;
        journal.note("metric_points", run.metric_points())?;
        journal.note("history_names", run.history_names())?;
        journal.note("evaluate", run.evaluate("epoch + 0.5", &[]))?;
        let run_file: serde_json::Value = serde_json::from_str(&run.info()?.run_file)?;
        let data = run_file["data"]["path"].as_str().unwrap_or_default();
        journal.note("open_split", run.open_split("opened", data))?;
        journal.note("hyper_parameters", run.hyper_parameters())?;
        let parameters = journal.note("tensor_list parameters", run.list(TensorSet::Parameters))?;
        journal.note("tensor_list buffers", run.list(TensorSet::Buffers))?;
        journal.note("tensor_list optimizer", run.list(TensorSet::Optimizer))?;
        journal.note("tensor_list batch", run.list(TensorSet::Batch))?;
        journal.note("console_line", run.console_line("the services plugin prints"))?;
        journal.note("console_lines", run.console_lines(0))?;
        journal.note("console_status", run.console_status("services", "half way", Some(0.5)))?;
        journal.note("console_status", run.console_status("services", "", None))?;
        let output = graph.map(|graph| graph.output).unwrap_or_default();
        for (name, reduce) in [
            ("whole", TapReduce::Whole),
            ("mean", TapReduce::Mean),
            ("norm", TapReduce::Norm),
            ("min-max", TapReduce::MinMax),
            ("histogram", TapReduce::Histogram),
            ("non-finite", TapReduce::NonFinite),
        ] {
            let tap = Tap { name: name.to_owned(), node: output.clone(), of: TapOf::Activation, reduce };
            journal.note("tap", run.tap(&tap))?;
        }
        if let Some(first) = parameters.as_ref().and_then(|parameters| parameters.first()) {
            let (name, node) = ("gradient".to_owned(), first.name.clone());
            journal.note("tap", run.tap(&Tap { name, node, of: TapOf::Gradient, reduce: TapReduce::Norm }))?;
        }
        let nowhere = Tap {
            name: "nowhere".to_owned(),
            node: "no-such-node".to_owned(),
            of: TapOf::Activation,
            reduce: TapReduce::Mean,
        };
        journal.note("tap of no node", run.tap(&nowhere))?;
        Ok(())
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let journal = self.journal.at("train_start");
        self.remote = Some(run.remote()?);
        journal.note("remote", Ok(()))?;
        let before = fingerprint(run)?;

        // The whole training state, changed and restored.
        journal.note("training_state_copy take", run.copy_training_state("before", CopyAction::Take))?;
        journal.note("train_steps", run.train_steps(2))?;
        journal.note("changed by train_steps", fingerprint(run).map(|after| after != before))?;
        journal.note("recalibrate_batch_norm", run.recalibrate_batch_norm("train", 1))?;
        journal.note("training_state_copy restore", run.copy_training_state("before", CopyAction::Restore))?;
        journal.note("same after restore", fingerprint(run).map(|after| after == before))?;
        journal.note("training_state_copy drop", run.copy_training_state("before", CopyAction::Drop))?;
        journal.note("training_state_copy of no name", run.copy_training_state("before", CopyAction::Restore))?;

        // A named copy of the weights.
        journal.note("weights_copy take", run.copy_weights("copy", CopyAction::Take))?;
        let copy = TensorSet::Copy("copy".to_owned());
        journal.note("tensor_list copy", run.list(copy.clone()))?;
        journal.note("measure copy", run.measure("val", &["loss", "accuracy"], Some("copy")))?;
        let zeros = owned(run, copy.clone())?.iter().map(zeros).collect::<Result<Vec<_>>>()?;
        journal.note("tensor_write copy", run.write(copy, &views(&zeros)))?;
        journal.note("same after writing a copy", fingerprint(run).map(|after| after == before))?;
        journal.note("weights_copy drop", run.copy_weights("copy", CopyAction::Drop))?;
        journal.note("weights_copy of no name", run.copy_weights("copy", CopyAction::Restore))?;

        // The weights themselves, changed and restored.
        for set in [TensorSet::Parameters, TensorSet::Buffers, TensorSet::Optimizer] {
            let tensors = owned(run, set.clone())?;
            journal.note(&format!("tensor_write {set}"), run.write(set, &views(&tensors)))?;
        }
        let misfit = [Tensor::new("no-such-parameter", &[1], &[0_f32])?];
        journal.note("tensor_write of no name", run.write(TensorSet::Parameters, &views(&misfit)))?;
        journal.note("same after writing", fingerprint(run).map(|after| after == before))?;

        // Data and inference.
        journal.note("batch", run.batch("val", 0).map(|batch| shapes(&batch)))?;
        journal.note("batch of no split", run.batch("vall", 0).map(|batch| shapes(&batch)))?;
        journal.note("batch beyond the last", run.batch("val", u64::MAX).map(|batch| shapes(&batch)))?;
        let inputs = run.batch("val", 0)?[0].to_owned()?;
        journal.note("predict", run.predict(&inputs.view(), &[]).map(|outputs| shapes(&outputs)))?;
        let node = run.graph()?.output;
        journal.note("predict_split", run.predict_split("val", 1, &[&node]).map(|outputs| shapes(&outputs)))?;
        journal
            .note("predict no node", run.predict_split("val", 1, &["no-such-node"]).map(|outputs| shapes(&outputs)))?;
        journal.note("measure", run.measure("val", &[], None))?;
        journal.note("measure no metric", run.measure("val", &["acuracy"], None))?;
        journal.note("same after predicting", fingerprint(run).map(|after| after == before))?;
        Ok(())
    }

    fn on_epoch_start(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        if !self.first("epoch_start") {
            return Ok(());
        }
        // A remote, from a thread of its own.
        if let Some(remote) = self.remote.clone() {
            let thread = std::thread::spawn(move || {
                let value = RecordValue::Text { text: "from another thread".to_owned() };
                let _ = remote.put_record("services/remote", value);
            });
            let joined = thread.join();
            self.journal.at("epoch_start").note("remote put_record", Ok(joined.is_ok()))?;
        }
        Ok(())
    }

    fn on_step_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if self.options.pause == event.global_step
            && let Some(remote) = self.remote.clone()
        {
            run.request(Control::Pause, "the services plugin pauses")?;
            self.thread = Some(std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                let _ = remote.request(Control::Resume, "the services plugin resumes");
            }));
        }
        if !self.first("step_start") {
            return Ok(());
        }
        let journal = self.journal.at("step_start");
        let batch = owned(run, TensorSet::Batch)?;
        journal.note("tensor_read batch", run.tensors(TensorSet::Batch).map(|batch| shapes(&batch)))?;
        journal.note("tensor_write batch", run.write(TensorSet::Batch, &views(&batch)))?;
        let parameters = owned(run, TensorSet::Parameters)?;
        journal.note("tensor_write parameters", run.write(TensorSet::Parameters, &views(&parameters)))?;
        journal.note("tensor_read gradients", run.tensors(TensorSet::Gradients).map(|tensors| shapes(&tensors)))?;
        journal.note("skip_update", run.skip_update("not in this hook"))?;
        Ok(())
    }

    fn on_gradients(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if self.options.skip_update == event.global_step {
            self.journal.at("gradients").note("skip_update", run.skip_update("the services plugin skips"))?;
        }
        if !self.first("gradients") {
            return Ok(());
        }
        let journal = self.journal.at("gradients");
        let gradients = owned(run, TensorSet::Gradients)?;
        journal.note("tensor_read gradients", run.tensors(TensorSet::Gradients).map(|tensors| shapes(&tensors)))?;
        journal.note("tensor_write gradients", run.write(TensorSet::Gradients, &views(&gradients)))?;
        journal.note("loss", run.loss())?;
        Ok(())
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.steps += 1;
        for (step, action) in [
            (self.options.end_epoch, Control::EndEpoch),
            (self.options.stop, Control::Stop),
            (self.options.evaluate, Control::Evaluate),
            (self.options.checkpoint, Control::Checkpoint),
        ] {
            if step == event.global_step && step > 0 {
                let asked = run.request(action, "the services plugin asks");
                self.journal.at("step_end").note(&format!("control {action:?}"), asked)?;
            }
        }
        if !self.first("step_end") {
            return Ok(());
        }
        let journal = self.journal.at("step_end");
        journal.note("tensor_read outputs", run.tensors(TensorSet::Outputs).map(|tensors| shapes(&tensors)))?;
        journal.note("tensor_read taps", run.tensors(TensorSet::Taps).map(|tensors| shapes(&tensors)))?;
        journal.note("tensor_read no name", run.tensor(TensorSet::Parameters, "no-such-parameter").map(|_| ()))?;
        let first = run.list(TensorSet::Parameters)?.first().map(|info| info.name.clone()).unwrap_or_default();
        let view = run.tensor(TensorSet::Parameters, &first)?;
        journal.note("tensor_to_host", run.to_host(&view).map(|copy| shapes(&[copy])))?;
        journal.note("loss", run.loss())?;
        journal.note("metric_put", run.put_metric("services_metric", 1.5))?;
        journal.note("metric", run.metric("services_metric"))?;
        journal.note("metric of no name", run.metric("service_metric"))?;
        journal.note("array_put", run.put_array("services_array", &[2, 2], &[1.0, 2.0, 3.0, 4.0]))?;
        journal.note("array_put of another shape", run.put_array("services_array", &[2, 3], &[1.0]))?;
        journal.note("record of no event", run.current_record())?;
        if self.options.learning_rate > 0.0 {
            let set = run.set_hyper_parameter(None, "learning_rate", self.options.learning_rate);
            journal.note("hyper_parameter_set", set)?;
            journal.note("hyper_parameters", run.hyper_parameters())?;
        }
        journal.note("hyper_parameter_set no name", run.set_hyper_parameter(None, "learning_rat", 0.1))?;
        for (name, value) in records() {
            journal.note("record_put", run.put_record(&format!("services/{name}"), value))?;
        }
        Ok(())
    }

    fn on_eval_step_end(&mut self, run: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        if !self.first("eval_step_end") {
            return Ok(());
        }
        let journal = self.journal.at("eval_step_end");
        journal.note("tensor_read batch", run.tensors(TensorSet::Batch).map(|tensors| shapes(&tensors)))?;
        journal.note("tensor_read outputs", run.tensors(TensorSet::Outputs).map(|tensors| shapes(&tensors)))?;
        journal.note("tensor_read taps", run.tensors(TensorSet::Taps).map(|tensors| shapes(&tensors)))?;
        journal.note("loss", run.loss())?;
        Ok(())
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if !self.first("epoch_end") {
            return Ok(());
        }
        let journal = self.journal.at("epoch_end");
        journal.note("metrics", run.metrics())?;
        journal.note("history_series", run.history("train_loss"))?;
        journal.note("history_arrays", run.history_arrays("services_array"))?;
        journal.note("history_latest", run.history_latest("train_loss"))?;
        journal.note("history_with_prefix", run.history_with_prefix("train_lo"))?;
        journal.note("latest_arrays", run.latest_arrays())?;
        journal.note("weights_info", run.weights_info())?;
        journal.note("history of no name", run.history("train_los"))?;
        run.put_metric("services_removed", 1.0)?;
        run.put_metric("services_removed", 2.0)?;
        journal.note("history of two values", run.history("services_removed"))?;
        journal.note("history_remove", run.remove_history("services_removed"))?;
        let is_left = run.history("services_removed").is_ok() || run.metrics()?.contains_key("services_removed");
        journal.note("is anything left", Ok(is_left))?;
        journal.note("hook_times", run.hook_times())?;
        journal.note("profile", run.profile(Recording::Off))?;
        journal.note("keep_alive", run.keep_alive())?;
        journal.note("freeze", run.unfreeze(&["*".to_owned()]))?;
        journal.note("limit_batches", run.limit_batches("train", None))?;
        journal.note("emit", run.emit("services", format!("epoch {}", event.epoch).as_bytes()))?;
        journal.note("artifact", run.publish("services", "services.txt"))?;
        Ok(())
    }

    fn on_trigger(&mut self, _: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        self.journal.at("trigger").note("cause", Ok(&event.cause)).map(drop)
    }

    fn on_record(&mut self, run: &mut Run<'_>, event: &RecordPut<'_>) -> Result<()> {
        let journal = self.journal.at("record");
        journal.note(&format!("record {} by {}", event.name, event.author), run.current_record()).map(drop)
    }

    fn on_custom(&mut self, _: &mut Run<'_>, event: &Custom<'_>) -> Result<()> {
        let payload = String::from_utf8_lossy(event.payload);
        self.journal.at("custom").note(&format!("{} by {}", event.name, event.author), Ok(payload)).map(drop)
    }

    fn on_artifact(&mut self, _: &mut Run<'_>, event: &ArtifactPublished<'_>) -> Result<()> {
        self.journal.at("artifact").note(&format!("{} by {}", event.kind, event.author), Ok(&event.path)).map(drop)
    }

    fn on_checkpoint(&mut self, run: &mut Run<'_>, event: &Checkpoint<'_>) -> Result<()> {
        let path = format!("services/step-{:08}", event.global_step);
        let journal = self.journal.at("checkpoint");
        journal.note(&format!("write_checkpoint for {}", event.asked_by), run.write_checkpoint(&path))?;
        journal.note("queue_checkpoint", run.queue_checkpoint(&format!("{path}-queued"), &[])).map(drop)
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        Ok(self.steps.to_le_bytes().to_vec())
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.steps = u64::from_le_bytes(state.try_into()?);
        self.journal.at("load_state").note("save_state", Ok(self.steps)).map(drop)
    }

    fn on_stopping(&mut self, _: &mut Run<'_>, event: &Stopping<'_>) -> Result<()> {
        self.journal.at("stopping").note(&format!("stop by {}", event.by), Ok(&event.reason)).map(drop)
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        let journal = self.journal.at("train_end");
        journal.note("outcome", Ok(event.outcome.name()))?;
        journal.note("history_names", run.history_names())?;
        if let Some(remote) = &self.remote {
            journal.note("remote metrics", remote.metrics())?;
        }
        Ok(())
    }

    fn on_teardown(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        match &self.remote {
            // The remote has ended: an error, and no harm.
            Some(remote) => self.journal.at("teardown").note("remote metrics", remote.metrics()).map(drop),
            None => Ok(()),
        }
    }
}

/// A record of each type.
fn records() -> Vec<(&'static str, RecordValue)> {
    let words = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
    vec![
        ("scalar", RecordValue::Scalar { value: f64::INFINITY }),
        ("histogram", RecordValue::Histogram { edges: vec![0.0, 0.5, 1.0], counts: vec![3.0, 1.0] }),
        ("image", RecordValue::Image { width: 2, height: 1, channels: 1, pixels: Blob(vec![0, 255]) }),
        ("text", RecordValue::Text { text: "words".to_owned() }),
        ("table", RecordValue::Table { columns: words(["a", "b"]), rows: vec![words(["1", "2"])] }),
        (
            "curve",
            RecordValue::Curve {
                x_label: "x".to_owned(),
                y_label: "y".to_owned(),
                x: vec![0.0, 1.0],
                y: vec![1.0, 0.0],
            },
        ),
        ("graph", RecordValue::Graph { json: "{}".to_owned() }),
    ]
}

/// A 64-bit hash of all weights.
fn fingerprint(run: &Run<'_>) -> Result<u64> {
    let mut bits = 0xcbf2_9ce4_8422_2325_u64;
    for set in [TensorSet::Parameters, TensorSet::Buffers] {
        for view in run.tensors(set)? {
            // FNV-1a over the elements' bits; integers count batches and are part of the state too.
            let words: Vec<u64> = match view.to_vec::<f32>() {
                Ok(values) => values.into_iter().map(|value| u64::from(value.to_bits())).collect(),
                Err(_) => view.to_vec::<i64>()?.into_iter().map(i64::cast_unsigned).collect(),
            };
            for word in words {
                bits = (bits ^ word).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    Ok(bits)
}

fn owned(run: &Run<'_>, set: TensorSet) -> Result<Vec<Tensor>> {
    run.tensors(set)?.iter().map(TensorView::to_owned).collect()
}

fn zeros(tensor: &Tensor) -> Result<Tensor> {
    let view = tensor.view();
    match view.to_vec::<f32>() {
        Ok(values) => Tensor::new(view.name(), view.shape(), &vec![0_f32; values.len()]),
        Err(_) => view.to_owned(),
    }
}

fn views(tensors: &[Tensor]) -> Vec<TensorView<'_>> {
    tensors.iter().map(Tensor::view).collect()
}

/// Name, element type and shape of each.
fn shapes(views: &[TensorView<'_>]) -> Value {
    views
        .iter()
        .map(|view| json!({ "name": view.name(), "dtype": view.dtype().name(), "shape": view.shape() }))
        .collect()
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Services>(), Kind::of::<batches::Batches>()];
