//! The latest value of every metric, and what other threads see of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use plugin_api::services::fits;

use super::{HistoryError, Position};

/// A metric's latest value and the point of the training that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// The value; NaN and the infinities are values like others.
    pub value: f64,
    /// When it was measured.
    pub position: Position,
}

/// The latest value of every metric by name (`train_loss`, `val_accuracy`), and the names that the run will give.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    latest: BTreeMap<String, Metric>,
    /// Names, in which `*` stands for any text. Shared by every copy: a snapshot of each event would copy it otherwise.
    known: Arc<BTreeSet<String>>,
}

impl Metrics {
    /// No metrics yet, of a run that will give those of `known`.
    pub fn new(known: BTreeSet<String>) -> Metrics {
        Metrics { latest: BTreeMap::new(), known: Arc::new(known) }
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

    /// Forgets the value of a name.
    pub fn remove(&mut self, name: &str) {
        self.latest.remove(name);
    }

    /// The latest value of a name.
    ///
    /// # Errors
    /// A name that the run does not know, with the nearest ones; one that has no value yet.
    pub fn get(&self, name: &str) -> Result<Metric, HistoryError> {
        match self.latest.get(name) {
            Some(metric) => Ok(*metric),
            None if self.known.iter().any(|known| fits(known, name)) => {
                Err(HistoryError::NoValue { name: name.to_owned() })
            }
            None => {
                let names: BTreeSet<&str> = self.names().chain(self.known.iter().map(String::as_str)).collect();
                Err(HistoryError::unknown(name, names))
            }
        }
    }

    /// The latest value of a name, for conditions; `None` if there is none.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.latest.get(name).map(|metric| metric.value)
    }

    /// Every name that has a value, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.latest.keys().map(String::as_str)
    }

    /// Every name with its latest value, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Metric)> {
        self.latest.iter().map(|(name, metric)| (name.as_str(), *metric))
    }
}

/// The metrics as other threads see them.
///
/// What changes with each step is published only once somebody has asked: a run in which nobody does pays one load a
/// step.
#[derive(Debug, Default)]
pub struct LiveMetrics {
    metrics: RwLock<Metrics>,
    is_read: AtomicBool,
}

impl LiveMetrics {
    /// Those of a run that will give those of `metrics`.
    pub fn new(metrics: Metrics) -> LiveMetrics {
        LiveMetrics { metrics: RwLock::new(metrics), is_read: AtomicBool::new(false) }
    }

    /// The values, for another thread; from now on they are renewed with each step.
    pub fn read(&self) -> RwLockReadGuard<'_, Metrics> {
        self.is_read.store(true, Ordering::Relaxed);
        self.metrics.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether they must be renewed with each step.
    #[inline]
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// The values, to be renewed.
    pub fn write(&self) -> RwLockWriteGuard<'_, Metrics> {
        // A value is put whole, so that a writer that panicked leaves metrics that can be read.
        self.metrics.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    #[test]
    fn the_latest_value_wins_and_keeps_its_position() {
        let mut metrics = Metrics::new(BTreeSet::from(["val_accuracy".to_owned()]));
        let later = Position { epoch: 2, step: 1, global_step: 29, samples: 1856 };
        metrics.put("val_loss", Position::default(), 1.0);
        metrics.put("val_loss", later, 0.5);
        assert_eq!(metrics.get("val_loss"), Ok(Metric { value: 0.5, position: later }));
        assert_eq!(metrics.names().collect::<Vec<_>>(), ["val_loss"]);
        assert!(matches!(metrics.get("val_accuracy"), Err(HistoryError::NoValue { .. })));
        assert_eq!(metrics.get("val_acuracy").unwrap_err().hint().as_deref(), Some("did you mean `val_accuracy`?"));
        assert_eq!(metrics.get("valloss").unwrap_err().hint().as_deref(), Some("did you mean `val_loss`?"));
    }
}
