//! The callback that calls every service. A file of its own: the test of the fake host includes it.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;

use plugin_api::event::{
    ArtifactPublished, At, Checkpoint, CheckpointWritten, Custom, Evaluation, Failed, RecordPut, Stopping, TrainEnd,
    Trigger,
};
use plugin_api::protocol::requests::{
    ArrayPut, Artifact, BatchRequest, ControlRequest, CopyRequest, Custom as CustomRequest, Evaluate, Failure, Freeze,
    HyperParameterSet, LimitBatches, Line, LinesAfter, Measure, MetricPut, Name, OpenSplit, Path, Predict, Profile,
    QueueCheckpoint, Recalibrate, StatusLine, TensorsRequest, TrainSteps,
};
use plugin_api::protocol::{
    Blob, Control, CopyAction, Record, RecordValue, Recording, Tap, TapOf, TapReduce, TensorSet,
};
use plugin_api::{Callback, Creation, Dispatch, Error, EventKind, Need, Remote, Result, Run, ServiceKind, plugin};

/// Where the answers go.
#[plugin]
#[derive(Default)]
pub struct Options {
    /// The file to append to; empty: none.
    path: String,
}

/// Inline, or in the background.
pub struct Matrix<const BACKGROUND: bool> {
    path: String,
    remote: Option<Remote>,
    /// A node and a parameter of the model, for taps.
    parameter: String,
    /// Hooks that have already called: once is enough, and a hook that answers its own records would not end.
    done: BTreeSet<&'static str>,
}

/// A name of the call, and the request.
type Case = (ServiceKind, String, Vec<u8>);

fn bytes<T: plugin_api::serde::Serialize>(request: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(request).expect("a request can be written")
}

