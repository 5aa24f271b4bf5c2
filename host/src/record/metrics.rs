//! The latest value of every metric.

use std::collections::BTreeMap;

use super::{Position, RecordError};

/// A metric's latest value and the point of the training that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// The value; NaN and the infinities are values like others.
    pub value: f64,
    /// When it was measured.
    pub position: Position,
}

/// The latest value of every metric by name (`train_loss`, `val_accuracy`).
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    latest: BTreeMap<String, Metric>,
}

impl Metrics {
    /// No metrics.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Sets the value of a name.
    pub fn put(&mut self, name: &str, position: Position, value: f64) {
        let metric = Metric { value, position };
        match self.latest.get_mut(name) {
            Some(latest) => *latest = metric,
            None => {
                self.latest.insert(name.to_owned(), metric);
            }
        }
    }

    /// The latest value of a name.
    ///
    /// # Errors
    /// There is no value of that name; the error suggests the nearest names.
    pub fn get(&self, name: &str) -> Result<Metric, RecordError> {
        self.latest.get(name).copied().ok_or_else(|| RecordError::unknown(name, self.names()))
    }

    /// The latest value of a name, for conditions; `None` if there is none.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.latest.get(name).map(|metric| metric.value)
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.latest.keys().map(String::as_str)
    }

    /// Every name with its latest value, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Metric)> {
        self.latest.iter().map(|(name, metric)| (name.as_str(), *metric))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    #[test]
    fn the_latest_value_wins_and_keeps_its_position() {
        let mut metrics = Metrics::new();
        let later = Position { epoch: 2, step: 1, global_step: 29, samples: 1856 };
        metrics.put("val_loss", Position::default(), 1.0);
        metrics.put("val_loss", later, 0.5);
        assert_eq!(metrics.get("val_loss"), Ok(Metric { value: 0.5, position: later }));
        assert_eq!(metrics.names().collect::<Vec<_>>(), ["val_loss"]);
        assert_eq!(metrics.get("valloss").unwrap_err().hint().as_deref(), Some("did you mean `val_loss`?"));
    }
}
