//! The run that `check` simulates: a small model, two splits, metrics and a history, without any training.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, RwLock};

use plugin_api::abi::kinds::EventKind;
use plugin_api::protocol::{CheckpointWritten, DataInfo, ParameterGroup, RunInfo, Tap, TapOf, TapReduce, TensorSet};

use super::model::forward;
use super::tensors::Values;
use crate::history::{History, HistoryView, Metrics, Position};
use crate::model::{Dtype, Frozen, Graph, ModelError, ModelOptions, TensorSpec};
use crate::report::Problem;
use crate::services::{Screen, ServiceError, Snapshot, WeightsOrigin};

/// Epochs of the simulated run.
pub(super) const EPOCHS: u64 = 2;
/// Steps of an epoch.
pub(super) const STEPS: u64 = 4;
/// Samples of a batch.
pub(super) const BATCH: i64 = 8;
/// Batches of an evaluation.
pub(super) const EVALUATION_BATCHES: u64 = 2;
/// The splits and how many batches each has.
pub(super) const SPLITS: [(&str, u64); 2] = [("train", STEPS), ("val", EVALUATION_BATCHES)];

/// The metrics that it gives whatever it predicts.
const METRICS: [&str; 5] = ["train_loss", "learning_rate", "epoch_seconds", "step_seconds", "val_loss"];

/// The shape of one sample: an image of one channel.
const SAMPLE: [i64; 3] = [1, 4, 4];
const CLASSES: i64 = 3;

/// What the simulated run predicts. A plugin may be for one of them only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// One of three classes.
    Classes,
    /// A number.
    Number,
}

impl Task {
    /// The metric beside the loss.
    pub(super) fn metric(self) -> &'static str {
        match self {
            Self::Classes => "accuracy",
            Self::Number => "mae",
        }
    }

    fn outputs(self) -> i64 {
        match self {
            Self::Classes => CLASSES,
            Self::Number => 1,
        }
    }

    /// A batch: `inputs`, then `targets`.
    pub(super) fn batch(self, index: u64) -> [Values; 2] {
        let shape = std::iter::once(BATCH).chain(SAMPLE).collect();
        let offset = index as usize;
        let targets = match self {
            Self::Classes => Values::i64("targets", vec![BATCH], |element| (element as i64 + index as i64) % CLASSES),
            Self::Number => Values::f32("targets", vec![BATCH, 1], |element| (element + offset) as f32 / 8.0),
        };
        [Values::f32("inputs", shape, |element| ((element + offset) % 16) as f32 / 16.0), targets]
    }

    fn training_metrics(self, position: Position) -> [(String, f64); 3] {
        let loss = 1.0 / (position.global_step as f64 + 1.0);
        let metrics = [("train_loss", loss), ("learning_rate", 1e-3)].map(|(name, value)| (name.to_owned(), value));
        let [loss_metric, rate] = metrics;
        [loss_metric, (format!("train_{}", self.metric()), 1.0 - loss / 2.0), rate]
    }
}

/// The model, without the width of its output.
const MODEL: &str = r#"
layers = [
  { type = "conv2d", out_channels = 2, kernel_size = 3, padding = 1 },
  { type = "batch_norm" },
  { type = "relu" },
  { type = "flatten" },
  { type = "linear", out_features = OUTPUTS },
]
"#;

/// Parameters and buffers.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    pub(super) parameters: Vec<Values>,
    pub(super) buffers: Vec<Values>,
}

/// Everything that the services answer from. A clone is a snapshot.
#[derive(Clone)]
pub(super) struct World {
    pub(super) task: Task,
    pub(super) info: RunInfo,
    pub(super) graph: Arc<Graph>,
    pub(super) weights: Weights,
    pub(super) gradients: Vec<Values>,
    pub(super) optimizer: Vec<Values>,
    pub(super) batch: [Values; 2],
    pub(super) metrics: Metrics,
    pub(super) history: History,
    pub(super) groups: Vec<ParameterGroup>,
    pub(super) copies: BTreeMap<String, Weights>,
    pub(super) training_states: BTreeMap<String, Weights>,
    pub(super) taps: Vec<Tap>,
    pub(super) frozen: Frozen,
    /// The splits that were added, of two batches each.
    pub(super) opened: BTreeSet<String>,
}

/// The world cannot be set up: an error of the host.
fn broken(error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::new("the simulated run cannot be set up").with_cause(error)
}

