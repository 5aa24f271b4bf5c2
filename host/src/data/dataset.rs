//! Data sets: samples by index.

use std::sync::Arc;

use tch::Tensor;

use super::{DataError, Normalization, Targets, rows::Rows};
use crate::torch::TorchError;
use crate::torch::values::{fill, gather_rows};

/// Samples that belong together, on the CPU.
#[derive(Debug)]
pub struct Batch {
    /// `[size, …sample shape]` of the data's sample type.
    pub inputs: Tensor,
    /// The inputs beside it, in the order of [`Data::others`](super::Data::others), each `[size, …its shape]`.
    pub others: Vec<Tensor>,
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

    /// About how many bytes the inputs of a sample take in a batch.
    fn sample_bytes(&self) -> usize {
        row_length(self.sample_shape()).saturating_mul(size_of::<f32>())
    }

    /// Whether each of its samples is a file, which is opened and decoded whenever it is read.
    fn are_files(&self) -> bool {
        false
    }

    /// The samples at `indices`, in that order, in new tensors.
    fn gather(&self, indices: &[u32]) -> Result<Batch, DataError>;
}

/// Samples in memory: rows of f32 and their targets.
#[derive(Clone, Debug)]
pub struct MemoryDataset {
    samples: Vec<f32>,
    targets: Targets,
    sample_shape: Vec<i64>,
    row_length: usize,
}

impl MemoryDataset {
    /// `samples` contains one sample of `sample_shape` after another, as many as there are `targets`; samples without
    /// values are not reachable.
    pub fn new(samples: Vec<f32>, targets: Targets, sample_shape: Vec<i64>) -> MemoryDataset {
        let row_length = row_length(&sample_shape);
        MemoryDataset { samples, targets, sample_shape, row_length }
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
        let shape = batch_shape(indices.len(), &self.sample_shape);
        let inputs = gather_rows(&self.samples, self.row_length, indices, &shape)?
            .ok_or_else(|| DataError::out_of_range(indices, self.len()))?;
        Ok(Batch { inputs, others: Vec::new(), targets: self.targets.gather(indices)?, size: indices.len() })
    }
}

/// Samples that are read and normalized when they are needed.
pub(super) struct StoredDataset {
    rows: Arc<dyn Rows>,
    /// The rows of the data set, in its order.
    indices: Vec<u32>,
    /// In the data set's order.
    targets: Targets,
    sample_shape: Vec<i64>,
    normalization: Normalization,
}

impl StoredDataset {
    /// The samples at `indices` of `rows`, which has samples of `sample_shape`, and their `targets` in the same order.
    pub(super) fn new(
        rows: Arc<dyn Rows>,
        indices: Vec<u32>,
        targets: Targets,
        sample_shape: Vec<i64>,
        normalization: Normalization,
    ) -> StoredDataset {
        StoredDataset { rows, indices, targets, sample_shape, normalization }
    }
}

impl Dataset for StoredDataset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn are_files(&self) -> bool {
        self.rows.are_files()
    }

    fn sample_shape(&self) -> &[i64] {
        &self.sample_shape
    }

    fn gather(&self, indices: &[u32]) -> Result<Batch, DataError> {
        let wanted: Option<Vec<u32>> = indices.iter().map(|index| self.indices.get(*index as usize).copied()).collect();
        let wanted = wanted.ok_or_else(|| DataError::out_of_range(indices, self.len()))?;
        let inputs = fill(&batch_shape(indices.len(), &self.sample_shape), |values: &mut [f32]| {
            self.rows.read(&wanted, &self.normalization, values)
        })?;
        Ok(Batch { inputs, others: Vec::new(), targets: self.targets.gather(indices)?, size: indices.len() })
    }
}

/// Samples of indices: whole numbers of another data set.
pub(super) struct IndexDataset(pub(super) Arc<dyn Dataset>);

impl Dataset for IndexDataset {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn are_files(&self) -> bool {
        self.0.are_files()
    }

    fn sample_shape(&self) -> &[i64] {
        self.0.sample_shape()
    }

    fn gather(&self, indices: &[u32]) -> Result<Batch, DataError> {
        let batch = self.0.gather(indices)?;
        let inputs = batch.inputs.f_to_kind(tch::Kind::Int64).map_err(TorchError::from)?;
        Ok(Batch { inputs, ..batch })
    }
}

/// The number of values of a sample.
pub(super) fn row_length(sample_shape: &[i64]) -> usize {
    sample_shape.iter().map(|length| usize::try_from(*length).unwrap_or(0)).product()
}

pub(super) fn batch_shape(size: usize, sample_shape: &[i64]) -> Vec<i64> {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    std::iter::once(size).chain(sample_shape.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_gathered_in_the_shape_of_a_batch() {
        let samples = (0..12u8).map(f32::from).collect();
        let dataset = MemoryDataset::new(samples, Targets::classes(vec![7, 8, 9]), vec![1, 2, 2]);
        let batch = dataset.gather(&[2, 0]).unwrap();
        assert_eq!((batch.size, batch.inputs.size()), (2, vec![2, 1, 2, 2]));
        assert_eq!(batch.inputs.reshape([2, 4]), Tensor::from_slice2(&[[8f32, 9.0, 10.0, 11.0], [0.0, 1.0, 2.0, 3.0]]));
        assert_eq!(batch.targets, Tensor::from_slice(&[9i64, 7]));
        assert!(matches!(dataset.gather(&[1, 3]), Err(DataError::OutOfRange { index: 3, length: 3 })));
    }

    #[test]
    fn numbers_to_predict_are_rows_too() {
        let targets = Targets::Values { values: vec![1.0, 2.0, 3.0, 4.0], width: 2 };
        let dataset = MemoryDataset::new(vec![0.5, 0.25], targets, vec![1]);
        let batch = dataset.gather(&[1]).unwrap();
        assert_eq!((dataset.len(), batch.targets), (2, Tensor::from_slice2(&[[3f32, 4.0]])));
    }
}
