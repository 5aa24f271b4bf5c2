//! Arrays in files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use tch::Tensor;

use super::file;
use crate::data::normalize::ByteTables;
use crate::data::rows::{Rows, TypedRows};
use crate::data::{DataError, Normalization, SampleType, Source};
use crate::mapped_file::MappedFile;
use crate::torch::TorchError;
use crate::torch::values::fill;

/// The bytes of a file.
pub(super) enum Bytes {
    /// Read or unpacked into memory as a whole.
    Owned(Vec<u8>),
    /// Read from the file on access.
    Mapped(MappedFile),
}

impl Bytes {
    /// The content of a file: mapped into memory, or unpacked if it is compressed with gzip.
    pub(super) fn open(path: &Path, source: Source<'_>) -> Result<(PathBuf, Bytes), DataError> {
        let Source::Folder(folder) = source else {
            let (path, content) = file::read(path, source)?;
            return Ok((path, Bytes::Owned(content.into_owned())));
        };
        let full = folder.join(path);
        match MappedFile::open(&full) {
            Ok(map) if file::is_gzip(&map) => {
                let (path, content) = file::read(path, source)?;
                Ok((path, Bytes::Owned(content.into_owned())))
            }
            Ok(map) => Ok((full, Bytes::Mapped(map))),
            Err(source) => Err(DataError::Read { path: full, source }),
        }
    }

    /// Whether the file still has its length: reading a missing part would end the process.
    fn check(&self, path: &Path) -> Result<(), DataError> {
        let Bytes::Mapped(map) = self else { return Ok(()) };
        match map.is_whole() {
            Ok(true) => Ok(()),
            Ok(false) => Err(DataError::malformed(path, "was shortened while it was read")),
            Err(source) => Err(DataError::Read { path: path.to_owned(), source }),
        }
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped(map) => map,
        }
    }
}

/// The type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Element {
    /// The bytes of one element.
    pub(super) fn size(self) -> usize {
        match self {
            Element::Bool | Element::U8 | Element::I8 => 1,
            Element::U16 | Element::I16 | Element::F16 | Element::Bf16 => 2,
            Element::U32 | Element::I32 | Element::F32 => 4,
            Element::U64 | Element::I64 | Element::F64 => 8,
        }
    }

    /// Whether it may contain fractions and NaN.
    pub(super) fn is_float(self) -> bool {
        matches!(self, Element::F16 | Element::Bf16 | Element::F32 | Element::F64)
    }
}

/// Evaluates an expression with the elements in some bytes, as arrays of bytes, and the function that makes a number of
/// one: once for each type, so that the compiler can vectorize the loop.
macro_rules! each_element {
    ($array:expr, $bytes:expr, |$stored:ident, $number:ident| $body:expr) => {{
        macro_rules! with {
            ($type:ty, $value:ident => $convert:expr) => {{
                const SIZE: usize = size_of::<$type>();
                let $stored = $bytes.as_chunks::<SIZE>().0;
                if $array.big_endian {
                    let $number = |bytes: [u8; SIZE]| {
                        let $value = <$type>::from_be_bytes(bytes);
                        $convert
                    };
                    $body
                } else {
                    let $number = |bytes: [u8; SIZE]| {
                        let $value = <$type>::from_le_bytes(bytes);
                        $convert
                    };
                    $body
                }
            }};
        }
        match $array.element {
            Element::Bool => with!(u8, value => f64::from(u8::from(value != 0))),
            Element::U8 => with!(u8, value => f64::from(value)),
            Element::I8 => with!(i8, value => f64::from(value)),
            Element::U16 => with!(u16, value => f64::from(value)),
            Element::I16 => with!(i16, value => f64::from(value)),
            Element::U32 => with!(u32, value => f64::from(value)),
            Element::I32 => with!(i32, value => f64::from(value)),
            Element::U64 => with!(u64, value => value as f64),
            Element::I64 => with!(i64, value => value as f64),
            Element::F16 => with!(f16, value => value.to_f64()),
            Element::Bf16 => with!(bf16, value => value.to_f64()),
            Element::F32 => with!(f32, value => f64::from(value)),
            Element::F64 => with!(f64, value => value),
        }
    }};
}

/// An array in row-major order.
pub(super) struct Array {
    /// The file.
    pub(super) path: PathBuf,
    /// The name of the array in its file, for messages; empty if the file has only one.
    name: String,
    bytes: Arc<Bytes>,
    /// The byte of its first element.
    start: usize,
    element: Element,
    big_endian: bool,
    /// At least one length.
    shape: Vec<usize>,
}

