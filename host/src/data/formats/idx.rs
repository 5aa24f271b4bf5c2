//! The format of MNIST and its family: two zero bytes, the type, the number of dimensions, each dimension's length as
//! big-endian u32, then the elements, big-endian (Y. LeCun, "The MNIST database").

use std::path::Path;
use std::sync::Arc;

use super::array::{Array, Bytes, Element, Layout};
use crate::data::{DataError, Source};

/// The array of an IDX file, plain or compressed with gzip.
pub(super) fn open(path: &Path, source: Source<'_>) -> Result<Array, DataError> {
    let (path, bytes) = Bytes::open(path, source)?;
    let layout = header(&bytes).map_err(|problem| DataError::malformed(&path, &problem))?;
    Array::new(path, "", Arc::new(bytes), layout)
}

fn header(bytes: &[u8]) -> Result<Layout, String> {
    let Some((&[first, second, kind, dimensions], rest)) = bytes.split_first_chunk::<4>() else {
        return Err("is not an IDX file: it ends within the first four bytes".to_owned());
    };
    let element = match (first, second, kind) {
        (0, 0, 0x08) => Element::U8,
        (0, 0, 0x09) => Element::I8,
        (0, 0, 0x0b) => Element::I16,
        (0, 0, 0x0c) => Element::I32,
        (0, 0, 0x0d) => Element::F32,
        (0, 0, 0x0e) => Element::F64,
        _ => {
            return Err(format!(
                "is not an IDX file: it starts with {first:#04x} {second:#04x} {kind:#04x} instead of 0x00 0x00 and a type"
            ));
        }
    };
    let (lengths, _) = rest.as_chunks::<4>();
    let Some(lengths) = lengths.get(..usize::from(dimensions)) else {
        return Err(format!("is truncated: it ends within the lengths of its {dimensions} dimensions"));
    };
    let shape = lengths.iter().map(|length| u32::from_be_bytes(*length) as usize).collect();
    Ok(Layout { start: 4 + 4 * usize::from(dimensions), element, big_endian: true, shape })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::Normalization;
    use crate::data::rows::Rows;

    fn read(bytes: &[u8]) -> Result<Array, DataError> {
        open(Path::new("a.idx"), Source::Bytes(bytes))
    }

    #[test]
    fn elements_are_big_endian() {
        let mut bytes = vec![0, 0, 0x0b, 2, 0, 0, 0, 2, 0, 0, 0, 2];
        bytes.extend([1i16, -2, 300, 4].iter().flat_map(|value| value.to_be_bytes()));
        let array = read(&bytes).unwrap();
        let mut values = [0.0; 4];
        array.read(&[1, 0], &Normalization::none(), &mut values).unwrap();
        assert_eq!(values, [300.0, 4.0, 1.0, -2.0]);
        assert!(array.read(&[2], &Normalization::none(), &mut values[..2]).is_err());
    }

    #[test]
    fn what_is_no_idx_is_told() {
        let message = |bytes: &[u8]| read(bytes).err().unwrap().to_string();
        assert_eq!(message(&[0, 0, 8]), "`a.idx` is not an IDX file: it ends within the first four bytes");
        assert_eq!(
            message(&[0, 8, 3, 1, 0, 0, 0, 1]),
            "`a.idx` is not an IDX file: it starts with 0x00 0x08 0x03 instead of 0x00 0x00 and a type"
        );
        assert_eq!(
            message(&[0, 0, 8, 2, 0, 0, 0, 1]),
            "`a.idx` is truncated: it ends within the lengths of its 2 dimensions"
        );
        assert_eq!(
            message(&[0, 0, 8, 1, 0, 0, 0, 5, 1, 2]),
            "`a.idx` is truncated: 2 bytes are too few for an array of shape [5]"
        );
        assert_eq!(message(&[0, 0, 8, 1, 0, 0, 0, 0]), "`a.idx` has no samples");
        assert_eq!(message(&[0, 0, 8, 0, 1]), "`a.idx` is a single number, not an array");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_array_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..64), fixed: bool) {
            if fixed && bytes.len() > 4 {
                bytes[..4].copy_from_slice(&[0, 0, 8, 1]);
                bytes[4..].iter_mut().take(3).for_each(|byte| *byte = 0);
            }
            if let Ok(array) = read(&bytes) {
                let mut row = vec![0.0; array.row_length()];
                for index in 0..array.len().min(10) as u32 {
                    let _ = array.read(&[index], &Normalization::none(), &mut row);
                }
            }
        }
    }
}
