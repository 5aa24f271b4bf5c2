//! Stored samples.

use super::DataError;

/// Stored samples of one shape, which are converted to f32 when they are read. Shared by threads.
pub(super) trait Rows: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Reads the samples at `indices`, one after another, into `values`, which has exactly the room for them.
    ///
    /// # Errors
    ///
    /// A sample that does not exist, cannot be decoded, or contains a number that is not finite.
    fn read(&self, indices: &[u32], values: &mut [f32]) -> Result<(), DataError>;
}

/// Samples in memory.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    /// One row after another.
    pub(super) values: Vec<f32>,
    /// Values of a row, at least one.
    pub(super) row_length: usize,
}

impl Rows for Table {
    fn len(&self) -> usize {
        self.values.len() / self.row_length
    }

    fn read(&self, indices: &[u32], values: &mut [f32]) -> Result<(), DataError> {
        for (index, row) in indices.iter().zip(values.chunks_exact_mut(self.row_length)) {
            let stored = self
                .values
                .get(*index as usize * self.row_length..)
                .and_then(|rest| rest.get(..self.row_length))
                .ok_or_else(|| DataError::out_of_range(&[*index], self.len()))?;
            row.copy_from_slice(stored);
        }
        Ok(())
    }
}