/// The place and layout of an array in its file.
pub(crate) struct Layout {
    pub(crate) start: usize,
    pub(crate) element: Element,
    pub(crate) big_endian: bool,
    pub(crate) shape: Vec<usize>,
}

impl Array {
    /// The array in `bytes` that `layout` describes.
    ///
    /// # Errors
    ///
    /// The file ends before the array does, or the array has no samples.
    pub(super) fn new(path: PathBuf, name: &str, bytes: Arc<Bytes>, layout: Layout) -> Result<Array, DataError> {
        let Layout { start, element, big_endian, shape } = layout;
        let array = Array { path, name: name.to_owned(), bytes, start, element, big_endian, shape };
        if array.shape.is_empty() {
            return Err(array.malformed("is a single number, not an array"));
        }
        let count = array.shape.iter().try_fold(1usize, |count, length| count.checked_mul(*length));
        let end = count.and_then(|count| count.checked_mul(element.size())).and_then(|bytes| start.checked_add(bytes));
        let available = array.bytes.len().saturating_sub(start);
        match end {
            Some(end) if end <= array.bytes.len() => {}
            _ => {
                let shape = &array.shape;
                return Err(array.malformed(&format!(
                    "is truncated: {available} bytes are too few for an array of shape {shape:?}"
                )));
            }
        }
        if count == Some(0) {
            return Err(DataError::Empty { path: array.path });
        }
        Ok(array)
    }

    /// An error about the array.
    pub(super) fn malformed(&self, problem: &str) -> DataError {
        match self.name.as_str() {
            "" => DataError::malformed(&self.path, problem),
            name => DataError::malformed(&self.path, &format!("array `{name}` {problem}")),
        }
    }

    /// An error about one of its samples.
    pub(super) fn wrong_sample(&self, sample: usize, problem: String) -> DataError {
        DataError::Sample { path: self.path.clone(), sample, problem }
    }

    /// Its name in its file; empty if the file has only one.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn element(&self) -> Element {
        self.element
    }

    /// Elements of one sample.
    pub(super) fn row_length(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Every element in order, for small arrays: targets.
    pub(super) fn numbers(&self) -> Vec<f64> {
        let count = self.shape.iter().product();
        let mut numbers = vec![0.0; count];
        self.convert(0, &mut numbers);
        numbers
    }

    /// The bytes of `count` elements that exist, starting with the one at `first`.
    fn stored(&self, first: usize, count: usize) -> &[u8] {
        let size = self.element.size();
        let start = self.start + first * size;
        &self.bytes[start..start + count * size]
    }

    /// Reads elements that exist, starting with the one at `first`.
    fn convert(&self, first: usize, values: &mut [f64]) {
        let bytes = self.stored(first, values.len());
        each_element!(self, bytes, |stored, number| {
            values.iter_mut().zip(stored).for_each(|(value, stored)| *value = number(*stored));
        });
    }

    /// Reads the sample at `index`, which exists, normalized.
    fn write(&self, index: usize, normalization: &Normalization, row: &mut [f32]) -> Result<(), DataError> {
        let first = index * row.len();
        let bytes = self.stored(first, row.len());
        let written = each_element!(self, bytes, |stored, number| normalization.write(stored, number, row));
        written.map_err(|position| {
            let mut stored = [0.0];
            self.convert(first + position, &mut stored);
            self.not_finite(index, position, stored[0]).err().unwrap_or(DataError::Overflow { sample: index, position })
        })
    }

    /// Reads the sample at `index`, which exists, of whole numbers.
    fn write_integers(&self, index: usize, row: &mut [i64]) -> Result<(), DataError> {
        let bytes = self.stored(index * row.len(), row.len());
        macro_rules! with {
            ($type:ty, $value:ident => $convert:expr) => {{
                let read = if self.big_endian { <$type>::from_be_bytes } else { <$type>::from_le_bytes };
                let mut numbers = row.iter_mut().zip(bytes.as_chunks::<{ size_of::<$type>() }>().0);
                numbers.position(|(number, stored)| {
                    let $value = read(*stored);
                    let converted: Option<i64> = $convert;
                    *number = converted.unwrap_or_default();
                    converted.is_none()
                })
            }};
        }
        let too_large = match self.element {
            Element::Bool | Element::U8 => with!(u8, value => Some(i64::from(value))),
            Element::I8 => with!(i8, value => Some(i64::from(value))),
            Element::U16 => with!(u16, value => Some(i64::from(value))),
            Element::I16 => with!(i16, value => Some(i64::from(value))),
            Element::U32 => with!(u32, value => Some(i64::from(value))),
            Element::I32 => with!(i32, value => Some(i64::from(value))),
            Element::U64 => with!(u64, value => i64::try_from(value).ok()),
            Element::I64 => with!(i64, value => Some(value)),
            Element::F16 | Element::Bf16 | Element::F32 | Element::F64 => Some(0),
        };
        let Some(position) = too_large else { return Ok(()) };
        Err(self.wrong_sample(index, format!("has a number at position {position} that is no 64-bit integer")))
    }

    /// An error about a stored number that is not finite as f32.
    fn not_finite(&self, sample: usize, position: usize, number: f64) -> Result<(), DataError> {
        if (number as f32).is_finite() {
            return Ok(());
        }
        let problem = format!("has `{number}` at position {position}, which is not a finite 32-bit number");
        Err(self.wrong_sample(sample, problem))
    }

    /// The samples at `indices`, after a look at whether they are there.
    fn existing(&self, indices: &[u32]) -> Result<impl Iterator<Item = usize>, DataError> {
        self.bytes.check(&self.path)?;
        if indices.iter().any(|index| *index as usize >= self.len()) {
            return Err(DataError::out_of_range(indices, self.len()));
        }
        Ok(indices.iter().map(|index| *index as usize))
    }
}

