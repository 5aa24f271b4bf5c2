//! Pairs of true and predicted classes.

use super::batch::{predicted, rows};
use super::{AccumulatorState, Averaging, MetricValue};

/// Counts of pairs of true and predicted class.
#[derive(Debug, Default)]
pub(super) struct Confusion {
    /// Known from the first batch on.
    classes: usize,
    /// The true class is the row.
    counts: Vec<u64>,
}

/// The counts of one class, or of all of them together.
#[derive(Clone, Copy, Default)]
struct Class {
    right: u64,
    predicted: u64,
    there: u64,
}

impl Class {
    fn precision(self) -> f64 {
        share(self.right, self.predicted)
    }

    fn recall(self) -> f64 {
        share(self.right, self.there)
    }

    fn f1(self) -> f64 {
        share(2 * self.right, self.predicted + self.there)
    }
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

    pub(super) fn precision(&self, averaging: Averaging) -> Option<f64> {
        self.average(averaging, Class::precision)
    }

    pub(super) fn recall(&self, averaging: Averaging) -> Option<f64> {
        self.average(averaging, Class::recall)
    }

    pub(super) fn f1(&self, averaging: Averaging) -> Option<f64> {
        self.average(averaging, Class::f1)
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

    /// Adds the counts of `other`; `None` if it has other classes, or beyond u64.
    pub(super) fn merge(&mut self, other: Confusion) -> Option<()> {
        if self.counts.is_empty() {
            *self = other;
            return Some(());
        }
        if other.counts.is_empty() {
            return Some(());
        }
        let counts = self.counts.iter().zip(&other.counts).map(|(one, other)| one.checked_add(*other));
        let counts = counts.collect::<Option<_>>()?;
        (self.classes == other.classes).then(|| self.counts = counts)
    }

    /// A number of the classes; `None` before the first sample.
    fn average(&self, averaging: Averaging, of_class: impl Fn(Class) -> f64) -> Option<f64> {
        let mean = |of: &dyn Fn(Class) -> u64| {
            let (mut sum, mut weights) = (0.0, 0);
            for class in self.of_classes() {
                sum += of(class) as f64 * of_class(class);
                weights += of(class);
            }
            (weights > 0).then(|| sum / weights as f64)
        };
        let together = self.of_classes().fold(Class::default(), |all, class| Class {
            right: all.right + class.right,
            predicted: all.predicted + class.predicted,
            there: all.there + class.there,
        });
        match averaging {
            Averaging::Usual { positive } if self.classes == 2 => {
                let class = self.of_classes().nth(usize::from(positive))?;
                (together.there > 0).then(|| of_class(class))
            }
            Averaging::Usual { .. } | Averaging::Macro => mean(&|class| u64::from(class.predicted + class.there > 0)),
            Averaging::Micro => (together.there > 0).then(|| of_class(together)),
            Averaging::Weighted => mean(&|class| class.there),
        }
    }

    fn of_classes(&self) -> impl Iterator<Item = Class> {
        (0..self.classes).map(|index| {
            let column = self.counts.iter().skip(index).step_by(self.classes);
            let row = self.counts.iter().skip(index * self.classes).take(self.classes);
            Class { right: self.counts[index * self.classes + index], predicted: column.sum(), there: row.sum() }
        })
    }
}

/// Zero if the denominator is zero.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
