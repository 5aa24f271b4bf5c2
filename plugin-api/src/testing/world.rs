//! The state of a fake host: what the test has set, what the callback did, and the hook in progress.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::host_call::RemoteSide;
use crate::abi::kinds::{EventKind, ServiceKind, Status};
use crate::error::{Error, Result};
use crate::event::Position;
use crate::protocol::requests::{
    Artifact, ControlRequest, Custom, Evaluate, Failure, Measure, OpenSplit, Predict, Recalibrate, StatusLine,
};
use crate::protocol::{
    ArrayPoint, CheckpointWritten, Evaluated, HookTime, Need, ParameterGroup, Point, Record, Recording, RunInfo, Span,
    Tap, TensorSet,
};
use crate::services::{Caller, Refusal};
use crate::tensor::Tensor;

pub(super) type PredictAnswer = Box<dyn FnMut(&Predict, &[Tensor]) -> Result<Vec<Tensor>>>;
pub(super) type MeasureAnswer = Box<dyn FnMut(&Measure) -> Result<BTreeMap<String, f64>>>;
pub(super) type EvaluateAnswer = Box<dyn FnMut(&Evaluate) -> Result<Evaluated>>;
pub(super) type TrainStepsAnswer = Box<dyn FnMut(u64) -> Result<Vec<f64>>>;
pub(super) type Tensors = BTreeMap<TensorSet, Vec<Tensor>>;

/// The data that services answer from. The callback changes the same parts as in a real host.
pub(super) struct Given {
    pub(super) info: RunInfo,
    /// The latest value of each metric of the run; `None` if it has none.
    pub(super) metrics: BTreeMap<String, Option<f64>>,
    pub(super) options: serde_json::Value,
    pub(super) needs: Vec<Need>,
    pub(super) caller: Caller,
    pub(super) history: BTreeMap<String, Vec<Point>>,
    pub(super) arrays: BTreeMap<String, Vec<ArrayPoint>>,
    pub(super) groups: Vec<ParameterGroup>,
    pub(super) tensors: Tensors,
    pub(super) training_states: BTreeMap<String, (Tensors, Vec<ParameterGroup>)>,
    pub(super) batches: BTreeMap<String, Vec<Vec<Tensor>>>,
    pub(super) loss: Option<f64>,
    pub(super) times: Vec<HookTime>,
    /// What the next call of `profile` answers.
    pub(super) spans: Vec<Span>,
    pub(super) graph: Option<serde_json::Value>,
    pub(super) predict: Option<PredictAnswer>,
    pub(super) measure: Option<MeasureAnswer>,
    pub(super) evaluate: Option<EvaluateAnswer>,
    pub(super) train_steps: Option<TrainStepsAnswer>,
    /// Services that the test makes fail, with the message.
    pub(super) failing: BTreeMap<ServiceKind, String>,
}

/// What the callback did, in order.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) requests: Vec<ControlRequest>,
    pub(super) records: Vec<Record>,
    pub(super) emitted: Vec<Custom>,
    /// What each of these carried.
    pub(super) emitted_tensors: Vec<Vec<Tensor>>,
    pub(super) lines: Vec<String>,
    pub(super) statuses: BTreeMap<String, StatusLine>,
    pub(super) artifacts: Vec<Artifact>,
    pub(super) checkpoints: Vec<CheckpointWritten>,
    /// The checkpoints that wait to be written; the first is being written.
    pub(super) queued: Vec<String>,
    /// What the callback records.
    pub(super) recording: Option<Recording>,
    pub(super) taps: Vec<Tap>,
    pub(super) recalibrations: Vec<Recalibrate>,
    /// The frozen parameters, and whether the statistics of their batch norm move.
    pub(super) frozen: BTreeMap<String, bool>,
    pub(super) opened: Vec<OpenSplit>,
    /// The limits of batches by split.
    pub(super) limits: BTreeMap<String, u64>,
    pub(super) logs: Vec<String>,
}