impl World {
    /// A run in `folder`, before its training.
    pub(super) fn new(folder: &Path, task: Task) -> Result<Self, Problem> {
        let model = MODEL.replace("OUTPUTS", &task.outputs().to_string());
        let options: ModelOptions = toml::from_str(&model).map_err(|error| broken(&error))?;
        let graph = options.lower(&SAMPLE, Dtype::F32).map_err(|error: ModelError| broken(&error))?;
        let parameters: Vec<Values> =
            graph.nodes().iter().flat_map(|node| &node.parameters).map(|spec| filled(spec, 0.1)).collect();
        let buffers = graph.nodes().iter().flat_map(|node| &node.buffers).map(|spec| filled(spec, 1.0)).collect();
        let gradients = parameters.iter().map(|parameter| like(parameter, parameter.name.clone(), 0.01)).collect();
        let state = |name: &str, value| {
            let name = name.to_owned();
            parameters.iter().map(move |parameter| like(parameter, format!("{name}.{}", parameter.name), value))
        };
        let optimizer = state("exp_avg", 0.0).chain(state("exp_avg_sq", 0.0)).collect();
        let values = [("learning_rate", 1e-3), ("weight_decay", 0.01)];
        let groups = vec![ParameterGroup {
            name: "all".to_owned(),
            values: values.map(|(name, value)| (name.to_owned(), value)).into(),
            owners: BTreeMap::new(),
        }];
        let mut known: BTreeSet<String> = METRICS.map(str::to_owned).into();
        known.extend(SPLITS.map(|(split, _)| format!("{split}_{}", task.metric())));
        let info = RunInfo {
            metrics: known.iter().cloned().collect(),
            name: "check".to_owned(),
            folder: folder.display().to_string(),
            run_file: serde_json::json!({ "run": { "name": "check" }, "train": { "epochs": EPOCHS }, "eval": { "split": "val" } }).to_string(),
            host_version: env!("CARGO_PKG_VERSION").to_owned(),
            device: "cpu".to_owned(),
            epochs: EPOCHS,
            steps_per_epoch: STEPS,
            total_steps: EPOCHS * STEPS,
            training_samples: STEPS * BATCH.unsigned_abs(),
            data: DataInfo {
                splits: SPLITS.map(|(name, batches)| (name.to_owned(), batches * BATCH.unsigned_abs())).into(),
                classes: if task == Task::Classes { CLASSES.unsigned_abs() } else { 0 },
                ..DataInfo::default()
            },
            // A plugin must not publish simulated results.
            trial: true,
            ..RunInfo::default()
        };
        Ok(Self {
            task,
            info,
            graph: Arc::new(graph),
            weights: Weights { parameters, buffers },
            gradients,
            optimizer,
            batch: task.batch(0),
            metrics: Metrics::new(known),
            history: History::new(),
            groups,
            copies: BTreeMap::new(),
            training_states: BTreeMap::new(),
            taps: Vec::new(),
            frozen: Frozen::default(),
            opened: BTreeSet::new(),
        })
    }

    /// Puts a metric, also into the history.
    pub(super) fn put(&mut self, name: &str, position: Position, value: f64) -> Result<(), ServiceError> {
        self.history.put(name, position, value).map_err(|error| ServiceError::Failed(error.to_string()))?;
        self.metrics.put(name, position, value);
        Ok(())
    }

    /// The metrics of a step, which go into the history only at the end of the epoch.
    pub(super) fn after_step(&mut self, position: Position) {
        for (name, value) in self.task.training_metrics(position) {
            self.metrics.put(&name, position, value);
        }
    }

    /// The metrics of an epoch's last step.
    pub(super) fn after_epoch(&mut self, position: Position) {
        let seconds = [("epoch_seconds", 0.4), ("step_seconds", 0.1)].map(|(name, value)| (name.to_owned(), value));
        for (name, value) in self.task.training_metrics(position).into_iter().chain(seconds) {
            // These names hold numbers, unless a plugin put an array under one.
            let _ = self.put(&name, position, value);
        }
    }

    /// The metrics of an evaluation.
    pub(super) fn after_evaluation(&mut self, position: Position) {
        let loss = 1.1 / (position.global_step as f64 + 1.0);
        for (name, value) in [("loss", loss), (self.task.metric(), 1.0 - loss / 2.0)] {
            let _ = self.put(&format!("val_{name}"), position, value);
        }
    }

    /// The tensors of a set at `hook`; the table of services permits reading them.
    pub(super) fn set(&self, set: &TensorSet, hook: EventKind) -> Result<Vec<Values>, ServiceError> {
        match set {
            TensorSet::Parameters => Ok(self.weights.parameters.clone()),
            TensorSet::Buffers => Ok(self.weights.buffers.clone()),
            TensorSet::Optimizer => Ok(self.optimizer.clone()),
            TensorSet::Gradients => Ok(self.gradients.clone()),
            TensorSet::Batch => Ok(self.batch.to_vec()),
            TensorSet::Outputs => {
                let outputs = forward(self, &self.batch[0])?.pop();
                Ok(outputs.map(|outputs| outputs.named("outputs")).into_iter().collect())
            }
            TensorSet::Taps => {
                let gradients = hook != EventKind::EVAL_STEP_END;
                let taps = self.taps.iter().filter(|tap| gradients || tap.of == TapOf::Activation);
                taps.map(|tap| self.tapped(tap)).collect()
            }
            TensorSet::Copy(name) => {
                let copy = self.copies.get(name).ok_or_else(|| {
                    ServiceError::no_such_name("copy of the weights", name, self.copies.keys().map(String::as_str))
                })?;
                Ok(copy.parameters.iter().chain(&copy.buffers).cloned().collect())
            }
            other => Err(ServiceError::NotAllowed(format!("the simulated run has no tensors `{other}`"))),
        }
    }

