//! Metrics that compare numbers.

use super::AccumulatorState;
use crate::history::Exact;

/// Sums over the samples, for each number of a sample.
#[derive(Debug, Default)]
pub(super) struct Deviations {
    count: u64,
    columns: Vec<Column>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Column {
    absolute: f64,
    squared: f64,
    /// Of the targets.
    mean: f64,
    /// Squared distances of the targets from their mean (Welford 1962): sums of squares would cancel.
    spread: f64,
}

impl Column {
    /// How many numbers a checkpoint stores of it.
    const NUMBERS: usize = 4;
}

impl Deviations {
    /// Adds samples of `numbers` numbers each.
    pub(super) fn add(&mut self, outputs: &[f32], targets: &[f32], numbers: usize) {
        let numbers = numbers.max(1);
        self.columns.resize(numbers, Column::default());
        for (outputs, targets) in outputs.chunks_exact(numbers).zip(targets.chunks_exact(numbers)) {
            self.count += 1;
            for (column, (output, target)) in self.columns.iter_mut().zip(outputs.iter().zip(targets)) {
                let (output, target) = (f64::from(*output), f64::from(*target));
                let difference = output - target;
                column.absolute += difference.abs();
                column.squared += difference * difference;
                let distance = target - column.mean;
                column.mean += distance / self.count as f64;
                column.spread += distance * (target - column.mean);
            }
        }
    }

    pub(super) fn mean_absolute(&self) -> Option<f64> {
        self.average(|column, count| column.absolute / count)
    }

    pub(super) fn root_mean_square(&self) -> Option<f64> {
        self.average(|column, count| (column.squared / count).sqrt())
    }

    pub(super) fn explained(&self) -> Option<f64> {
        if self.count < 2 {
            return None;
        }
        self.average(|column, _| match (column.squared, column.spread) {
            // If all targets are the same: 1 if the predictions equal them, else 0, as in scikit-learn.
            (0.0, 0.0) => 1.0,
            (_, 0.0) => 0.0,
            (squared, spread) => 1.0 - squared / spread,
        })
    }

    pub(super) fn state(&self) -> AccumulatorState {
        let numbers = |column: &Column| [column.absolute, column.squared, column.mean, column.spread].map(Exact);
        AccumulatorState {
            counts: vec![self.count],
            sums: self.columns.iter().flat_map(numbers).collect(),
            ..AccumulatorState::default()
        }
    }

    pub(super) fn restore(&mut self, state: &AccumulatorState) -> Option<()> {
        let [count] = state.counts[..] else { return None };
        let (columns, rest) = state.sums.as_chunks::<{ Column::NUMBERS }>();
        rest.is_empty().then(|| {
            let columns = columns.iter().map(|[absolute, squared, mean, spread]| Column {
                absolute: absolute.0,
                squared: squared.0,
                mean: mean.0,
                spread: spread.0,
            });
            *self = Deviations { count, columns: columns.collect() };
        })
    }

    /// Adds the sums of `other`; `None` if its samples have another count of numbers, or beyond u64.
    pub(super) fn merge(&mut self, other: Deviations) -> Option<()> {
        if self.count == 0 {
            *self = other;
            return Some(());
        }
        if other.count == 0 {
            return Some(());
        }
        let count = self.count.checked_add(other.count)?;
        if self.columns.len() != other.columns.len() {
            return None;
        }
        let [own, others, all] = [self.count, other.count, count].map(|count| count as f64);
        for (column, other) in self.columns.iter_mut().zip(other.columns) {
            column.absolute += other.absolute;
            column.squared += other.squared;
            // Of the means and spreads of two parts those of both (Chan, Golub and LeVeque 1979).
            let distance = other.mean - column.mean;
            column.mean += distance * (others / all);
            column.spread += other.spread + distance * distance * (own * (others / all));
        }
        self.count = count;
        Some(())
    }

    fn average(&self, of_column: impl Fn(&Column, f64) -> f64) -> Option<f64> {
        let count = self.count as f64;
        let sum: f64 = self.columns.iter().map(|column| of_column(column, count)).sum();
        (self.count > 0).then(|| sum / self.columns.len() as f64)
    }
}
