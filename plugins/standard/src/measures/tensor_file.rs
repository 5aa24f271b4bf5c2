//! Tensors as files of NumPy (`numpy.lib.format`, version 1.0) and of safetensors
//! (<https://huggingface.co/docs/safetensors>).

use std::collections::BTreeMap;
use std::io::Write;

use plugin_api::{Error, Result, TensorView};
use serde_json::json;

/// NumPy's magic bytes, and version 1.0 of its header.
const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// The header of an array is padded to a multiple of this.
const NPY_ALIGNMENT: usize = 64;
/// The header of a safetensors file is padded to a multiple of this.
const SAFETENSORS_ALIGNMENT: usize = 8;

/// A tensor as it is written.
pub(crate) struct Written {
    name: String,
    shape: Vec<i64>,
    dtype: &'static Dtype,
    /// Its elements in row-major order, little-endian.
    bytes: Vec<u8>,
}

/// An element type by the names of the SDK, NumPy and safetensors.
struct Dtype {
    name: &'static str,
    npy: &'static str,
    safetensors: &'static str,
}

const DTYPES: [Dtype; 7] = [
    Dtype { name: "f32", npy: "<f4", safetensors: "F32" },
    Dtype { name: "f64", npy: "<f8", safetensors: "F64" },
    Dtype { name: "i64", npy: "<i8", safetensors: "I64" },
    Dtype { name: "i32", npy: "<i4", safetensors: "I32" },
    Dtype { name: "i16", npy: "<i2", safetensors: "I16" },
    Dtype { name: "i8", npy: "|i1", safetensors: "I8" },
    Dtype { name: "u8", npy: "|u1", safetensors: "U8" },
];

macro_rules! little_endian {
    ($view:expr, $type:ty) => {
        $view.to_vec::<$type>()?.into_iter().flat_map(<$type>::to_le_bytes).collect()
    };
}

impl Written {
    /// A copy of a tensor that lies on the CPU, under this name.
    ///
    /// # Errors
    ///
    /// An element type that cannot be written.
    pub(crate) fn new(name: &str, view: &TensorView<'_>) -> Result<Self> {
        let (name, holds) = (name.to_owned(), view.dtype().name());
        let dtype = DTYPES.iter().find(|dtype| dtype.name == holds).ok_or_else(|| {
            Error::new(format!("the tensor `{name}` holds `{holds}`, which cannot be written: name it in `exclude`"))
        })?;
        let bytes = match dtype.name {
            "f32" => little_endian!(view, f32),
            "f64" => little_endian!(view, f64),
            "i64" => little_endian!(view, i64),
            "i32" => little_endian!(view, i32),
            "i16" => little_endian!(view, i16),
            "i8" => little_endian!(view, i8),
            _ => view.to_vec::<u8>()?,
        };
        Ok(Self { name, shape: view.shape().to_vec(), dtype, bytes })
    }

    /// A name for its file.
    pub(crate) fn file_name(&self) -> String {
        format!("{}.npy", file_name(&self.name))
    }

    /// Writes it as NumPy's `.npy`.
    pub(crate) fn write_npy(&self, to: &mut impl Write) -> Result<()> {
        // Python's tuples: `(3,)` has a comma too.
        let shape: String = self.shape.iter().map(|length| format!("{length},")).collect();
        let mut header = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({shape}), }}", self.dtype.npy);
        let before = MAGIC.len() + size_of::<u16>();
        let length = (before + header.len() + 1).next_multiple_of(NPY_ALIGNMENT) - before;
        header.extend(std::iter::repeat_n(' ', length - 1 - header.len()));
        header.push('\n');
        let length = u16::try_from(length)
            .map_err(|_| Error::new(format!("the tensor `{}` has too many dimensions for `npy`", self.name)))?;
        to.write_all(MAGIC)?;
        to.write_all(&length.to_le_bytes())?;
        to.write_all(header.as_bytes())?;
        Ok(to.write_all(&self.bytes)?)
    }
}

/// A tensor's name as that of a file or folder. What file systems do not allow is written as `%` and two hexadecimal digits, so
/// that no two tensors have the same one.
pub(crate) fn file_name(tensor: &str) -> String {
    let mut name = String::new();
    for character in tensor.chars() {
        if character.is_control() || "%/\\:*?\"<>|".contains(character) {
            name.push_str(&format!("%{:02X}", u32::from(character)));
        } else {
            name.push(character);
        }
    }
    name
}

/// Writes all of them as one safetensors file.
pub(crate) fn write_safetensors(
    tensors: &mut [Written],
    metadata: &BTreeMap<&str, String>,
    to: &mut impl Write,
) -> Result<()> {
    // The widest elements first, so that every one is aligned.
    tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.npy.as_bytes().last().copied()));
    let mut header = BTreeMap::from([("__metadata__", json!(metadata))]);
    let mut begin = 0;
    for tensor in tensors.iter() {
        let end = begin + tensor.bytes.len();
        let entry = json!({ "dtype": tensor.dtype.safetensors, "shape": tensor.shape, "data_offsets": [begin, end] });
        header.insert(&tensor.name, entry);
        begin = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(SAFETENSORS_ALIGNMENT), b' ');
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    for tensor in tensors.iter() {
        to.write_all(&tensor.bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;

    use super::*;

    fn written(tensor: &Tensor) -> Written {
        Written::new(tensor.name(), &tensor.view()).unwrap()
    }

    #[test]
    fn an_array_is_as_numpy_writes_it() {
        let mut bytes = Vec::new();
        written(&Tensor::new("fc", &[2], &[1f32, -2.0]).unwrap()).write_npy(&mut bytes).unwrap();
        // The output of `numpy.save` for `numpy.array([1, -2], dtype="<f4")`.
        let mut expected =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }".to_vec();
        expected.resize(127, b' ');
        expected.push(b'\n');
        expected.extend([0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_type_comes_back_from_safetensors() {
        let mut tensors = [
            written(&Tensor::new("bytes", &[3], &[1u8, 2, 255]).unwrap()),
            written(&Tensor::new("count", &[], &[7i64]).unwrap()),
            written(&Tensor::new("weight", &[1, 2], &[0.5f32, f32::NAN]).unwrap()),
        ];
        let mut bytes = Vec::new();
        write_safetensors(&mut tensors, &BTreeMap::from([("epoch", "3".to_owned())]), &mut bytes).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("bytes").unwrap().data(), [1, 2, 255]);
        assert_eq!(read.tensor("count").unwrap().data(), 7i64.to_le_bytes());
        let weight = read.tensor("weight").unwrap();
        assert_eq!((weight.shape(), weight.dtype()), ([1, 2].as_slice(), safetensors::Dtype::F32));
        assert_eq!(weight.data(), [0.5f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat());
    }

    #[test]
    fn names_of_files_stay_in_their_folder_and_differ() {
        let name = |name: &str| written(&Tensor::new(name, &[1], &[1f32]).unwrap()).file_name();
        assert_eq!(name("fc1.weight"), "fc1.weight.npy");
        assert_eq!(name("../a"), "..%2Fa.npy");
        assert_ne!(name("a/b"), name("a%2Fb"));
    }
}
