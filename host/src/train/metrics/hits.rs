//! Correct predictions.

use tch::{Kind, Tensor};

use super::AccumulatorState;
use super::batch::{predicted, read, rows};
use crate::torch::{TorchError, values};

/// Predictions that equal the target.
#[derive(Debug, Default)]
pub(super) struct AccurateHits {
    hits: u64,
    count: u64,
    /// A count on a device that nobody has waited for yet.
    on_device: Option<Tensor>,
}

impl AccurateHits {
    pub(super) fn add(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<(), TorchError> {
        let count = targets.numel();
        if outputs.device() == tch::Device::Cpu {
            let hits = &mut self.hits;
            read(outputs, targets, |outputs, targets| {
                *hits += rows(outputs, targets).filter(|(row, target)| predicted(row) == *target).count() as u64;
            })?;
        } else {
            let predicted = if outputs.numel() == count {
                outputs.f_gt(0)?.f_view_as(targets)?.f_to_kind(Kind::Int64)?
            } else {
                outputs.f_argmax(-1, false)?
            };
            let hits = predicted.f_eq_tensor(targets)?.f_sum(Kind::Int64)?;
            self.on_device = Some(match self.on_device.take() {
                Some(before) => before.f_add(&hits)?,
                None => hits,
            });
        }
        self.count += count as u64;
        Ok(())
    }

    pub(super) fn share(&mut self) -> Result<Option<f64>, TorchError> {
        self.wait()?;
        Ok((self.count > 0).then(|| self.hits as f64 / self.count as f64))
    }

    pub(super) fn state(&mut self) -> Result<AccumulatorState, TorchError> {
        self.wait()?;
        Ok(AccumulatorState { counts: vec![self.hits, self.count], ..AccumulatorState::default() })
    }

    pub(super) fn restore(&mut self, state: &AccumulatorState) -> Option<()> {
        let [hits, count] = state.counts[..] else { return None };
        *self = AccurateHits { hits, count, on_device: None };
        Some(())
    }

    /// Adds the counts of `other`, which was restored; `None` beyond u64.
    pub(super) fn merge(&mut self, other: AccurateHits) -> Option<()> {
        // What is on the device comes in addition.
        (self.hits, self.count) = (self.hits.checked_add(other.hits)?, self.count.checked_add(other.count)?);
        Some(())
    }

    fn wait(&mut self) -> Result<(), TorchError> {
        if let Some(pending) = self.on_device.take() {
            // Exact: a batch has fewer than 2⁵³ samples.
            self.hits += values::scalar(&pending)? as u64;
        }
        Ok(())
    }
}

/// Targets that are among the largest outputs.
#[derive(Debug)]
pub(super) struct TopHits {
    k: usize,
    hits: u64,
    count: u64,
}

impl TopHits {
    pub(super) fn new(k: usize) -> TopHits {
        TopHits { k, hits: 0, count: 0 }
    }

    pub(super) fn add(&mut self, outputs: &[f32], targets: &[i64]) {
        self.count += targets.len() as u64;
        self.hits += rows(outputs, targets).filter(|(row, target)| larger(row, *target) < self.k).count() as u64;
    }

    pub(super) fn error(&self) -> Option<f64> {
        (self.count > 0).then(|| 1.0 - self.hits as f64 / self.count as f64)
    }

    pub(super) fn state(&self) -> AccumulatorState {
        AccumulatorState { counts: vec![self.hits, self.count], ..AccumulatorState::default() }
    }

    pub(super) fn restore(&mut self, state: &AccumulatorState) -> Option<()> {
        let [hits, count] = state.counts[..] else { return None };
        *self = TopHits { k: self.k, hits, count };
        Some(())
    }

    /// Adds the counts of `other`; `None` beyond u64.
    pub(super) fn merge(&mut self, other: TopHits) -> Option<()> {
        (self.hits, self.count) = (self.hits.checked_add(other.hits)?, self.count.checked_add(other.count)?);
        Some(())
    }
}

/// How many outputs come before that of the target, with the largest first and of equal ones the last: the order of
/// a stable ascending sort read backwards, in which NaN comes first.
fn larger(row: &[f32], target: usize) -> usize {
    let Some(&own) = row.get(target) else { return row.len() };
    row.iter()
        .enumerate()
        .filter(|(index, value)| {
            let same = **value == own || (value.is_nan() && own.is_nan());
            **value > own || (value.is_nan() && !own.is_nan()) || (same && *index > target)
        })
        .count()
}
