//! Metrics over the batches of an epoch or an evaluation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::record::Exact;
use crate::torch::{TorchError, values};

/// A metric, as run files name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The share of samples whose largest output is that of their class; the first of equal outputs counts
    /// (`sklearn.metrics.accuracy_score` over `torch.argmax`).
    Accuracy,
}

impl Metric {
    /// Every metric.
    pub const ALL: &'static [Metric] = &[Metric::Accuracy];

    /// The metric of this name.
    pub fn from_name(name: &str) -> Option<Metric> {
        Metric::ALL.iter().copied().find(|metric| metric.name() == name)
    }

    /// Its name in metrics: `val_accuracy` is that of the split `val`.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
        }
    }

    /// An accumulator that has seen nothing.
    pub fn accumulator(self) -> Accumulator {
        Accumulator { metric: self, sum: 0.0, count: 0, on_device: None }
    }
}

/// A mean weighted by true counts, in f64: of batch losses by batch sizes, so that a short last batch counts less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Average {
    sum: f64,
    count: u64,
}

impl Average {
    /// Adds the mean of `count` samples.
    pub fn add(&mut self, mean: f64, count: usize) {
        self.sum += mean * count as f64;
        self.count += count as u64;
    }

    /// The mean; `None` before the first sample.
    pub fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The number of samples.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// The sums of an [`Average`] or an [`Accumulator`], as a checkpoint keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccumulatorState {
    sum: Exact,
    count: u64,
}

impl Average {
    /// Its sums.
    pub fn state(&self) -> AccumulatorState {
        AccumulatorState { sum: Exact(self.sum), count: self.count }
    }

    /// Goes on from these sums.
    pub fn restore(&mut self, state: AccumulatorState) {
        (self.sum, self.count) = (state.sum.0, state.count);
    }
}

/// A metric in the making.
#[derive(Debug)]
pub struct Accumulator {
    metric: Metric,
    sum: f64,
    count: u64,
    /// What a device has counted and nobody has waited for yet.
    on_device: Option<Tensor>,
}

impl Accumulator {
    /// The metric that it accumulates.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Adds a batch: `outputs` are `[size, classes]`, `targets` `[size]` i64. On the CPU it reads the tensors where
    /// they lie; on a device it enqueues and doesn't wait.
    pub fn add(&mut self, outputs: &Tensor, targets: &Tensor, size: usize) -> Result<(), TorchError> {
        match self.metric {
            Metric::Accuracy => {
                // SAFETY: nothing writes to a step's outputs and targets while its metrics are computed.
                let slices = unsafe { (values::slice::<f32>(outputs), values::slice::<i64>(targets)) };
                if let (Some(outputs), Some(targets)) = slices {
                    self.sum += correct(outputs, targets) as f64;
                } else {
                    let correct =
                        tch::no_grad(|| outputs.f_argmax(-1, false)?.f_eq_tensor(targets)?.f_sum(Kind::Int64))?;
                    self.on_device = Some(match self.on_device.take() {
                        Some(before) => before.f_add(&correct)?,
                        None => correct,
                    });
                }
            }
        }
        self.count += size as u64;
        Ok(())
    }

    /// Its sums. Waits for the device.
    ///
    /// # Errors
    /// The device fails.
    pub fn state(&mut self) -> Result<AccumulatorState, TorchError> {
        self.value()?;
        Ok(AccumulatorState { sum: Exact(self.sum), count: self.count })
    }

    /// Goes on from these sums.
    pub fn restore(&mut self, state: AccumulatorState) {
        (self.sum, self.count) = (state.sum.0, state.count);
        self.on_device = None;
    }

    /// The metric over all batches so far; `None` before the first. Waits for the device.
    pub fn value(&mut self) -> Result<Option<f64>, TorchError> {
        if let Some(pending) = self.on_device.take() {
            self.sum += values::scalar(&pending)?;
        }
        Ok((self.count > 0).then(|| self.sum / self.count as f64))
    }
}

/// How many rows of `outputs` have their largest value at their target.
fn correct(outputs: &[f32], targets: &[i64]) -> usize {
    if targets.is_empty() {
        return 0;
    }
    let classes = outputs.len() / targets.len();
    outputs
        .chunks_exact(classes.max(1))
        .zip(targets)
        .filter(|(row, target)| usize::try_from(**target) == Ok(argmax(row)))
        .count()
}

/// The index of the first largest value, as `torch.argmax`: what is no number is larger than any number.
fn argmax(row: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, value) in row.iter().enumerate() {
        if *value > best.1 {
            best = (index, *value);
        } else if value.is_nan() {
            return index;
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::Device;

    use super::*;

    fn accuracy(outputs: &Tensor, targets: &Tensor) -> f64 {
        let mut accumulator = Metric::Accuracy.accumulator();
        let size = targets.numel();
        accumulator.add(outputs, targets, size).unwrap();
        accumulator.value().unwrap().unwrap()
    }

    fn output() -> impl Strategy<Value = f32> {
        // Few values, so that ties are common.
        prop::sample::select(vec![-1.0f32, 0.0, 0.5, 2.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY])
    }

    proptest! {
        #[test]
        fn the_slices_and_the_operators_agree(
            rows in prop::collection::vec((prop::array::uniform4(output()), 0i64..4), 1..30),
        ) {
            let outputs = Tensor::from_slice2(&rows.iter().map(|(row, _)| *row).collect::<Vec<_>>());
            let targets = Tensor::from_slice(&rows.iter().map(|(_, target)| *target).collect::<Vec<_>>());
            // Transposed storage has no slice, so this takes the operators.
            let strided = outputs.tr().contiguous().tr();
            prop_assume!(!strided.is_contiguous());
            prop_assert_eq!(accuracy(&outputs, &targets), accuracy(&strided, &targets));
        }
    }

    #[test]
    fn the_first_of_equal_outputs_counts() {
        let outputs = Tensor::from_slice2(&[[1.0f32, 1.0], [1.0, 1.0]]);
        assert_eq!(accuracy(&outputs, &Tensor::from_slice(&[0i64, 1])), 0.5);
    }

    #[test]
    fn batches_count_by_their_sizes() {
        let mut accumulator = Metric::Accuracy.accumulator();
        assert_eq!(accumulator.value().unwrap(), None);
        let right = Tensor::from_slice2(&[[0.0f32, 1.0]; 3]);
        accumulator.add(&right, &Tensor::ones([3], (Kind::Int64, Device::Cpu)), 3).unwrap();
        accumulator.add(&right.narrow(0, 0, 1), &Tensor::from_slice(&[0i64]), 1).unwrap();
        assert_eq!(accumulator.value().unwrap(), Some(0.75));

        let mut average = Average::default();
        assert_eq!(average.value(), None);
        average.add(1.0, 3);
        average.add(5.0, 1);
        assert_eq!((average.value(), average.count()), (Some(2.0), 4));
    }
}
