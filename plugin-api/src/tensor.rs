//! Tensors as callbacks see them: borrowed views of the host's memory, and copies that they own.

use std::marker::PhantomData;

use crate::abi::{DataType, Device, DlTensor, TensorTable, Text};
use crate::error::{Error, Result};

/// An element type of tensors that can be read and created.
///
/// # Safety
///
/// `DTYPE` must describe `Self`, and every bit pattern of that many bytes must be a value of it.
pub unsafe trait Element: Copy + 'static {
    /// DLPack's description of the type.
    const DTYPE: DataType;
}

macro_rules! elements {
    ($($type:ty = ($code:literal, $bits:literal)),*) => { $(
        // SAFETY: a plain number of that many bits.
        unsafe impl Element for $type {
            const DTYPE: DataType = DataType { code: $code, bits: $bits, lanes: 1 };
        }
    )* };
}

elements!(f32 = (2, 32), f64 = (2, 64), i8 = (0, 8), i16 = (0, 16), i32 = (0, 32), i64 = (0, 64), u8 = (1, 8));

impl DataType {
    /// Its name, as in safetensors and Rust: `f32`, `bf16`, `i64`, `bool`, ….
    pub fn name(self) -> String {
        match self.code {
            0 => format!("i{}", self.bits),
            1 => format!("u{}", self.bits),
            2 => format!("f{}", self.bits),
            4 => format!("bf{}", self.bits),
            6 => "bool".to_owned(),
            code => format!("type{code}x{}", self.bits),
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        usize::from(self.bits).div_ceil(8) * usize::from(self.lanes)
    }
}

/// A tensor of the host, borrowed: it is not a copy, and valid until the hook returns.
///
/// Reading one that lies on an accelerator as a slice is an error; `Run::to_host` copies it.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    table: TensorTable,
    host: PhantomData<&'a ()>,
}

impl<'a> TensorView<'a> {
    /// Wraps a table.
    ///
    /// # Safety
    ///
    /// Everything that the table points to must be valid and unchanged for `'a`.
    #[doc(hidden)]
    pub unsafe fn from_table(table: TensorTable) -> Self {
        Self { table, host: PhantomData }
    }

    /// The table behind the view.
    #[doc(hidden)]
    pub fn table(&self) -> &TensorTable {
        &self.table
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        let name = self.table.name;
        // SAFETY: valid for `'a` by `from_table`'s contract.
        let bytes = unsafe { crate::abi::Bytes::from(name).read::<'a>() };
        std::str::from_utf8(bytes).unwrap_or("?")
    }

    /// Its element type.
    pub fn dtype(&self) -> DataType {
        self.table.tensor.dtype
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        self.table.tensor.device
    }

    /// Its shape; empty for a scalar.
    pub fn shape(&self) -> &'a [i64] {
        let tensor = &self.table.tensor;
        let dimensions = usize::try_from(tensor.dimensions).unwrap_or(0);
        if dimensions == 0 || tensor.shape.is_null() {
            return &[];
        }
        // SAFETY: `dimensions` sizes, valid for `'a` by `from_table`'s contract.
        unsafe { std::slice::from_raw_parts(tensor.shape, dimensions) }
    }

    /// Strides in elements, if the host gave them; `None` means contiguous.
    pub fn strides(&self) -> Option<&'a [i64]> {
        let tensor = &self.table.tensor;
        if tensor.strides.is_null() {
            return None;
        }
        // SAFETY: as many strides as sizes, valid for `'a`.
        Some(unsafe { std::slice::from_raw_parts(tensor.strides, self.shape().len()) })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().map(|&size| usize::try_from(size).unwrap_or(0)).product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its elements are contiguous, the last dimension fastest.
    pub fn is_contiguous(&self) -> bool {
        let Some(strides) = self.strides() else {
            return true;
        };
        let mut expected = 1;
        for (&size, &stride) in self.shape().iter().zip(strides).rev() {
            if size != 1 && stride != expected {
                return false;
            }
            expected *= size;
        }
        true
    }

