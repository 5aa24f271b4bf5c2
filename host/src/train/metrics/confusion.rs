//! Pairs of true and predicted classes.

use super::batch::{predicted, rows};
use super::{AccumulatorState, MetricValue};

/// Counts of pairs of true and predicted class.
#[derive(Debug, Default)]
pub(super) struct Confusion {
    /// Known from the first batch on.
    classes: usize,
    /// The true class is the row.
    counts: Vec<u64>,
}

/// The counts of one class.
struct Class {
    right: u64,
    predicted: u64,
    there: u64,
}

impl Confusion {
    pub(super) fn add(&mut self, outputs: &[f32], targets: &[i64]) {
        for (row, target) in rows(outputs, targets) {
            if self.counts.is_empty() {
                // A single output is for two classes.
                self.classes = row.len().max(2);
                self.counts = vec![0; self.classes * self.classes];
            }
            if target < self.classes {
                self.counts[target * self.classes + predicted(row)] += 1;
            }
        }
    }

    pub(super) fn precision(&self) -> Option<f64> {
        self.macro_average(|class| share(class.right, class.predicted))
    }

    pub(super) fn recall(&self) -> Option<f64> {
        self.macro_average(|class| share(class.right, class.there))
    }

    pub(super) fn f1(&self) -> Option<f64> {
        self.macro_average(|class| share(2 * class.right, class.predicted + class.there))
    }

    pub(super) fn matrix(&self) -> Option<MetricValue> {
        (!self.counts.is_empty()).then(|| MetricValue::Array {
            shape: vec![self.classes, self.classes],
            values: self.counts.iter().map(|count| *count as f32).collect(),
        })
    }

    pub(super) fn state(&self) -> AccumulatorState {
        AccumulatorState { counts: self.counts.clone(), ..AccumulatorState::default() }
    }

    pub(super) fn restore(&mut self, state: &AccumulatorState) -> Option<()> {
        let classes = state.counts.len().isqrt();
        (classes * classes == state.counts.len()).then(|| {
            *self = Confusion { classes, counts: state.counts.clone() };
        })
    }

    /// The mean over the classes that occur or are predicted.
    fn macro_average(&self, of_class: impl Fn(&Class) -> f64) -> Option<f64> {
        let (mut sum, mut present) = (0.0, 0u64);
        for index in 0..self.classes {
            let column = self.counts.iter().skip(index).step_by(self.classes);
            let row = self.counts.iter().skip(index * self.classes).take(self.classes);
            let class =
                Class { right: self.counts[index * self.classes + index], predicted: column.sum(), there: row.sum() };
            if class.predicted + class.there > 0 {
                sum += of_class(&class);
                present += 1;
            }
        }
        (present > 0).then(|| sum / present as f64)
    }
}

/// Zero if the denominator is zero.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
