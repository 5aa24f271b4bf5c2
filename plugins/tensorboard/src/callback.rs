//! The callback.

use std::collections::BTreeMap;

use monitor::ConfusionMatrix;
use plugin_api::event::{At, Evaluation, Position, RecordPut, TrainEnd, Trigger};
use plugin_api::protocol::{RecordValue, RunInfo, Tap, TapOf, TapReduce, TensorSet};
use plugin_api::{
    Callback, Creation, Dispatch, Error, ErrorKind, EventKind, Need, Result, Run, decode_state, encode_state, plugin,
    tracing,
};
use serde::{Deserialize, Serialize};

use crate::examples::Examples;
use crate::features::Features;
use crate::options::{Options, folder_name};
use crate::proto::{HparamValue, Value, What};
use crate::runs::{Lengths, Resumed, Runs, TRAIN, WHOLE};
use crate::values::floats;
use crate::{confusion, graph, histogram, hparams, records, summary};

/// The state in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    triggers: u64,
    /// The best value of the metric in `basis`.
    best: Option<f64>,
    /// The step at which each metric was last written.
    written: BTreeMap<String, u64>,
    /// How long the event files were at which step; checkpoints of older versions do not say it. The step tells a state
    /// that a later checkpoint has, since saving another failed.
    lengths: Option<(u64, Lengths)>,
}

/// Writes event files for TensorBoard.
pub struct TensorBoard {
    options: Options,
    instance: String,
    state: State,
    /// Opened in `train_start`.
    runs: Option<Runs>,
    /// The name of the run, and its hyper-parameters.
    name: String,
    hparams: BTreeMap<String, HparamValue>,
    splits: Vec<String>,
    split: Option<String>,
    examples: Option<Examples>,
    features: Option<Features>,
}

