//! Samples as they are stored.

use super::DataError;

/// Samples of one shape that lie somewhere, and are converted to f32 when they are read. Shared by threads.
pub(super) trait Rows: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Reads the samples at `indices`, one after another, into `values`, which has room for just those.
    ///
    /// # Errors
    ///
    /// A sample that is not there, cannot be decoded, or is no finite number throughout.
    fn read(&self, indices: &[u32], values: &mut [f32]) -> Result<(), DataError>;
}

/// Samples that have been read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    /// Row after row.
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