/// One request of each service, or several if the answer depends on the request.
fn cases(parameter: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for &service in ServiceKind::ALL {
        let mut add =
            |what: &str, payload: Vec<u8>| cases.push((service, format!("{} {what}", service.name()), payload));
        let name = |name: &str| bytes(&Name { name: name.to_owned() });
        match service {
            ServiceKind::FAULT => add("", bytes(&Failure { message: "nothing".to_owned(), place: String::new() })),
            ServiceKind::METRIC_PUT => add("", bytes(&MetricPut { name: "matrix".to_owned(), value: 1.0 })),
            ServiceKind::RECORD_PUT => {
                let value = RecordValue::Scalar { value: 1.0 };
                add("", bytes(&Record { name: "matrix".to_owned(), value }));
            }
            ServiceKind::HISTORY_SERIES | ServiceKind::HISTORY_LATEST | ServiceKind::HISTORY_ARRAYS => {
                add("unknown", name("zzzzzz"));
            }
            ServiceKind::ARRAY_PUT => {
                add("", bytes(&ArrayPut { name: "array".to_owned(), shape: vec![1], values: vec![1.0] }));
            }
            ServiceKind::HYPER_PARAMETER_SET => {
                for (what, group, name) in [
                    ("every group", None, "learning_rate"),
                    ("unknown group", Some("zzzzzz".to_owned()), "learning_rate"),
                    ("unknown value", None, "zzzzzz"),
                ] {
                    add(what, bytes(&HyperParameterSet { group, name: name.to_owned(), value: 0.001 }));
                }
            }
            ServiceKind::CONTROL => {
                for action in [Control::Resume, Control::SkipUpdate] {
                    add(&format!("{action:?}"), bytes(&ControlRequest { action, reason: String::new() }));
                }
            }
            ServiceKind::TENSOR_LIST | ServiceKind::TENSOR_READ | ServiceKind::TENSOR_WRITE => {
                for set in [
                    TensorSet::Parameters,
                    TensorSet::Buffers,
                    TensorSet::Gradients,
                    TensorSet::Optimizer,
                    TensorSet::Batch,
                    TensorSet::Outputs,
                    TensorSet::Taps,
                    TensorSet::Event,
                    TensorSet::Copy("matrix".to_owned()),
                ] {
                    // Inline, a copy exists from the second hook on; other callers cannot know when.
                    if !matches!(set, TensorSet::Copy(_)) {
                        add(&set.to_string(), bytes(&TensorsRequest { set, names: Vec::new() }));
                    }
                }
            }
            ServiceKind::WEIGHTS_COPY | ServiceKind::TRAINING_STATE_COPY => {
                for action in [CopyAction::Take, CopyAction::Restore, CopyAction::Drop] {
                    add(&format!("{action:?}"), bytes(&CopyRequest { name: "matrix".to_owned(), action }));
                }
                add("unknown", bytes(&CopyRequest { name: "zzzzzz".to_owned(), action: CopyAction::Drop }));
            }
            ServiceKind::TRAIN_STEPS => add("", bytes(&TrainSteps::default())),
            ServiceKind::PREDICT => {
                let split = Some("val".to_owned());
                add("", bytes(&Predict { split, batches: 1, nodes: Vec::new() }));
            }
            ServiceKind::MEASURE => {
                let (split, weights) = ("val".to_owned(), None);
                add("", bytes(&Measure { split, metrics: vec!["loss".to_owned()], weights, batches: None }));
            }
            ServiceKind::EVALUATE => {
                add("", bytes(&Evaluate { expression: "1 + 1".to_owned(), ..Evaluate::default() }));
            }
            ServiceKind::RECALIBRATE_BATCH_NORM => {
                add("", bytes(&Recalibrate { split: "val".to_owned(), batches: 1 }));
            }
            ServiceKind::FREEZE => {
                let freeze = |patterns: &[&str]| {
                    let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
                    bytes(&Freeze { patterns, frozen: true, moving_statistics: false })
                };
                add("none", freeze(&[]));
                add("unknown", freeze(&["zzzzzz"]));
                add("all", freeze(&["*"]));
            }
            ServiceKind::OPEN_SPLIT => {
                // Where it may be called, data at a path is another in each host; a name is not.
                add("", bytes(&OpenSplit { name: "val".to_owned(), path: "matrix".to_owned() }));
            }
            ServiceKind::LIMIT_BATCHES => {
                for (what, split, batches) in
                    [("all", "val", None), ("none", "val", Some(0)), ("unknown", "zzzzzz", Some(1))]
                {
                    add(what, bytes(&LimitBatches { split: split.to_owned(), batches }));
                }
            }
            ServiceKind::BATCH => add("", bytes(&BatchRequest { split: "val".to_owned(), index: 0, all: false })),
            ServiceKind::EMIT => {
                add("", bytes(&CustomRequest { name: "matrix".to_owned(), payload: Blob(Vec::new()) }));
            }
            ServiceKind::WRITE_CHECKPOINT => add("", bytes(&Path { path: "matrix".to_owned() })),
            ServiceKind::HISTORY_REMOVE => add("", name("zzzzzz")),
            ServiceKind::PROFILE => add("", bytes(&Profile { record: Recording::Off })),
            ServiceKind::QUEUE_CHECKPOINT => {
                add("", bytes(&QueueCheckpoint { path: "matrix".to_owned(), instead_of: Vec::new() }));
            }
            ServiceKind::ARTIFACT => {
                add("", bytes(&Artifact { kind: "matrix".to_owned(), path: "matrix".to_owned() }));
            }
            ServiceKind::CONSOLE_LINE => add("", bytes(&Line { text: "asking".to_owned() })),
            ServiceKind::CONSOLE_LINES => add("", bytes(&LinesAfter { after: 0 })),
            ServiceKind::CONSOLE_STATUS => {
                add("", bytes(&StatusLine { name: "matrix".to_owned(), text: String::new(), progress: None }));
            }
            ServiceKind::TAP => {
                let (name, node) = ("matrix".to_owned(), parameter.to_owned());
                add("", bytes(&Tap { name, node, of: TapOf::Gradient, reduce: TapReduce::Norm }));
            }
            ServiceKind::METRIC => {
                add("unknown", name("zzzzzz"));
                add("later", name("val_accuracy"));
            }
            ServiceKind::OPTION => {
                add("", name("path"));
                add("unknown", name("zzzzzz"));
            }
            // Services without a request.
            _ => add("", Vec::new()),
        }
    }
    cases.push((ServiceKind(9_999), "9999".to_owned(), Vec::new()));
    cases
}

impl<const BACKGROUND: bool> Matrix<BACKGROUND> {
    fn ask(&mut self, run: &mut Run<'_>, hook: EventKind) -> Result<()> {
        // Records of others come during `setup`, too, when an instance of the background is not there yet.
        let is_early = matches!(hook, EventKind::RECORD | EventKind::CUSTOM | EventKind::ARTIFACT | EventKind::ERROR)
            && !self.done.contains(EventKind::TRAIN_START.name());
        if self.path.is_empty() || is_early || !self.done.insert(hook.name()) {
            return Ok(());
        }
        if self.remote.is_none() {
            // A record of another comes before this one's own `setup`.
            self.remote = Some(run.remote()?);
            let parameters = run.list(TensorSet::Parameters)?;
            self.parameter = parameters.first().map(|first| first.name.clone()).unwrap_or_default();
        }
        let mut lines = String::new();
        let mut note = |caller: &str, what: &str, answer: Result<Vec<u8>>| {
            let (status, message) = match answer {
                Ok(_) => ("Ok".to_owned(), String::new()),
                Err(error) => (format!("{:?}", error.kind()), error.message().to_owned()),
            };
            let (mode, hook) = (if BACKGROUND { "background" } else { "inline" }, hook.name());
            let key = format!("{mode} {hook} {caller} {what}");
            let line = serde_json::json!({ "key": key.trim(), "answer": format!("{status} {message}").trim() });
            lines.push_str(&format!("{line}\n"));
        };
        for (service, what, payload) in cases(&self.parameter) {
            note("hook", &what, run.call_raw(service, &payload, &[]));
            // Remotes see new values at once; a hook in the background cannot know when.
            let is_settled = !BACKGROUND || what != "metric later";
            if let Some(remote) = self.remote.as_ref().filter(|_| is_settled) {
                note("remote", &what, remote.call_raw(service, &payload));
            }
        }
        let opened = OpenOptions::new().create(true).append(true).open(&self.path);
        opened.and_then(|mut file| file.write_all(lines.as_bytes())).map_err(Error::from)
    }
}