#[plugin]
impl Callback for TensorBoard {
    const KIND: &'static str = "tensorboard";
    const SUMMARY: &'static str = "Writes event files for TensorBoard";
    const DISPATCH: Dispatch = Dispatch::Background;
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[
        Need::parameters(EventKind::TRIGGER),
        Need::gradients(EventKind::TRIGGER),
        Need::taps(EventKind::EVAL_STEP_END),
    ];
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        options.check()?;
        Ok(Self {
            options,
            instance: creation.instance.to_owned(),
            state: State::default(),
            runs: None,
            name: String::new(),
            hparams: BTreeMap::new(),
            splits: Vec::new(),
            split: None,
            examples: None,
            features: None,
        })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let info = run.info()?;
        self.splits = info.data.splits.keys().cloned().chain([TRAIN.to_owned()]).collect();
        // The longest first, so that `val_small_loss` belongs to `val_small`.
        self.splits.sort_by_key(|split| std::cmp::Reverse(split.len()));
        let folder = self.options.folder(&info);
        std::fs::create_dir_all(&folder)
            .map_err(|error| Error::from(error).context(format!("cannot create the folder `{}`", folder.display())))?;
        if self.options.image_shape.is_some() || self.options.embeddings > 0 {
            self.prepare_samples(run, &info)?;
        }
        Ok(())
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.state = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, event: &At<'_>) -> Result<Vec<u8>> {
        // Everything before the checkpoint must be on the disk.
        if let Some(runs) = &mut self.runs {
            runs.flush()?;
            self.state.lengths = Some((event.global_step, runs.lengths()?));
        }
        encode_state(&self.state)
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let info = run.info()?;
        let folder = self.options.folder(&info);
        let lengths = self.state.lengths.take().filter(|(step, _)| *step == event.global_step);
        let resumed = Resumed { step: event.global_step, lengths: lengths.map(|(_, lengths)| lengths) };
        let mut runs = Runs::begin(folder, &self.instance, resumed, self.options.flush_every()?)?;
        self.hparams = hparams::of_run_file(&serde_json::from_str(&info.run_file).unwrap_or_default());
        self.name = info.name;
        runs.begin_whole(event.global_step, hparams::start(&self.name, self.hparams.clone()))?;
        match run.graph() {
            Ok(graph) => runs.append(TRAIN, event.global_step, What::GraphDef(graph::graph_def(&graph)))?,
            // A model without a graph has no picture of one.
            Err(error) if error.kind() == ErrorKind::NoSuchName => {}
            Err(error) => return Err(error),
        }
        runs.flush()?;
        self.runs = Some(runs);
        run.publish("tensorboard", &self.options.log_dir)
    }

    fn on_eval_step_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        if self.split.as_deref() != Some(&*event.split) {
            return Ok(());
        }
        if let Some(examples) = self.examples.as_mut().filter(|_| event.batch <= 1) {
            examples.predicted(run, &run.tensor(TensorSet::Taps, &tap_name(&self.instance, "outputs"))?)?;
        }
        if let Some(features) = &mut self.features {
            features.add(run, event.batch, &run.tensor(TensorSet::Taps, &tap_name(&self.instance, "features"))?)?;
        }
        Ok(())
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        let metrics = run.current_metrics(event.global_step)?;
        self.scalars(&metrics, event, |split| split == event.split)?;
        self.matrices(run, event)
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let metrics = run.current_metrics(event.global_step)?;
        self.scalars(&metrics, event, |_| true)?;
        self.matrices(run, event)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        let metrics = run.metrics()?;
        self.scalars(&metrics, event, |split| split == TRAIN)?;
        self.state.triggers += 1;
        if !self.improved(run)? {
            return Ok(());
        }
        if self.options.every > 0 && self.state.triggers.is_multiple_of(self.options.every) {
            for (group, set) in [("weights", TensorSet::Parameters), ("gradients", TensorSet::Gradients)] {
                let values = histograms(run, group, set)?;
                self.put(TRAIN, event, values)?;
            }
        }
        if let (Some(examples), Some(split)) = (&mut self.examples, self.split.clone()) {
            let values = examples.values()?;
            self.put(&split, event, values)?;
        }
        if let (Some(features), Some(runs)) = (&self.features, &self.runs) {
            features.write(runs.folder())?;
        }
        Ok(())
    }

    fn on_record(&mut self, run: &mut Run<'_>, event: &RecordPut<'_>) -> Result<()> {
        let (split, tag) = self.route(&event.name);
        let (split, tag) = (split.to_owned(), summary::tag(tag));
        if let Some(value) = event.scalar {
            return self.put(&split, event, vec![summary::scalar(&tag, value)]);
        }
        if !records::is_known(&event.type_name) {
            return Ok(());
        }
        let Some(runs) = &mut self.runs else { return Ok(()) };
        match run.current_record()?.value {
            RecordValue::HyperParameters { values } => {
                self.hparams.extend(values.iter().map(|(name, value)| (name.clone(), hparams::recorded(value))));
                runs.begin_whole(event.global_step, hparams::start(&self.name, self.hparams.clone()))
            }
            value => match records::event(&tag, &value) {
                Ok(Some(what)) => runs.append(&folder_name(&split), event.global_step, what),
                Ok(None) => Ok(()),
                // An error of its author must not stop the records of others.
                Err(error) => {
                    tracing::warn!("a record of `{}` was skipped: {error}", event.author);
                    Ok(())
                }
            },
        }
    }

    fn on_train_end(&mut self, _: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        let Some(runs) = &mut self.runs else { return Ok(()) };
        runs.summary(WHOLE, event.global_step, vec![hparams::end(event.outcome)])?;
        runs.flush()
    }

    fn on_teardown(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        // Records since `train_end`.
        self.runs.as_mut().map_or(Ok(()), Runs::flush)
    }
}

impl TensorBoard {
    /// Reads the samples that are shown later, and requests the model's outputs for them.
    fn prepare_samples(&mut self, run: &mut Run<'_>, info: &RunInfo) -> Result<()> {
        let run_file: serde_json::Value = serde_json::from_str(&info.run_file).unwrap_or_default();
        let split = run_file.pointer("/eval/split").and_then(serde_json::Value::as_str);
        let split = split.ok_or_else(|| {
            Error::new("`image_shape` and `embeddings` show samples of the evaluated split: set `split` in `[eval]`")
        })?;
        let graph = run.graph()?;
        if let Some(shape) = self.options.image_shape {
            self.examples = Some(Examples::read(run, info, split, self.options.images, shape)?);
            self.tap(run, "outputs", &graph.output)?;
        }
        if self.options.embeddings > 0 {
            let is_node = |name: &&String| graph.nodes.iter().any(|node| node.name == **name);
            let last = graph.nodes.iter().find(|node| node.name == graph.output);
            // The only node of a model reads the samples themselves.
            let before = last.and_then(|last| last.inputs.first()).filter(is_node);
            let node = self.options.embedding_node.as_ref().or(before).unwrap_or(&graph.output).clone();
            self.tap(run, "features", &node)?;
            self.features = Some(Features::read(run, info, split, self.options.embeddings, node)?);
        }
        self.split = Some(split.to_owned());
        Ok(())
    }