    /// Everything that services read, at this moment, with the tensors of `sets`.
    pub(super) fn snapshot<'s>(
        &self,
        hook: EventKind,
        position: Position,
        sets: impl IntoIterator<Item = &'s TensorSet>,
    ) -> Snapshot {
        let tensors = sets
            .into_iter()
            .filter_map(|set| Some((set.to_string(), self.set(set, hook).ok()?.iter().map(Values::shared).collect())))
            .collect();
        Snapshot {
            info: self.info.clone(),
            position,
            metrics: self.metrics.clone(),
            history: HistoryView::now(Arc::new(RwLock::new(self.history.clone()))),
            groups: self.groups.clone(),
            merged: Default::default(),
            graph: serde_json::to_string(&*self.graph)
                .map(Into::into)
                .map_err(|error| ServiceError::Failed(error.to_string())),
            loss: Some(0.5),
            tensors,
            checkpoint: Some(Box::new(write_checkpoint)),
            inference: Some(Arc::new(self.clone())),
            weights: WeightsOrigin { position, since: None },
            expressions: Arc::default(),
            screen: Arc::new(NoScreen),
            seconds: 1.0,
        }
    }

    /// Checks that a tap can be fetched.
    pub(super) fn check_tap(&self, tap: &Tap) -> Result<(), ServiceError> {
        self.tapped(tap).map(drop)
    }

    fn tapped(&self, tap: &Tap) -> Result<Values, ServiceError> {
        let whole = match tap.of {
            TapOf::Activation => self.node(&tap.node, BATCH)?,
            TapOf::Gradient => {
                let names = self.gradients.iter().map(|gradient| gradient.name.as_str());
                let found = self.gradients.iter().find(|gradient| gradient.name == tap.node);
                found.cloned().ok_or_else(|| ServiceError::no_such_name("parameter", &tap.node, names))?
            }
        };
        Ok(match tap.reduce {
            TapReduce::Whole => whole.named(&tap.name),
            TapReduce::Mean | TapReduce::Norm => Values::f32(&tap.name, Vec::new(), |_| 0.1),
            TapReduce::MinMax => Values::f32(&tap.name, vec![2], |index| index as f32),
            TapReduce::Histogram => Values::f32(&tap.name, vec![64], |_| 1.0),
            TapReduce::NonFinite => Values::f32(&tap.name, Vec::new(), |_| 0.0),
        })
    }

    /// The value of a node for `samples` samples.
    pub(super) fn node(&self, name: &str, samples: i64) -> Result<Values, ServiceError> {
        let nodes = self.graph.nodes();
        let node = nodes
            .iter()
            .find(|node| node.name == name)
            .ok_or_else(|| ServiceError::no_such_name("node", name, nodes.iter().map(|node| node.name.as_str())))?;
        let shape = std::iter::once(samples).chain(node.shape.iter().copied()).collect();
        Ok(Values::f32(name, shape, |index| (index % 7) as f32 / 7.0))
    }
}

/// A console that shows nothing.
struct NoScreen;

impl Screen for NoScreen {
    fn line(&self, _: &str) {}
    fn status(&self, _: &str, _: &str, _: Option<f64>) {}
}

/// Writes a folder with a manifest in place of a checkpoint.
pub(super) fn write_checkpoint(folder: &Path) -> Result<CheckpointWritten, ServiceError> {
    let existed = folder.is_dir();
    let failed = |error: std::io::Error| ServiceError::Failed(format!("cannot write `{}`: {error}", folder.display()));
    let manifest = "{}\n";
    std::fs::create_dir_all(folder).map_err(failed)?;
    std::fs::write(folder.join("manifest.json"), manifest).map_err(failed)?;
    Ok(CheckpointWritten { path: folder.display().to_string(), bytes: manifest.len() as u64, existed })
}

fn filled(spec: &TensorSpec, value: f32) -> Values {
    match spec.dtype {
        Dtype::F32 => Values::f32(&spec.name, spec.shape.clone(), |_| value),
        Dtype::I64 => Values::i64(&spec.name, spec.shape.clone(), |_| 0),
    }
}

fn like(tensor: &Values, name: String, value: f32) -> Values {
    Values::f32(name, tensor.shape.clone(), |_| value)
}
