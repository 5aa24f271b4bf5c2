//! The area under the ROC curve.

use super::AccumulatorState;
use super::batch::rows;

/// Every sample's outputs with its class: the area of all samples is not a sum over batches.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    /// Outputs of a sample. Known from the first batch on.
    width: usize,
    /// Row by row.
    outputs: Vec<f32>,
    targets: Vec<u64>,
}

impl Ranking {
    pub(super) fn add(&mut self, outputs: &[f32], targets: &[i64]) {
        for (row, target) in rows(outputs, targets) {
            self.outputs.extend_from_slice(row);
            self.targets.push(target as u64);
        }
        self.width = self.outputs.len().checked_div(self.targets.len()).unwrap_or(0);
    }

    pub(super) fn area(&self) -> Option<f64> {
        let rows = self.outputs.chunks_exact(self.width.max(1));
        match self.width {
            0 => None,
            1 => self.area_of(rows.map(|row| f64::from(row[0])), 1),
            // It orders as the softmax of the second does, but does not saturate at 1.
            2 => self.area_of(rows.map(|row| f64::from(row[1]) - f64::from(row[0])), 1),
            classes => {
                // A class without samples, or the only one with samples, has no curve.
                let is_there = |class: &usize| self.targets.contains(&(*class as u64));
                let classes: Vec<usize> = (0..classes).filter(is_there).collect();
                let denominators: Vec<(f64, f64)> = rows.clone().map(largest_and_sum).collect();
                let areas = classes.iter().map(|class| {
                    let scores = rows.clone().zip(&denominators);
                    let scores = scores.map(|(row, (largest, sum))| (f64::from(row[*class]) - largest).exp() / sum);
                    self.area_of(scores, *class as u64)
                });
                let sum = areas.sum::<Option<f64>>()?;
                (!classes.is_empty()).then(|| sum / classes.len() as f64)
            }
        }
    }

    pub(super) fn state(&self) -> AccumulatorState {
        AccumulatorState {
            counts: self.targets.clone(),
            outputs: self.outputs.iter().map(|output| output.to_bits()).collect(),
            ..AccumulatorState::default()
        }
    }

    pub(super) fn restore(&mut self, state: &AccumulatorState) -> Option<()> {
        let width = state.outputs.len().checked_div(state.counts.len()).unwrap_or(0);
        let fits = width * state.counts.len() == state.outputs.len() && (width > 0 || state.counts.is_empty());
        fits.then(|| {
            let outputs = state.outputs.iter().map(|bits| f32::from_bits(*bits)).collect();
            *self = Ranking { width, outputs, targets: state.counts.clone() };
        })
    }

    /// Adds the samples of `other` behind its own; `None` if they have another number of outputs.
    pub(super) fn merge(&mut self, mut other: Ranking) -> Option<()> {
        if self.width == 0 {
            *self = other;
        } else if other.width == self.width {
            self.outputs.append(&mut other.outputs);
            self.targets.append(&mut other.targets);
        } else if other.width != 0 {
            return None;
        }
        Some(())
    }

    /// The area for scores of the samples against `class`: the share of pairs of one sample of it and one of another in
    /// which the first has the higher score; equal scores count as half a pair (Mann and Whitney 1947). `None` without
    /// both, or if a score is NaN.
    fn area_of(&self, scores: impl Iterator<Item = f64>, class: u64) -> Option<f64> {
        let mut ranked: Vec<(f64, bool)> =
            scores.zip(&self.targets).map(|(score, target)| (score, *target == class)).collect();
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

/// The largest output of a row, and the sum of the exponentials of their differences from it.
fn largest_and_sum(row: &[f32]) -> (f64, f64) {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    (largest, row.iter().map(|output| (f64::from(*output) - largest).exp()).sum())
}
