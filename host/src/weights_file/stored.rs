//! A tensor where it lies in its file.

use std::path::PathBuf;
use std::sync::Arc;

use super::dtype::Dtype;
use crate::mapped_file::MappedFile;
use crate::refusal::Refusal;

/// A file that tensors lie in.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) bytes: MappedFile,
}

/// A tensor in a file. Its view never reaches beyond its bytes.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Elements from one index of a dimension to the next.
    pub(super) strides: Vec<usize>,
    pub(super) part: Arc<Part>,
    pub(super) content: Content,
}

/// Where the elements are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Content {
    /// From this byte of the file.
    Plain { start: usize },
    /// In a member of a zip file that is compressed with deflate (RFC 1951): these bytes of the file.
    Deflated {
        start: usize,
        packed: usize,
        /// The bytes before the elements, once it is unpacked.
        skipped: usize,
        /// All of its bytes, unpacked.
        unpacked: usize,
        crc32: u32,
    },
}

/// The view of a storage that a tensor is; all in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl View {
    /// All of a storage, row by row; `None` if there are more elements than can be counted.
    pub(super) fn whole(shape: Vec<usize>) -> Option<Self> {
        let mut strides = vec![1; shape.len()];
        let mut count = 1usize;
        for (stride, length) in strides.iter_mut().zip(&shape).rev() {
            *stride = count;
            count = count.checked_mul((*length).max(1))?;
        }
        Some(Self { offset: 0, shape, strides })
    }

    /// The elements of the storage up to the last one that it reaches, from the first one of the storage; `None` if
    /// they cannot be counted, or the tensor's own cannot.
    pub(super) fn end(&self) -> Option<usize> {
        let count = self.shape.iter().try_fold(1usize, |count, length| count.checked_mul(*length))?;
        i64::try_from(count).ok()?;
        if count == 0 || self.shape.len() != self.strides.len() {
            return (self.shape.len() == self.strides.len()).then_some(self.offset);
        }
        self.shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.offset, |last, (length, stride)| last.checked_add((length - 1).checked_mul(*stride)?))?
            .checked_add(1)
    }
}

impl StoredTensor {
    /// The tensor that is `view` of the bytes of a storage, which must lie in the file.
    ///
    /// # Errors
    ///
    /// A view beyond the storage, or a storage beyond the file.
    pub(super) fn plain(
        dtype: Dtype,
        view: View,
        part: &Arc<Part>,
        storage: std::ops::Range<usize>,
    ) -> Result<Self, Refusal> {
        if storage.start > storage.end || storage.end > part.bytes.len() {
            return Err(Refusal::new("its values lie beyond the end of the file").with_hint(DAMAGED));
        }
        let bytes = view.end().and_then(|end| end.checked_mul(dtype.size()));
        if bytes.is_none_or(|bytes| bytes > storage.len()) {
            return Err(beyond(&view.shape, storage.len()));
        }
        let start = storage.start.saturating_add(view.offset.saturating_mul(dtype.size()));
        let View { shape, strides, .. } = view;
        Ok(Self { dtype, shape, strides, part: Arc::clone(part), content: Content::Plain { start } })
    }

    /// The elements from its first one to its last one, with what lies between them.
    pub(super) fn span(&self) -> usize {
        let view = View { offset: 0, shape: self.shape.clone(), strides: self.strides.clone() };
        view.end().unwrap_or(0)
    }

    /// What tells its values from others: two names of tied weights have the same.
    pub fn place(&self) -> impl Eq + std::hash::Hash + '_ {
        (Arc::as_ptr(&self.part), &self.content, self.dtype, &self.shape, &self.strides)
    }
}

/// What to do with a file that does not hold what it says.
pub(super) const DAMAGED: &str = "the file is damaged or not whole: copy it again from its source";

/// A tensor of this shape reaches beyond its bytes.
pub(super) fn beyond(shape: &[usize], bytes: usize) -> Refusal {
    Refusal::new(format!("its shape {shape:?} reaches beyond its {bytes} bytes")).with_hint(DAMAGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(offset: usize, shape: &[usize], strides: &[usize]) -> Option<usize> {
        View { offset, shape: shape.to_vec(), strides: strides.to_vec() }.end()
    }

    #[test]
    fn the_end_of_a_view_is_counted_without_overflow() {
        assert_eq!(end(0, &[], &[]), Some(1));
        assert_eq!(end(2, &[3, 4], &[4, 1]), Some(14));
        assert_eq!(end(0, &[3, 4], &[1, 3]), Some(12));
        assert_eq!(end(5, &[0, 4], &[4, 1]), Some(5));
        assert_eq!(end(0, &[2, 1 << 40], &[0, 0]), Some(1));
        assert_eq!(end(0, &[1 << 40, 1 << 40], &[0, 0]), None);
        assert_eq!(end(usize::MAX, &[1], &[1]), None);
        assert_eq!(end(1, &[3], &[usize::MAX]), None);
        assert_eq!(end(0, &[2], &[1, 1]), None);
        assert_eq!(View::whole(vec![2, 3, 4]).map(|view| view.strides), Some(vec![12, 4, 1]));
        assert_eq!(View::whole(vec![usize::MAX, 2, 2]), None);
    }
}
