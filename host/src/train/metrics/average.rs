//! Means of means.

use serde::{Deserialize, Serialize};

use crate::history::Exact;

/// A mean weighted by true counts, in f64: of batch losses by batch sizes, so that a short last batch counts less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Average {
    sum: f64,
    weight: f64,
}

/// The sums of an [`Average`] in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AverageState {
    sum: Exact,
    weight: Exact,
}

impl Average {
    /// Adds the mean of samples whose total weight is `weight`: their number, or the sum of their weights.
    pub fn add(&mut self, mean: f64, weight: f64) {
        self.sum += mean * weight;
        self.weight += weight;
    }

    /// The mean; `None` before the first sample.
    pub fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// Adds the sums of other samples, such as those of another rank.
    pub fn merge(&mut self, state: AverageState) {
        self.sum += state.sum.0;
        self.weight += state.weight.0;
    }

    /// Its sums.
    pub fn state(&self) -> AverageState {
        AverageState { sum: Exact(self.sum), weight: Exact(self.weight) }
    }

    /// Continues from these sums.
    pub fn restore(&mut self, state: AverageState) {
        (self.sum, self.weight) = (state.sum.0, state.weight.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_count_by_their_weights() {
        let mut average = Average::default();
        assert_eq!(average.value(), None);
        average.add(1.0, 3.0);
        average.add(5.0, 1.0);
        assert_eq!(average.value(), Some(2.0));
        let (mut first, mut second) = (Average::default(), Average::default());
        first.merge(Average::default().state());
        assert_eq!(first.value(), None);
        second.add(5.0, 1.0);
        second.merge(first.state());
        assert_eq!(second.value(), Some(5.0));
        first.add(1.0, 3.0);
        first.merge(second.state());
        assert_eq!(first, average);
        let mut restored = Average::default();
        restored.restore(average.state());
        assert_eq!(restored, average);
    }
}
