//! Data sets: samples by index.

use tch::Tensor;

use super::DataError;
use crate::torch::values::gather_rows;

/// Samples that belong together, on the CPU.
#[derive(Debug)]
pub struct Batch {
    /// `[size, …sample shape]` of the data's sample type.
    pub inputs: Tensor,
    /// As the data's `Target` says: `[size, …shape]` i64, or `[size, values]` f32.
    pub targets: Tensor,
    /// The number of samples.
    pub size: usize,
}

/// A sequence of samples of one shape. Shared by threads: batches are gathered off the training thread.
pub trait Dataset: Send + Sync {
    /// The number of samples, at most `u32::MAX`.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of one sample.
    fn sample_shape(&self) -> &[i64];

    /// The samples at `indices`, in that order, in new tensors.
    fn gather(&self, indices: &[u32]) -> Result<Batch, DataError>;
}

/// Samples in memory: rows of f32 and a class each.
#[derive(Clone, Debug)]
pub struct MemoryDataset {
    features: Vec<f32>,
    targets: Vec<i64>,
    sample_shape: Vec<i64>,
    row_length: usize,
}

impl MemoryDataset {
    /// `features` holds one sample of `sample_shape` after another, as many as there are `targets`; samples for which
    /// there are no values are not reachable.
    pub fn new(features: Vec<f32>, targets: Vec<i64>, sample_shape: Vec<i64>) -> MemoryDataset {
        let row_length = sample_shape.iter().map(|length| usize::try_from(*length).unwrap_or(0)).product();
        MemoryDataset { features, targets, sample_shape, row_length }
    }
}

impl Dataset for MemoryDataset {
    fn len(&self) -> usize {
        self.targets.len()
    }

    fn sample_shape(&self) -> &[i64] {
        &self.sample_shape
    }

    fn gather(&self, indices: &[u32]) -> Result<Batch, DataError> {
        let size = i64::try_from(indices.len()).unwrap_or(i64::MAX);
        let mut shape = Vec::with_capacity(1 + self.sample_shape.len());
        shape.push(size);
        shape.extend_from_slice(&self.sample_shape);
        let inputs = gather_rows(&self.features, self.row_length, indices, &shape)?;
        let targets = gather_rows(&self.targets, 1, indices, &[size])?;
        match (inputs, targets) {
            (Some(inputs), Some(targets)) => Ok(Batch { inputs, targets, size: indices.len() }),
            _ => Err(DataError::OutOfRange { index: indices.iter().copied().max().unwrap_or(0), length: self.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_gathered_in_the_shape_of_a_batch() {
        let features = (0..12u8).map(f32::from).collect();
        let dataset = MemoryDataset::new(features, vec![7, 8, 9], vec![1, 2, 2]);
        let batch = dataset.gather(&[2, 0]).unwrap();
        assert_eq!((batch.size, batch.inputs.size()), (2, vec![2, 1, 2, 2]));
        assert_eq!(batch.inputs.reshape([2, 4]), Tensor::from_slice2(&[[8f32, 9.0, 10.0, 11.0], [0.0, 1.0, 2.0, 3.0]]));
        assert_eq!(batch.targets, Tensor::from_slice(&[9i64, 7]));
        assert!(matches!(dataset.gather(&[1, 3]), Err(DataError::OutOfRange { index: 3, length: 3 })));
    }
}
