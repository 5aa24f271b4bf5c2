//! Tensor files: safetensors, written from borrowed bytes and read into the caller's buffers.

use std::io::{self, Read, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::CheckpointError;

/// The format's own limit of a header, in bytes.
const MAX_HEADER: u64 = 100_000_000;
/// The length of a header comes before it; the header is padded so that the data starts at a multiple of this.
const LENGTH_BYTES: usize = size_of::<u64>();

/// The tensor files of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorFile {
    /// Parameters and buffers.
    Model,
    /// The optimizer's state.
    Optimizer,
    /// Named copies of the weights, `<copy>/<tensor>`.
    Copies,
    /// The states of the random number generators.
    Rng,
}

impl TensorFile {
    pub(super) const ALL: [TensorFile; 4] =
        [TensorFile::Model, TensorFile::Optimizer, TensorFile::Copies, TensorFile::Rng];

    /// Its path in a checkpoint.
    pub fn path(self) -> &'static str {
        match self {
            TensorFile::Model => "model.safetensors",
            TensorFile::Optimizer => "optimizer.safetensors",
            TensorFile::Copies => "copies.safetensors",
            TensorFile::Rng => "rng.safetensors",
        }
    }
}

/// A tensor to be written; its bytes are borrowed and never copied.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    /// Its name, unique in the file.
    pub name: &'a str,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: &'a [usize],
    /// Its elements: little-endian, row by row, contiguous, on the CPU.
    pub bytes: &'a [u8],
}

/// The description of a tensor in a tensor file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The size of its elements together, in bytes.
    pub bytes: usize,
}

/// A tensor that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedTensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, as in [`TensorRef`].
    pub bytes: Vec<u8>,
}

/// Receives the tensors of a file.
pub trait TensorSink {
    /// The buffer for the elements of a tensor: exactly `tensor.bytes` bytes; `None` if the tensor is not needed.
    /// Called once for each tensor, in the file's order; the buffer is filled before the next call.
    fn buffer(&mut self, tensor: &TensorEntry) -> Option<&mut [u8]>;
}

impl TensorSink for Vec<OwnedTensor> {
    fn buffer(&mut self, tensor: &TensorEntry) -> Option<&mut [u8]> {
        self.push(OwnedTensor {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            bytes: vec![0; tensor.bytes],
        });
        self.last_mut().map(|tensor| tensor.bytes.as_mut_slice())
    }
}

/// Tensors in the file's order, with a valid header.
pub(super) struct TensorWriter<'a> {
    header: Vec<u8>,
    tensors: Vec<TensorRef<'a>>,
}

impl<'a> TensorWriter<'a> {
    /// Checks names and sizes. The order is that of the safetensors library: wide dtypes first, so that every tensor is
    /// aligned, then by name.
    pub(super) fn new(file: &'static str, tensors: &[TensorRef<'a>]) -> Result<TensorWriter<'a>, CheckpointError> {
        let mut tensors = tensors.to_vec();
        tensors.sort_by(|left, right| right.dtype.cmp(&left.dtype).then(left.name.cmp(right.name)));
        let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[name, next]| name == next) {
            return Err(CheckpointError::DuplicateTensor { file, tensor: (*name).to_owned() });
        }
        let mut offset = 0;
        let mut entries = Vec::with_capacity(tensors.len());
        for tensor in &tensors {
            let bits = tensor.shape.iter().try_fold(tensor.dtype.bitsize(), |bits, &size| bits.checked_mul(size));
            if bits != tensor.bytes.len().checked_mul(8) {
                let tensor_name = tensor.name.to_owned();
                return Err(CheckpointError::TensorSizeDiffers { tensor: tensor_name, found: tensor.bytes.len() });
            }
            let end = offset + tensor.bytes.len();
            let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.to_vec(), data_offsets: (offset, end) };
            entries.push((tensor.name.to_owned(), info));
            offset = end;
        }
        let malformed = |error: &dyn std::error::Error| CheckpointError::MalformedTensors {
            path: file.into(),
            reason: error.to_string(),
        };
        let metadata = Metadata::new(None, entries).map_err(|error| malformed(&error))?;
        let mut header = serde_json::to_vec(&metadata).map_err(|error| malformed(&error))?;
        header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
        Ok(TensorWriter { header, tensors })
    }

    pub(super) fn write(&self, output: &mut impl Write) -> io::Result<()> {
        output.write_all(&(self.header.len() as u64).to_le_bytes())?;
        output.write_all(&self.header)?;
        self.tensors.iter().try_for_each(|tensor| output.write_all(tensor.bytes))
    }
}