    /// Its elements, borrowed.
    ///
    /// # Errors
    ///
    /// When it is not on the CPU, is not contiguous, or has another element type.
    pub fn as_slice<T: Element>(&self) -> Result<&'a [T]> {
        self.readable::<T>()?;
        if !self.is_contiguous() {
            return Err(Error::new(format!("tensor `{}` is not contiguous: copy it with `to_vec`", self.name())));
        }
        if self.is_empty() {
            return Ok(&[]);
        }
        let first = self.first_byte().cast::<T>();
        if !first.is_aligned() {
            return Err(Error::new(format!("tensor `{}` is not aligned for its type", self.name())));
        }
        // SAFETY: on the CPU, contiguous, of this type and aligned; valid for `'a`.
        Ok(unsafe { std::slice::from_raw_parts(first, self.len()) })
    }

    /// Its elements, copied, the last dimension fastest.
    ///
    /// # Errors
    ///
    /// When it is not on the CPU or has another element type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.readable::<T>()?;
        if self.is_contiguous() {
            return Ok(self.as_slice::<T>()?.to_vec());
        }
        let shape = self.shape();
        let strides = self.strides().unwrap_or(&[]);
        let mut values = Vec::with_capacity(self.len());
        let mut index = vec![0i64; shape.len()];
        for _ in 0..self.len() {
            let offset: i64 = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
            // SAFETY: `index` is within the shape, so that the offset is within the tensor.
            values.push(unsafe { self.first_byte().cast::<T>().offset(offset as isize).read_unaligned() });
            for dimension in (0..shape.len()).rev() {
                index[dimension] += 1;
                if index[dimension] < shape[dimension] {
                    break;
                }
                index[dimension] = 0;
            }
        }
        Ok(values)
    }

    /// The one element of a tensor with one element, as `f64`.
    ///
    /// # Errors
    ///
    /// When it has another number of elements, is not on the CPU, or is not `f32`, `f64` or `i64`.
    pub fn scalar(&self) -> Result<f64> {
        if self.len() != 1 {
            return Err(Error::new(format!("tensor `{}` has {} elements, not one", self.name(), self.len())));
        }
        match self.dtype() {
            f32::DTYPE => Ok(f64::from(self.to_vec::<f32>()?[0])),
            i64::DTYPE => Ok(self.to_vec::<i64>()?[0] as f64),
            _ => Ok(self.to_vec::<f64>()?[0]),
        }
    }

    fn readable<T: Element>(&self) -> Result<()> {
        if self.device().kind != 1 {
            return Err(Error::new(format!("tensor `{}` is not on the CPU: copy it with `Run::to_host`", self.name())));
        }
        if self.dtype() != T::DTYPE {
            return Err(Error::new(format!(
                "tensor `{}` holds `{}`, not `{}`",
                self.name(),
                self.dtype().name(),
                T::DTYPE.name()
            )));
        }
        Ok(())
    }

    fn first_byte(&self) -> *const u8 {
        let tensor = &self.table.tensor;
        tensor.data.cast::<u8>().wrapping_add(tensor.byte_offset as usize)
    }
}

impl std::fmt::Debug for TensorView<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "TensorView({} {:?} {})", self.name(), self.shape(), self.dtype().name())
    }
}

/// A tensor that the callback owns: contiguous, on the CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    name: String,
    shape: Vec<i64>,
    dtype: DataType,
    // Words of eight bytes, so that every element type is aligned.
    words: Vec<u64>,
}

