//! The likelihood of the true class.

use tch::{Reduction, Tensor};

use super::AccumulatorState;
use crate::history::Exact;
use crate::torch::{TorchError, values};

/// The sum of negative log-likelihoods.
#[derive(Debug, Default)]
pub(super) struct Likelihood {
    sum: f64,
    count: u64,
}

impl Likelihood {
    pub(super) fn add(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<(), TorchError> {
        const IGNORE_INDEX: i64 = -100;
        // The vectorized operator: a scalar loop over each class of each position would be too slow.
        let (outputs, targets) = (outputs.f_flatten(0, -2)?, targets.f_flatten(0, -1)?);
        let sum = outputs.f_cross_entropy_loss(&targets, None::<Tensor>, Reduction::Sum, IGNORE_INDEX, 0.0)?;
        self.sum += values::scalar(&sum)?;
        self.count += targets.numel() as u64;
        Ok(())
    }

    pub(super) fn perplexity(&self) -> Option<f64> {
        (self.count > 0).then(|| (self.sum / self.count as f64).exp())
    }

    pub(super) fn state(&self) -> AccumulatorState {
        AccumulatorState { counts: vec![self.count], sums: vec![Exact(self.sum)], ..AccumulatorState::default() }
    }

    pub(super) fn restore(&mut self, state: &AccumulatorState) -> Option<()> {
        let ([count], [Exact(sum)]) = (&state.counts[..], &state.sums[..]) else { return None };
        *self = Likelihood { sum: *sum, count: *count };
        Some(())
    }

    /// Adds the sums of `other`; `None` beyond u64.
    pub(super) fn merge(&mut self, other: Likelihood) -> Option<()> {
        self.count = self.count.checked_add(other.count)?;
        self.sum += other.sum;
        Some(())
    }
}