/// Reads a tensor file of `bytes` bytes into a sink. Bytes after the last tensor are an error. The size in the header
/// is checked against `bytes` before memory is allocated.
pub(super) fn read(
    path: &Path,
    bytes: u64,
    input: &mut impl Read,
    sink: &mut dyn TensorSink,
) -> Result<(), CheckpointError> {
    let malformed = |reason: String| CheckpointError::MalformedTensors { path: path.to_owned(), reason };
    let mut length = [0; LENGTH_BYTES];
    let mut read_exact = |buffer: &mut [u8]| input.read_exact(buffer).map_err(CheckpointError::io("read", path));
    if bytes < LENGTH_BYTES as u64 {
        return Err(malformed("it ends within the length of its header".to_owned()));
    }
    read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let data = (bytes - LENGTH_BYTES as u64).checked_sub(length).filter(|_| length <= MAX_HEADER);
    let Some((data, length)) = data.zip(usize::try_from(length).ok()) else {
        return Err(malformed(format!("it cannot have a header of {length} bytes")));
    };
    let mut header = vec![0; length];
    read_exact(&mut header)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| malformed(error.to_string()))?;
    if metadata.data_len() as u64 != data {
        return Err(malformed(format!("its tensors have {} bytes, but its data has {data}", metadata.data_len())));
    }
    let mut skipped = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        let (start, end) = info.data_offsets;
        let entry = TensorEntry { name, dtype: info.dtype, shape: info.shape.clone(), bytes: end - start };
        match sink.buffer(&entry) {
            Some(buffer) if buffer.len() == entry.bytes => read_exact(buffer)?,
            Some(buffer) => {
                let found = buffer.len();
                return Err(CheckpointError::BufferSizeDiffers { tensor: entry.name, expected: entry.bytes, found });
            }
            None => {
                skipped.resize(entry.bytes, 0);
                read_exact(&mut skipped)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use safetensors::SafeTensors;

    fn written(tensors: &[TensorRef<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        TensorWriter::new("model.safetensors", tensors).unwrap().write(&mut bytes).unwrap();
        bytes
    }

    fn read_back(bytes: &[u8]) -> Result<Vec<OwnedTensor>, CheckpointError> {
        let mut tensors = Vec::new();
        read(Path::new("x"), bytes.len() as u64, &mut &bytes[..], &mut tensors)?;
        Ok(tensors)
    }

    fn example() -> Vec<u8> {
        written(&[
            TensorRef { name: "a", dtype: Dtype::U8, shape: &[3], bytes: b"xyz" },
            TensorRef { name: "b", dtype: Dtype::F32, shape: &[], bytes: &1.5_f32.to_le_bytes() },
        ])
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_here_and_in_the_safetensors_library(
            tensors in proptest::collection::btree_map("\\PC{0,6}", (0..3_usize, 0..4_usize, any::<u8>()), 0..6)
        ) {
            // The header reserves this name.
            prop_assume!(!tensors.contains_key("__metadata__"));
            let dtypes = [Dtype::U8, Dtype::F32, Dtype::I64];
            let owned: Vec<OwnedTensor> = tensors
                .into_iter()
                .map(|(name, (dtype, size, byte))| OwnedTensor {
                    name,
                    dtype: dtypes[dtype],
                    shape: vec![size, 2],
                    bytes: vec![byte; size * 2 * dtypes[dtype].bitsize() / 8],
                })
                .collect();
            let borrowed: Vec<TensorRef<'_>> = owned
                .iter()
                .map(|OwnedTensor { name, dtype, shape, bytes }| TensorRef { name, dtype: *dtype, shape, bytes })
                .collect();
            let bytes = written(&borrowed);
            let mut read = read_back(&bytes).unwrap();
            read.sort_by(|left, right| left.name.cmp(&right.name));
            prop_assert_eq!(&read, &owned);
            let library = SafeTensors::deserialize(&bytes).unwrap();
            for tensor in &owned {
                let view = library.tensor(&tensor.name).unwrap();
                prop_assert_eq!((view.dtype(), view.shape(), view.data()), (tensor.dtype, &tensor.shape[..], &tensor.bytes[..]));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40), length in 0..40_u64) {
            let mut framed = length.to_le_bytes().to_vec();
            framed.extend(&bytes);
            for bytes in [bytes, framed] {
                if let Ok(tensors) = read_back(&bytes) {
                    prop_assert!(SafeTensors::deserialize(&bytes).is_ok(), "{tensors:?}");
                }
            }
        }

        #[test]
        fn a_truncated_file_is_refused(index in any::<prop::sample::Index>()) {
            let bytes = example();
            prop_assert!(read_back(&bytes[..index.index(bytes.len())]).is_err());
        }
    }

    #[test]
    fn a_header_that_claims_more_than_the_file_is_refused_before_it_is_believed() {
        for length in [u64::MAX, MAX_HEADER, 1 << 40] {
            let error = read_back(&length.to_le_bytes()).unwrap_err();
            assert!(matches!(error, CheckpointError::MalformedTensors { .. }), "{error}");
        }
    }

    #[test]
    fn bytes_after_the_tensors_are_refused() {
        let mut bytes = example();
        bytes.push(0);
        assert!(matches!(read_back(&bytes), Err(CheckpointError::MalformedTensors { .. })));
    }

    #[test]
    fn a_sink_takes_what_it_wants_and_nothing_of_another_size() {
        struct One([u8; 4]);
        impl TensorSink for One {
            fn buffer(&mut self, tensor: &TensorEntry) -> Option<&mut [u8]> {
                (tensor.name == "b").then_some(&mut self.0[..])
            }
        }
        struct Small([u8; 2]);
        impl TensorSink for Small {
            fn buffer(&mut self, _: &TensorEntry) -> Option<&mut [u8]> {
                Some(&mut self.0)
            }
        }
        let bytes = example();
        let mut one = One([0; 4]);
        read(Path::new("x"), bytes.len() as u64, &mut &bytes[..], &mut one).unwrap();
        assert_eq!(f32::from_le_bytes(one.0), 1.5);
        let error = read(Path::new("x"), bytes.len() as u64, &mut &bytes[..], &mut Small([0; 2])).unwrap_err();
        assert_eq!(error.to_string(), "the tensor `b` has 4 bytes, but the buffer for it has 2");
    }

    #[test]
    fn tensors_that_are_none_are_not_written() {
        let scalar = TensorRef { name: "a", dtype: Dtype::F32, shape: &[], bytes: &[0; 4] };
        let refused = |tensors: &[TensorRef<'_>]| TensorWriter::new("model.safetensors", tensors).err().unwrap();
        assert!(matches!(refused(&[scalar, scalar]), CheckpointError::DuplicateTensor { .. }));
        for shape in [&[2][..], &[usize::MAX, 2], &[0]] {
            assert!(matches!(refused(&[TensorRef { shape, ..scalar }]), CheckpointError::TensorSizeDiffers { .. }));
        }
    }
}
