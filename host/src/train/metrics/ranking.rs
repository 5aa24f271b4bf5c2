//! The area under the ROC curve.

use super::AccumulatorState;
use super::batch::rows;

/// Every score with its class: the area of all samples is not a sum over batches.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    /// Scores of a sample: one for two classes, one for each of more. Known from the first batch on.
    width: usize,
    /// Row by row.
    scores: Vec<f32>,
    targets: Vec<u64>,
}

impl Ranking {
    pub(super) fn add(&mut self, outputs: &[f32], targets: &[i64]) {
        for (row, target) in rows(outputs, targets) {
            match row {
                [single] => self.scores.push(*single),
                // It orders as the softmax of the second does, but does not saturate at 1.
                [first, second] => self.scores.push(second - first),
                row => softmax(row, &mut self.scores),
            }
            self.targets.push(target as u64);
        }
        self.width = self.scores.len().checked_div(self.targets.len()).unwrap_or(0);
    }

    pub(super) fn area(&self) -> Option<f64> {
        if self.width == 1 {
            return self.area_of(0, 1);
        }
        // A class without samples, or the only one with samples, has no curve.
        let is_there = |class: &usize| self.targets.contains(&(*class as u64));
        let classes: Vec<usize> = (0..self.width).filter(is_there).collect();
        let areas = classes.iter().map(|class| self.area_of(*class, *class as u64));
        let sum = areas.sum::<Option<f64>>()?;
        (!classes.is_empty()).then(|| sum / classes.len() as f64)
    }

    pub(super) fn state(&self) -> AccumulatorState {
        AccumulatorState {
            counts: self.targets.clone(),
            scores: self.scores.iter().map(|score| score.to_bits()).collect(),
            ..AccumulatorState::default()
        }
    }

    pub(super) fn restore(&mut self, state: &AccumulatorState) -> Option<()> {
        let width = state.scores.len().checked_div(state.counts.len()).unwrap_or(0);
        let fits = width * state.counts.len() == state.scores.len() && (width > 0 || state.counts.is_empty());
        fits.then(|| {
            let scores = state.scores.iter().map(|bits| f32::from_bits(*bits)).collect();
            *self = Ranking { width, scores, targets: state.counts.clone() };
        })
    }

    /// The area for the scores of a column against `class`: the share of pairs of one sample of it and one of another in
    /// which the first has the higher score; equal scores count as half a pair (Mann and Whitney 1947). `None` without
    /// both, or if a score is NaN.
    fn area_of(&self, column: usize, class: u64) -> Option<f64> {
        let scores = self.scores.iter().skip(column).step_by(self.width.max(1));
        let mut ranked: Vec<(f32, bool)> =
            scores.zip(&self.targets).map(|(score, target)| (*score, *target == class)).collect();
        if ranked.iter().any(|(score, _)| score.is_nan()) {
            return None;
        }
        ranked.sort_unstable_by(|(one, _), (other, _)| one.total_cmp(other));
        let (mut below, mut pairs) = (0.0, 0.0);
        let mut positives = 0.0;
        for equal in ranked.chunk_by(|(one, _), (other, _)| one == other) {
            let own = equal.iter().filter(|(_, own)| *own).count() as f64;
            let others = equal.len() as f64 - own;
            pairs += own * (below + others / 2.0);
            below += others;
            positives += own;
        }
        (positives > 0.0 && below > 0.0).then(|| pairs / (positives * below))
    }
}

/// Appends the softmax of a row, computed in f64.
fn softmax(row: &[f32], to: &mut Vec<f32>) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponential = |output: &f32| (f64::from(*output) - f64::from(largest)).exp();
    let sum: f64 = row.iter().map(exponential).sum();
    to.extend(row.iter().map(|output| (exponential(output) / sum) as f32));
}