impl Tensor {
    /// Creates a tensor of `values`, the last dimension fastest.
    ///
    /// # Errors
    ///
    /// When the shape has another number of elements.
    pub fn new<T: Element>(name: impl Into<String>, shape: &[i64], values: &[T]) -> Result<Self> {
        let name = name.into();
        let expected: i64 = shape.iter().product();
        if shape.iter().any(|&size| size < 0) || usize::try_from(expected) != Ok(values.len()) {
            return Err(Error::new(format!(
                "tensor `{name}` of shape {shape:?} takes {expected} values, not {}",
                values.len()
            )));
        }
        let bytes = std::mem::size_of_val(values);
        let mut words = vec![0u64; bytes.div_ceil(8)];
        // SAFETY: `words` has room for as many bytes; both are plain numbers.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), words.as_mut_ptr().cast::<u8>(), bytes);
        }
        Ok(Self { name, shape: shape.to_vec(), dtype: T::DTYPE, words })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// A view of it.
    pub fn view(&self) -> TensorView<'_> {
        TensorView {
            table: TensorTable {
                size: size_of::<TensorTable>() as u32,
                flags: 0,
                name: Text::new(&self.name),
                tensor: DlTensor {
                    data: self.words.as_ptr().cast_mut().cast(),
                    device: Device { kind: 1, index: 0 },
                    dimensions: self.shape.len() as i32,
                    dtype: self.dtype,
                    shape: self.shape.as_ptr(),
                    strides: std::ptr::null(),
                    byte_offset: 0,
                },
            },
            host: PhantomData,
        }
    }
}

impl TensorView<'_> {
    /// A copy that outlives the hook; the caller owns it.
    ///
    /// # Errors
    ///
    /// When it is not on the CPU, or has a type that is not an [`Element`].
    pub fn to_owned(&self) -> Result<Tensor> {
        let (name, shape) = (self.name(), self.shape());
        match self.dtype() {
            f32::DTYPE => Tensor::new(name, shape, &self.to_vec::<f32>()?),
            f64::DTYPE => Tensor::new(name, shape, &self.to_vec::<f64>()?),
            i64::DTYPE => Tensor::new(name, shape, &self.to_vec::<i64>()?),
            i32::DTYPE => Tensor::new(name, shape, &self.to_vec::<i32>()?),
            i16::DTYPE => Tensor::new(name, shape, &self.to_vec::<i16>()?),
            i8::DTYPE => Tensor::new(name, shape, &self.to_vec::<i8>()?),
            u8::DTYPE => Tensor::new(name, shape, &self.to_vec::<u8>()?),
            other => Err(Error::new(format!("tensor `{name}` holds `{}`, which cannot be copied", other.name()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_reads_what_was_written() {
        let tensor = Tensor::new("weight", &[2, 3], &[1f32, 2., 3., 4., 5., 6.]).unwrap();
        let view = tensor.view();
        assert_eq!((view.name(), view.shape(), view.len()), ("weight", &[2i64, 3][..], 6));
        assert_eq!(view.as_slice::<f32>().unwrap(), &[1., 2., 3., 4., 5., 6.]);
        assert_eq!(view.to_owned().unwrap(), tensor);
    }

    #[test]
    fn strides_are_followed() {
        let tensor = Tensor::new("weight", &[2, 3], &[1f32, 2., 3., 4., 5., 6.]).unwrap();
        let (shape, strides) = ([3i64, 2], [1i64, 3]);
        let mut table = *tensor.view().table();
        table.tensor.shape = shape.as_ptr();
        table.tensor.strides = strides.as_ptr();
        // SAFETY: shape and strides outlive the view and stay within the tensor.
        let transposed = unsafe { TensorView::from_table(table) };
        assert!(!transposed.is_contiguous());
        assert!(transposed.as_slice::<f32>().unwrap_err().message().contains("not contiguous"));
        assert_eq!(transposed.to_vec::<f32>().unwrap(), [1., 4., 2., 5., 3., 6.]);
    }

    #[test]
    fn another_device_or_type_is_an_error() {
        let tensor = Tensor::new("weight", &[1], &[1f32]).unwrap();
        assert!(tensor.view().as_slice::<i64>().unwrap_err().message().contains("holds `f32`"));
        let mut table = *tensor.view().table();
        table.tensor.device.kind = 2;
        // SAFETY: nothing reads the data: it is said to be on another device.
        let elsewhere = unsafe { TensorView::from_table(table) };
        assert!(elsewhere.as_slice::<f32>().unwrap_err().message().contains("to_host"));
    }

    #[test]
    fn a_shape_of_another_size_is_refused() {
        assert!(Tensor::new("weight", &[2, 2], &[1f32]).is_err());
        assert!(Tensor::new("weight", &[-1, -1], &[1f32]).is_err());
    }
}
