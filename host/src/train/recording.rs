//! How values get into the latest metrics and the history.

use std::sync::PoisonError;

use super::metrics::MetricValue;
use super::session::Session;

impl Session {
    /// Puts a metric at the present position: readable at once, and part of the history.
    pub(super) fn put(&mut self, name: &str, value: f64) {
        self.show(name, value);
        let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = history.put(name, self.position, value) {
            tracing::warn!("{error}");
        }
    }

    /// Puts the value of a metric: a number as [`Session::put`] does, an array into the history alone.
    pub(super) fn put_value(&mut self, name: &str, value: MetricValue) {
        match value {
            MetricValue::Number(value) => self.put(name, value),
            MetricValue::Array { shape, values } => {
                let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = history.put_array(name, self.position, shape, values) {
                    tracing::warn!("{error}");
                }
            }
        }
    }

    /// The present learning rates by the names of their metrics: `learning_rate`, or `learning_rate_<group>` of each
    /// group.
    pub(super) fn learning_rates(&self) -> Vec<(String, f64)> {
        match self.optimizer.groups() {
            [group] => vec![("learning_rate".to_owned(), group.learning_rate())],
            groups => {
                groups.iter().map(|group| (format!("learning_rate_{}", group.name()), group.learning_rate())).collect()
            }
        }
    }

    /// Sets the latest value of a metric without a place in the history.
    pub(super) fn show(&self, name: &str, value: f64) {
        self.metrics.write().unwrap_or_else(PoisonError::into_inner).put(name, self.position, value);
    }
}
