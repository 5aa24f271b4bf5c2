//! The present value of metrics: the last one put or, during an epoch, the one measured so far.
//!
//! Running values are computed when they are read and not stored, so that reading never changes a run.

use super::super::error::TrainError;
use super::super::names::STEP_LOSS;
use super::super::session::Session;
use crate::history::Metrics;
use crate::services::ServiceError;

impl Session {
    /// The present value of every metric, for a snapshot.
    pub(super) fn present_metrics(&mut self) -> Result<Metrics, TrainError> {
        let mut metrics = self.measured.latest.clone();
        let position = self.progress.position;
        for (name, value) in self.running_metrics()? {
            metrics.put(&name, position, value);
        }
        Ok(metrics)
    }

    /// The present value of one metric.
    pub(super) fn present_metric(&mut self, name: &str) -> Result<f64, ServiceError> {
        match self.running_metric(name)? {
            Some(value) => Ok(value),
            None => Ok(self.measured.latest.get(name)?.value),
        }
    }

    /// Publishes the metrics for other threads.
    pub(in super::super) fn show_running_metrics(&mut self) -> Result<(), TrainError> {
        let (running, position) = (self.running_metrics()?, self.progress.position);
        let mut live = self.measured.live.write();
        for (name, value) in running {
            live.put(&name, position, value);
        }
        Ok(())
    }

    pub(super) fn running_metrics(&mut self) -> Result<Vec<(String, f64)>, TrainError> {
        if self.progress.epoch_is_over {
            return Ok(Vec::new());
        }
        let mut values = self.measured.all_running()?;
        values.extend(self.learner.step_loss().map(|loss| (STEP_LOSS.to_owned(), loss)));
        values.extend(self.learner.running());
        Ok(values)
    }

    fn running_metric(&mut self, name: &str) -> Result<Option<f64>, TrainError> {
        if self.progress.epoch_is_over {
            return Ok(None);
        }
        if name == STEP_LOSS {
            return Ok(self.learner.step_loss());
        }
        if let Some(value) = self.measured.running(name)? {
            return Ok(Some(value));
        }
        Ok(self.learner.running().into_iter().find(|(running, _)| running == name).map(|(_, value)| value))
    }

    /// The present value of a metric, for `if` and `best`.
    pub(super) fn gate_metric(&mut self, name: &str) -> Option<f64> {
        match self.running_metric(name) {
            Ok(Some(value)) => Some(value),
            Ok(None) => self.measured.latest.value(name),
            Err(error) => {
                tracing::warn!(metric = name, %error, "the metric cannot be computed");
                None
            }
        }
    }
}