/// The hook in progress, or the last one.
pub(super) struct Hook {
    pub(super) event: EventKind,
    pub(super) position: Position,
    pub(super) record: Option<Record>,
    pub(super) state: Option<Vec<u8>>,
    pub(super) fault: Option<Failure>,
    /// What is lent to the callback until the hook returns.
    pub(super) lent: Vec<Tensor>,
}

pub(super) struct World {
    pub(super) given: Given,
    pub(super) seen: Seen,
    pub(super) hook: Hook,
    pub(super) remote: Arc<RemoteSide>,
    /// The requests of a hook in the background, until it has returned.
    pub(super) later: Vec<(ServiceKind, Vec<u8>)>,
}

impl World {
    /// A run of 3 epochs of 10 steps, 32 samples each, on the CPU.
    pub(super) fn new(instance: &str, folder: &std::path::Path) -> Self {
        let info = RunInfo {
            rank: 0,
            world_size: 1,
            instance: instance.to_owned(),
            name: "test".to_owned(),
            folder: folder.display().to_string(),
            run_file: "{}".to_owned(),
            host_version: env!("CARGO_PKG_VERSION").to_owned(),
            device: "cpu".to_owned(),
            epochs: 3,
            steps_per_epoch: 10,
            total_steps: 30,
            training_samples: 320,
            metrics: Vec::new(),
            resumed_from: None,
            previous_end: None,
            data: crate::protocol::DataInfo::default(),
            job: "train".to_owned(),
            trial: false,
            lora: None,
            console_width: 0,
            console_colors: false,
        };
        let given = Given {
            info,
            metrics: BTreeMap::new(),
            options: serde_json::Value::Null,
            needs: Vec::new(),
            caller: Caller::Inline,
            history: BTreeMap::new(),
            arrays: BTreeMap::new(),
            groups: Vec::new(),
            tensors: BTreeMap::new(),
            training_states: BTreeMap::new(),
            batches: BTreeMap::new(),
            loss: None,
            times: Vec::new(),
            spans: Vec::new(),
            graph: None,
            predict: None,
            measure: None,
            evaluate: None,
            train_steps: None,
            failing: BTreeMap::new(),
        };
        let hook = Hook {
            event: EventKind::SETUP,
            position: Position::default(),
            record: None,
            state: None,
            fault: None,
            lent: Vec::new(),
        };
        Self { given, seen: Seen::default(), hook, remote: Arc::default(), later: Vec::new() }
    }

    /// Puts a metric as the host does: its latest value, and a point of the history at the position.
    pub(super) fn put_metric(&mut self, name: &str, value: f64) {
        let Position { epoch, global_step, .. } = self.hook.position;
        self.given.history.entry(name.to_owned()).or_default().push(Point { epoch, global_step, value });
        self.given.metrics.insert(name.to_owned(), Some(value));
        self.remote.metric(name, Some(value));
    }

    /// Puts an array into the history at the position.
    pub(super) fn put_array(&mut self, name: &str, shape: Vec<u64>, values: Vec<f32>) {
        let Position { epoch, global_step, .. } = self.hook.position;
        let point = ArrayPoint { epoch, global_step, shape, values };
        self.given.arrays.entry(name.to_owned()).or_default().push(point);
    }

    /// The run folder.
    pub(super) fn folder(&self) -> PathBuf {
        PathBuf::from(&self.given.info.folder)
    }
}

/// A refusal of the table, as an error.
pub(super) fn refused(refusal: Refusal) -> Error {
    Error::of_service(refusal.status, refusal.message)
}

/// There is no `what` called `name`: the message of every host.
pub(super) fn no_such_name<'n>(what: &str, name: &str, names: impl IntoIterator<Item = &'n str>) -> Error {
    Error::of_service(Status::NO_SUCH_NAME, crate::services::no_such_name(what, name, names))
}
