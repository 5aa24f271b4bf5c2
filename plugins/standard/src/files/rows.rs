//! The rows of the metrics files, and which metrics belong to each: only what was measured there, never an earlier
//! value again.

use std::collections::BTreeMap;

use monitor::ConfusionMatrix;
use plugin_api::event::{At, Evaluation, Position, TrainEnd};
use plugin_api::protocol::Point;
use plugin_api::{Result, Run};
use serde::{Deserialize, Serialize};

/// The split that is trained on.
const TRAIN: &str = "train";

/// The split that the host evaluates once, after the training.
const TEST: &str = "test";

/// A row: its `kind`, its metrics and its confusion matrices.
pub(crate) struct Row {
    /// `epoch`, `step`, `evaluation`, `test`, or `end`.
    pub(crate) kind: &'static str,
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) matrices: Vec<ConfusionMatrix>,
}

/// The last rows, for a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LastRows {
    /// The global step of the last row of an epoch.
    epoch: u64,
    /// The same of a row of a step.
    step: u64,
}

/// Decides which rows come.
pub(crate) struct Rows {
    /// The number of steps between rows of steps; 0 for none.
    every_steps: u64,
    /// The splits that are evaluated.
    evaluated: Vec<String>,
    /// The last epoch that ended, here or before a resume: the test split is evaluated after it.
    ended: u64,
    /// The last epoch that has a row of this process: an evaluation after that has none.
    written: Option<u64>,
    last: LastRows,
    /// Whether `last` is from a checkpoint.
    is_resumed: bool,
    /// The values in rows other than those of steps, the last of each metric.
    shown: BTreeMap<String, f64>,
}

impl Rows {
    pub(crate) fn new(every_steps: u64) -> Self {
        Self {
            every_steps,
            evaluated: Vec::new(),
            ended: 0,
            written: None,
            last: LastRows::default(),
            is_resumed: false,
            shown: BTreeMap::new(),
        }
    }

    /// The last rows, for a checkpoint.
    pub(crate) fn last(&self) -> LastRows {
        self.last
    }

    /// Goes on after the last rows of a checkpoint.
    pub(crate) fn resume(&mut self, last: LastRows) {
        (self.last, self.is_resumed) = (last, true);
    }

    /// Begins at the position at which the training begins.
    pub(crate) fn begin(&mut self, run: &Run<'_>, event: &At<'_>) -> Result<()> {
        self.evaluated = run.info()?.data.splits.into_keys().filter(|split| split != TRAIN).collect();
        self.ended = event.epoch;
        if !self.is_resumed {
            self.last = LastRows { epoch: event.global_step, step: event.global_step };
        }
        // What was measured before a resume has its rows.
        self.shown = values(run.metric_points()?);
        Ok(())
    }

    pub(crate) fn step(&mut self, run: &Run<'_>, event: &At<'_>) -> Result<Option<Row>> {
        if self.every_steps == 0 || !event.global_step.is_multiple_of(self.every_steps) {
            return Ok(None);
        }
        let metrics = self.measured(run, event, self.last.step)?;
        self.last.step = event.global_step;
        Ok(Some(Row { kind: "step", metrics, matrices: Vec::new() }))
    }

    pub(crate) fn epoch(&mut self, run: &Run<'_>, event: &At<'_>) -> Result<Option<Row>> {
        let metrics = self.measured(run, event, self.last.epoch)?;
        self.ended = event.epoch;
        self.written = Some(event.epoch);
        self.last.epoch = event.global_step;
        self.show(&metrics);
        let matrices = ConfusionMatrix::of_step(run, event.global_step)?;
        Ok(Some(Row { kind: "epoch", metrics, matrices }))
    }

    /// The row of an evaluation that no row of an epoch will have.
    pub(crate) fn evaluation(&mut self, run: &Run<'_>, event: &Evaluation<'_>) -> Result<Option<Row>> {
        let kind = match &*event.split {
            TEST if event.epoch == self.ended => TEST,
            TEST => return Ok(None),
            _ if event.mid_epoch || self.written == Some(event.epoch) => "evaluation",
            _ => return Ok(None),
        };
        let mut points = run.metric_points()?;
        points.retain(|name, point| is_of(name, &event.split) && point.global_step == event.global_step);
        let metrics = values(points);
        self.show(&metrics);
        let mut matrices = ConfusionMatrix::of_step(run, event.global_step)?;
        matrices.retain(|matrix| is_of(&matrix.name, &event.split));
        Ok(Some(Row { kind, metrics, matrices }))
    }

    /// Remembers what a row has; the names of one are mostly those of the row before.
    fn show(&mut self, metrics: &BTreeMap<String, f64>) {
        for (name, value) in metrics {
            match self.shown.get_mut(name) {
                Some(shown) => *shown = *value,
                None => drop(self.shown.insert(name.clone(), *value)),
            }
        }
    }

    /// The row of what callbacks measured after all others, at the end.
    pub(crate) fn end(&self, run: &Run<'_>, event: &TrainEnd<'_>) -> Result<Option<Row>> {
        let mut metrics = run.metrics_of_step(event.global_step)?;
        metrics.retain(|name, value| self.shown.get(name).is_none_or(|shown| shown.to_bits() != value.to_bits()));
        Ok((!metrics.is_empty()).then_some(Row { kind: "end", metrics, matrices: Vec::new() }))
    }

    /// What was measured for a row at `position`. Metrics of evaluated splits must be of this very step, since others
    /// are of other weights; the rest, of any step since the row before, whose own callbacks came after it.
    fn measured(&self, run: &Run<'_>, position: &Position, before: u64) -> Result<BTreeMap<String, f64>> {
        let mut points = run.metric_points()?;
        points.retain(|name, point| {
            let is_evaluated = self.evaluated.iter().any(|split| is_of(name, split));
            let first = if is_evaluated { position.global_step } else { before };
            point.global_step >= first
        });
        Ok(values(points))
    }
}

/// Whether a metric is of a split: `val_loss` is of `val`.
fn is_of(metric: &str, split: &str) -> bool {
    metric.strip_prefix(split).is_some_and(|rest| rest.starts_with('_'))
}

fn values(points: BTreeMap<String, Point>) -> BTreeMap<String, f64> {
    points.into_iter().map(|(name, point)| (name, point.value)).collect()
}
