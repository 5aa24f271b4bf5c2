//! Stored samples.

use tch::Tensor;

use super::{DataError, Normalization, SampleType};

/// Stored samples of one shape. Shared by threads.
pub(super) trait Rows: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether f32 holds every stored number exactly, so that samples can be kept as f32 before they are normalized.
    fn fits_f32(&self) -> bool;

    /// Whether the samples are in memory already, so that it saves nothing to read them for each batch.
    fn in_memory(&self) -> bool {
        false
    }

    /// Whether each sample is a file.
    fn are_files(&self) -> bool {
        false
    }

    /// Reads the samples at `indices` as they are stored, one after another, into `values`, which has exactly the room
    /// for them.
    ///
    /// # Errors
    ///
    /// A sample that does not exist, cannot be decoded, or contains a number that is not finite.
    fn read_stored(&self, indices: &[u32], values: &mut [f64]) -> Result<(), DataError>;

    /// Reads the samples at `indices`, one after another, into `values`: normalized in f64, and only then narrowed.
    ///
    /// # Errors
    ///
    /// As of [`Rows::read_stored`], and a number that f32 cannot hold once it is normalized.
    fn read(&self, indices: &[u32], normalization: &Normalization, values: &mut [f32]) -> Result<(), DataError>;
}

/// Stored samples that become tensors of their own dtype, without normalization. Shared by threads.
pub(super) trait TypedRows: Send + Sync {
    /// The dtype of the tensors.
    fn sample_type(&self) -> SampleType;

    /// The samples at `indices`, in that order, in a new tensor of `shape`, which has room for exactly those.
    ///
    /// # Errors
    ///
    /// A sample that does not exist, a number that is not finite as f32, or one that i64 cannot hold.
    fn gather(&self, indices: &[u32], shape: &[i64]) -> Result<Tensor, DataError>;
}

/// Samples in memory.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    /// One row after another; finite.
    pub(super) values: Vec<f64>,
    /// Values of a row, at least one.
    pub(super) row_length: usize,
}

impl Table {
    fn row(&self, index: u32) -> Result<&[f64], DataError> {
        let row = self.values.get(index as usize * self.row_length..).and_then(|rest| rest.get(..self.row_length));
        row.ok_or_else(|| DataError::out_of_range(&[index], self.len()))
    }
}

impl Rows for Table {
    fn len(&self) -> usize {
        self.values.len() / self.row_length
    }

    fn fits_f32(&self) -> bool {
        false
    }

    fn in_memory(&self) -> bool {
        true
    }

    fn read_stored(&self, indices: &[u32], values: &mut [f64]) -> Result<(), DataError> {
        for (index, row) in indices.iter().zip(values.chunks_exact_mut(self.row_length)) {
            row.copy_from_slice(self.row(*index)?);
        }
        Ok(())
    }

    fn read(&self, indices: &[u32], normalization: &Normalization, values: &mut [f32]) -> Result<(), DataError> {
        for (index, row) in indices.iter().zip(values.chunks_exact_mut(self.row_length)) {
            let written = normalization.write(self.row(*index)?, |value| value, row);
            written.map_err(|position| DataError::Overflow { sample: *index as usize, position })?;
        }
        Ok(())
    }
}