impl TypedRows for Array {
    fn sample_type(&self) -> SampleType {
        match self.element {
            Element::Bool => SampleType::Bool,
            Element::F16 | Element::Bf16 | Element::F32 | Element::F64 => SampleType::F32,
            Element::U8
            | Element::I8
            | Element::U16
            | Element::I16
            | Element::U32
            | Element::I32
            | Element::U64
            | Element::I64 => SampleType::I64,
        }
    }

    fn gather(&self, indices: &[u32], shape: &[i64]) -> Result<Tensor, DataError> {
        let row_length = self.row_length().max(1);
        match self.sample_type() {
            SampleType::F32 => fill(shape, |values: &mut [f32]| self.read(indices, &Normalization::none(), values)),
            SampleType::I64 => fill(shape, |values: &mut [i64]| {
                for (index, row) in self.existing(indices)?.zip(values.chunks_exact_mut(row_length)) {
                    self.write_integers(index, row)?;
                }
                Ok::<(), DataError>(())
            }),
            SampleType::Bool => {
                let bytes = fill(shape, |values: &mut [u8]| {
                    for (index, row) in self.existing(indices)?.zip(values.chunks_exact_mut(row_length)) {
                        let stored = self.stored(index * row_length, row_length);
                        row.iter_mut().zip(stored).for_each(|(value, stored)| *value = u8::from(*stored != 0));
                    }
                    Ok::<(), DataError>(())
                })?;
                Ok(bytes.f_view_dtype(SampleType::Bool.kind()).map_err(TorchError::from)?)
            }
        }
    }
}

impl Rows for Array {
    fn len(&self) -> usize {
        self.shape[0]
    }

    fn fits_f32(&self) -> bool {
        match self.element {
            Element::U32 | Element::I32 | Element::U64 | Element::I64 | Element::F64 => false,
            Element::Bool | Element::U8 | Element::I8 | Element::U16 | Element::I16 => true,
            Element::F16 | Element::Bf16 | Element::F32 => true,
        }
    }

    fn read_stored(&self, indices: &[u32], values: &mut [f64]) -> Result<(), DataError> {
        let row_length = self.row_length().max(1);
        for (index, row) in self.existing(indices)?.zip(values.chunks_exact_mut(row_length)) {
            self.convert(index * row_length, row);
            if self.element.is_float() {
                row.iter().enumerate().try_for_each(|(position, value)| self.not_finite(index, position, *value))?;
            }
        }
        Ok(())
    }

    fn read(&self, indices: &[u32], normalization: &Normalization, values: &mut [f32]) -> Result<(), DataError> {
        let row_length = self.row_length().max(1);
        let tables = match self.element {
            Element::U8 => ByteTables::new(normalization, values.len(), f64::from),
            _ => None,
        };
        for (index, row) in self.existing(indices)?.zip(values.chunks_exact_mut(row_length)) {
            match &tables {
                Some(tables) => tables.write(self.stored(index * row_length, row_length), row),
                None => self.write(index, normalization, row)?,
            }
        }
        Ok(())
    }
}