#[plugin]
impl<const BACKGROUND: bool> Callback for Matrix<BACKGROUND> {
    const KIND: &'static str = if BACKGROUND { "matrix-background" } else { "matrix" };
    const SUMMARY: &'static str = "Asks for every service in every hook";
    const BY_DEFAULT: bool = false;
    const DISPATCH: Dispatch = if BACKGROUND { Dispatch::Background } else { Dispatch::Inline };
    const NEEDS: &'static [Need] = &[
        Need::parameters(EventKind::EPOCH_END),
        Need::gradients(EventKind::GRADIENTS),
        Need::outputs(EventKind::STEP_END),
        Need::TRAINING_STATE,
    ];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { path: options.path, remote: None, parameter: String::new(), done: BTreeSet::new() })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.ask(run, EventKind::SETUP)
    }
    fn on_load_state(&mut self, run: &mut Run<'_>, _: &[u8]) -> Result<()> {
        self.ask(run, EventKind::LOAD_STATE)
    }
    fn on_save_state(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        self.ask(run, EventKind::SAVE_STATE)?;
        Ok(Vec::new())
    }
    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.ask(run, EventKind::TRAIN_START)
    }
    fn on_train_end(&mut self, run: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        self.ask(run, EventKind::TRAIN_END)
    }
    fn on_epoch_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.ask(run, EventKind::EPOCH_START)
    }
    fn on_epoch_trained(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.ask(run, EventKind::EPOCH_TRAINED)
    }
    fn on_epoch_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.ask(run, EventKind::EPOCH_END)
    }
    fn on_step_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.ask(run, EventKind::STEP_START)
    }
    fn on_gradients(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.ask(run, EventKind::GRADIENTS)
    }
    fn on_step_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.ask(run, EventKind::STEP_END)
    }
    fn on_eval_start(&mut self, run: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        self.ask(run, EventKind::EVAL_START)
    }
    fn on_eval_step_start(&mut self, run: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        self.ask(run, EventKind::EVAL_STEP_START)
    }
    fn on_eval_step_end(&mut self, run: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        self.ask(run, EventKind::EVAL_STEP_END)
    }
    fn on_eval_end(&mut self, run: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        self.ask(run, EventKind::EVAL_END)
    }
    fn on_trigger(&mut self, run: &mut Run<'_>, _: &Trigger<'_>) -> Result<()> {
        self.ask(run, EventKind::TRIGGER)
    }
    fn on_record(&mut self, run: &mut Run<'_>, _: &RecordPut<'_>) -> Result<()> {
        self.ask(run, EventKind::RECORD)
    }
    fn on_custom(&mut self, run: &mut Run<'_>, _: &Custom<'_>) -> Result<()> {
        self.ask(run, EventKind::CUSTOM)
    }
    fn on_checkpoint(&mut self, run: &mut Run<'_>, _: &Checkpoint<'_>) -> Result<()> {
        self.ask(run, EventKind::CHECKPOINT)
    }
    fn on_checkpoint_written(&mut self, run: &mut Run<'_>, _: &CheckpointWritten<'_>) -> Result<()> {
        self.ask(run, EventKind::CHECKPOINT_WRITTEN)
    }
    fn on_artifact(&mut self, run: &mut Run<'_>, _: &ArtifactPublished<'_>) -> Result<()> {
        self.ask(run, EventKind::ARTIFACT)
    }
    fn on_stopping(&mut self, run: &mut Run<'_>, _: &Stopping<'_>) -> Result<()> {
        self.ask(run, EventKind::STOPPING)
    }
    fn on_trained(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.ask(run, EventKind::TRAINED)
    }
    fn on_error(&mut self, run: &mut Run<'_>, _: &Failed<'_>) -> Result<()> {
        self.ask(run, EventKind::ERROR)
    }
    fn on_teardown(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.ask(run, EventKind::TEARDOWN)
    }
}