    fn tap(&self, run: &mut Run<'_>, name: &str, node: &str) -> Result<()> {
        let (name, node) = (tap_name(&self.instance, name), node.to_owned());
        run.tap(&Tap { name, node, of: TapOf::Activation, reduce: TapReduce::Whole })
    }

    /// Writes the metrics of the `wanted` splits, each at most once per step.
    fn scalars(
        &mut self,
        metrics: &BTreeMap<String, f64>,
        position: &Position,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let mut by_split: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (name, value) in metrics {
            let (split, tag) = self.route(name);
            if !wanted(split) || self.state.written.get(name) == Some(&position.global_step) {
                continue;
            }
            by_split.entry(split.to_owned()).or_default().push(summary::scalar(&summary::tag(tag), *value));
            self.state.written.insert(name.clone(), position.global_step);
        }
        by_split.into_iter().try_for_each(|(split, values)| self.put(&split, position, values))
    }

    /// Writes the confusion matrices that were measured here, each once.
    fn matrices(&mut self, run: &Run<'_>, position: &Position) -> Result<()> {
        for matrix in ConfusionMatrix::of_step(run, position.global_step)? {
            if self.state.written.insert(matrix.name.clone(), matrix.step) == Some(matrix.step) {
                continue;
            }
            let (split, tag) = self.route(&matrix.name);
            let (split, value) = (split.to_owned(), confusion::summary(&summary::tag(tag), &matrix)?);
            self.put(&split, position, vec![value])?;
        }
        Ok(())
    }

    fn put(&mut self, split: &str, position: &Position, values: Vec<Value>) -> Result<()> {
        match &mut self.runs {
            Some(runs) => runs.summary(&folder_name(split), position.global_step, values),
            None => Ok(()),
        }
    }

    /// The split of a metric or record, and its name there.
    fn route<'n>(&self, name: &'n str) -> (&str, &'n str) {
        for split in &self.splits {
            let rest = name.strip_prefix(split.as_str()).and_then(|rest| rest.strip_prefix(['_', '/']));
            if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                return (split, rest);
            }
        }
        (TRAIN, name)
    }

    /// Whether the metric in `basis` is the best so far; without `basis`, always.
    fn improved(&mut self, run: &Run<'_>) -> Result<bool> {
        let Some((metric, mode)) = self.options.basis.iter().flatten().next() else { return Ok(true) };
        // Before the first evaluation there is nothing to compare.
        let Some(value) = run.latest_metric(metric).map_err(|error| error.context("`basis`"))? else {
            return Ok(false);
        };
        let improved = !value.is_nan() && self.state.best.is_none_or(|best| mode.better(value, best));
        if improved {
            self.state.best = Some(value);
        }
        Ok(improved)
    }
}

/// Histograms of all tensors of a set, and the number of NaN and infinite values in each. Nothing if the set is not
/// available, such as gradients before the first step.
fn histograms(run: &Run<'_>, group: &str, set: TensorSet) -> Result<Vec<Value>> {
    let tensors = match run.tensors(set) {
        Err(error) if error.kind() == ErrorKind::NotAllowed => return Ok(Vec::new()),
        tensors => tensors?,
    };
    let mut values = Vec::new();
    for tensor in &tensors {
        let tag = summary::tag(&format!("{group}/{}", tensor.name()));
        let (histogram, left_out) = histogram::of_values(&floats(run, tensor)?);
        values.extend(histogram.map(|histogram| summary::histogram(&tag, histogram)));
        if left_out > 0 {
            values.push(summary::scalar(&format!("{tag}/non_finite"), left_out as f64));
        }
    }
    Ok(values)
}

fn tap_name(instance: &str, what: &str) -> String {
    format!("{instance}.{what}")
}

#[cfg(test)]
mod tests;
