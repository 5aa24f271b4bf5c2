//! Tensors of a safetensors file.

use std::path::Path;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};

use super::array::{Array, Bytes, Element, Layout};
use super::npy::no_array;
use crate::data::{DataError, Source};

/// The header is a length of eight bytes, then JSON of that length.
const LENGTH_BYTES: usize = 8;

/// The tensors of these names, in their order.
pub(super) fn open(path: &Path, names: &[&str], source: Source<'_>) -> Result<Vec<Array>, DataError> {
    let (path, bytes) = Bytes::open(path, source)?;
    let bytes = Arc::new(bytes);
    let (header, metadata) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| DataError::malformed(&path, &format!("is not a safetensors file: {error}")))?;
    let open = |name: &&str| {
        let Some(info) = metadata.info(name) else {
            let mut available: Vec<String> = metadata.tensors().into_keys().collect();
            available.sort_unstable();
            return Err(no_array(&path, name, &available));
        };
        let element = match info.dtype {
            Dtype::BOOL => Element::Bool,
            Dtype::U8 => Element::U8,
            Dtype::I8 => Element::I8,
            Dtype::U16 => Element::U16,
            Dtype::I16 => Element::I16,
            Dtype::U32 => Element::U32,
            Dtype::I32 => Element::I32,
            Dtype::U64 => Element::U64,
            Dtype::I64 => Element::I64,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::Bf16,
            Dtype::F32 => Element::F32,
            Dtype::F64 => Element::F64,
            dtype => {
                let problem = format!("array `{name}` has elements of type `{dtype:?}`, which is not supported");
                return Err(DataError::malformed(&path, &problem));
            }
        };
        let start = LENGTH_BYTES + header + info.data_offsets.0;
        let layout = Layout { start, element, big_endian: false, shape: info.shape.clone() };
        Array::new(path.clone(), name, Arc::clone(&bytes), layout)
    };
    names.iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use safetensors::tensor::TensorView;

    use super::*;

    fn file() -> Vec<u8> {
        let x: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let y: Vec<u8> = [0i64, 1].iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensors = [
            ("x", TensorView::new(Dtype::F32, vec![2, 2], &x).unwrap()),
            ("y", TensorView::new(Dtype::I64, vec![2], &y).unwrap()),
        ];
        safetensors::serialize(tensors, None).unwrap()
    }

    fn read(bytes: &[u8], names: [&str; 2]) -> Result<[Array; 2], DataError> {
        let arrays = open(Path::new("a.safetensors"), &names, Source::Bytes(bytes))?;
        Ok(arrays.try_into().ok().unwrap())
    }

    #[test]
    fn tensors_are_found_by_name() {
        let [x, y] = read(&file(), ["x", "y"]).unwrap();
        assert_eq!((x.numbers(), y.numbers()), (vec![1.0, 2.0, 3.0, 4.0], vec![0.0, 1.0]));
        assert_eq!((x.shape(), y.element()), ([2, 2].as_slice(), Element::I64));
        let missing = read(&file(), ["x", "z"]).err().unwrap().to_string();
        assert!(missing.starts_with("`a.safetensors` has no array `z`; it has `x`, `y`"), "{missing}");
        let truncated = read(&file()[..file().len() - 1], ["x", "y"]).err().unwrap().to_string();
        assert!(truncated.starts_with("`a.safetensors` "), "{truncated}");
    }

    proptest! {
        #[test]
        fn damaged_files_are_arrays_or_errors(position in 0usize..200, byte: u8, length in 0usize..200) {
            let mut bytes = file();
            let position = position % bytes.len();
            bytes[position] = byte;
            bytes.truncate(length.max(1));
            if let Ok([x, _]) = read(&bytes, ["x", "y"]) {
                let _ = x.numbers();
            }
        }
    }
}
