//! Measurements: the averages of the epoch in progress, the latest value of each metric, and every value so far.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use super::error::TrainError;
use super::metrics::{Accumulator, Average, Metric, MetricValue, over_ranks};
use crate::distributed::ProcessGroup;
use crate::history::{History, LiveMetrics, Metrics, Position};

/// What is measured.
///
/// A metric's *latest* value is the last one that the loop or a callback put; a checkpoint keeps it.
/// During an epoch some metrics also have a *running* value, which is computed when it is read and is not
/// stored, so that reading changes nothing. Of several ranks each has those of its own share of the samples, except the loss,
/// which every rank has of all; at the end of the epoch all put the same values, those of all samples.
pub(super) struct Measured {
    /// Of the samples of all ranks, on each.
    pub(super) loss: Average,
    /// Of this rank's samples.
    pub(super) accumulators: Vec<Accumulator>,
    metrics: Vec<Metric>,
    pub(super) latest: Metrics,
    pub(super) history: Arc<RwLock<History>>,
    /// The latest and running values, as other threads see them.
    pub(super) live: Arc<LiveMetrics>,
}

impl Measured {
    /// Empty, for a run that measures `metrics` of the training split and will give the metrics of `known`.
    pub(super) fn new(metrics: Vec<Metric>, known: BTreeSet<String>) -> Self {
        let latest = Metrics::new(known);
        Self {
            loss: Average::default(),
            accumulators: accumulators(&metrics),
            metrics,
            live: Arc::new(LiveMetrics::new(latest.clone())),
            latest,
            history: Arc::default(),
        }
    }

    /// Forgets the averages of the epoch before.
    pub(super) fn begin_epoch(&mut self) {
        self.loss = Average::default();
        self.accumulators = accumulators(&self.metrics);
    }

    /// Puts a metric: readable at once, and part of the history.
    pub(super) fn put(&mut self, position: Position, name: &str, value: f64) {
        self.restore(position, name, value);
        let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = history.put(name, position, value) {
            tracing::warn!("{error}");
        }
    }

    /// Puts the value of a metric: a number as [`Self::put`] does, an array only into the history.
    pub(super) fn put_value(&mut self, position: Position, name: &str, value: MetricValue) {
        match value {
            MetricValue::Number(value) => self.put(position, name, value),
            MetricValue::Array { shape, values } => {
                let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = history.put_array(name, position, shape, values) {
                    tracing::warn!("{error}");
                }
            }
        }
    }

    /// Forgets every value of a name.
    pub(super) fn remove(&mut self, name: &str) {
        self.history.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.latest.remove(name);
        self.live.write().remove(name);
    }

    /// Sets the latest value of a metric that is already in the history.
    pub(super) fn restore(&mut self, position: Position, name: &str, value: f64) {
        self.latest.put(name, position, value);
        self.live.write().put(name, position, value);
    }

    /// The running value of a metric of the training split; `None` for one that does not exist, is an array, or is
    /// too costly to compute at any moment.
    pub(super) fn running(&mut self, name: &str) -> Result<Option<f64>, TrainError> {
        if name == "train_loss" {
            return Ok(self.loss.value());
        }
        let Some(name) = name.strip_prefix("train_") else { return Ok(None) };
        let accumulator = self.accumulators.iter_mut().find(|accumulator| accumulator.metric().name() == name);
        accumulator.map_or(Ok(None), running_value)
    }

    /// Every running value of the training split, by name.
    pub(super) fn all_running(&mut self) -> Result<Vec<(String, f64)>, TrainError> {
        let loss = self.loss.value().map(|loss| ("train_loss".to_owned(), loss));
        let mut values: Vec<_> = loss.into_iter().collect();
        for accumulator in &mut self.accumulators {
            if let Some(value) = running_value(accumulator)? {
                values.push((format!("train_{}", accumulator.metric().name()), value));
            }
        }
        Ok(values)
    }

    /// Puts the averages of the epoch that ends: those of all ranks, which wait for each other if metrics are measured.
    pub(super) fn end_epoch(&mut self, position: Position, group: &ProcessGroup) -> Result<(), TrainError> {
        if let Some(loss) = self.loss.value() {
            self.put(position, "train_loss", loss);
        }
        if self.accumulators.is_empty() {
            return Ok(());
        }
        let own = std::mem::take(&mut self.accumulators);
        let (_, mut merged) = over_ranks(group, Average::default(), own)?;
        for accumulator in &mut merged {
            if let Some(value) = accumulator.value()? {
                self.put_value(position, &format!("train_{}", accumulator.metric().name()), value);
            }
        }
        // They are of the epoch that is over: nobody reads them before the next one begins with new ones.
        self.accumulators = merged;
        Ok(())
    }
}

fn accumulators(metrics: &[Metric]) -> Vec<Accumulator> {
    metrics.iter().map(|metric| metric.accumulator()).collect()
}

fn running_value(accumulator: &mut Accumulator) -> Result<Option<f64>, TrainError> {
    let metric = accumulator.metric();
    if metric.is_costly() || metric.is_array() {
        return Ok(None);
    }
    Ok(match accumulator.value()? {
        Some(MetricValue::Number(value)) => Some(value),
        _ => None,
    })
}
