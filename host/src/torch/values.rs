//! Reads and makes tensors without an operator dispatch.

use std::ffi::c_int;

use tch::{Device, Kind, Tensor};

use super::{TorchError, error::check, shim};

/// The value of a tensor of one element. A CPU tensor of f32 or f64 is read in place; any other uses `Tensor.item()`,
/// which waits for the device.
pub fn scalar(tensor: &Tensor) -> Result<f64, TorchError> {
    let mut value = 0.0;
    // SAFETY: a live tensor and a place to write to.
    let status = unsafe { shim::host_torch_scalar(tensor.as_ptr(), &mut value) };
    check(status, "item")?;
    Ok(value)
}

/// Adds the gradients of a scalar to its leaves; `gradient` is that of the scalar, with its shape and dtype, by default
/// one (`Tensor.backward(gradient)`). Passing it saves making it each time.
pub fn backward(tensor: &Tensor, gradient: &Tensor) -> Result<(), TorchError> {
    // SAFETY: two live tensors.
    let status = unsafe { shim::host_torch_backward(tensor.as_ptr(), gradient.as_ptr()) };
    check(status, "backward")
}

/// Frees the graph that made the tensor, unless another tensor holds it: `Tensor.detach_()` without its dispatch. The
/// tensor must be a result, not a parameter; afterward it is as if it had been computed without autograd.
pub fn forget_graph(tensor: &Tensor) -> Result<(), TorchError> {
    // SAFETY: a live tensor.
    let status = unsafe { shim::host_torch_forget_graph(tensor.as_ptr()) };
    check(status, "detach_")
}

/// Adds one in place, for counters that live in a tensor. No autograd graph is recorded.
pub fn add_one(tensor: &Tensor) -> Result<(), TorchError> {
    // SAFETY: a live tensor.
    let status = unsafe { shim::host_torch_add_one(tensor.as_ptr()) };
    check(status, "add_")
}

/// A Rust type that is a dtype of libtorch.
pub trait Element: Copy + sealed::Sealed {
    /// tch's name for the dtype.
    const KIND: Kind;
    #[doc(hidden)]
    const SCALAR_TYPE: c_int;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! element {
    ($type:ty, $kind:expr, $scalar_type:expr) => {
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const KIND: Kind = $kind;
            const SCALAR_TYPE: c_int = $scalar_type;
        }
    };
}

// The numbers are c10::ScalarType's, which are part of the format of saved tensors.
element!(u8, Kind::Uint8, 0);
element!(i64, Kind::Int64, 4);
element!(f32, Kind::Float, 6);
element!(f64, Kind::Double, 7);

/// The elements of a contiguous CPU tensor of type `T`, in row-major order; `None` for any other tensor.
///
/// # Safety
/// Nothing may write to the tensor's storage while the slice lives. Tensors share storage, so the borrow of
/// `tensor` does not ensure this.
pub unsafe fn slice<T: Element>(tensor: &Tensor) -> Option<&[T]> {
    let (data, count) = data::<T>(tensor, false)?;
    // SAFETY: the shim checked device, layout and dtype, so `data` points at `count` aligned elements that live as
    // long as the storage, which `tensor` keeps; the caller guarantees that nothing writes.
    Some(unsafe { std::slice::from_raw_parts(data, count) })
}

/// A new CPU tensor of `shape` whose rows are `rows[index]` for each of `indices`, where `rows` is a row-major
/// matrix of rows of `row_length`. `None` if an index is out of range, or `shape` has another number of elements.
pub fn gather_rows<T: Element>(
    rows: &[T],
    row_length: usize,
    indices: &[u32],
    shape: &[i64],
) -> Result<Option<Tensor>, TorchError> {
    let tensor = Tensor::f_empty(shape, (T::KIND, Device::Cpu))?;
    let Some((data, count)) = data::<T>(&tensor, true) else {
        // Of no elements, which have no place in memory.
        return Ok((tensor.numel() == 0 && indices.is_empty()).then_some(tensor));
    };
    if indices.len().checked_mul(row_length) != Some(count) {
        return Ok(None);
    }
    for (position, index) in indices.iter().enumerate() {
        let start = *index as usize * row_length;
        let Some(row) = rows.get(start..start + row_length) else {
            return Ok(None);
        };
        // SAFETY: `position < indices.len()`, so the row is within the `count` elements of a tensor that was made
        // here and that nothing else refers to. A pointer copy, because the target is not initialized yet.
        unsafe {
            data.add(position * row_length).copy_from_nonoverlapping(row.as_ptr(), row_length);
        }
    }
    Ok(Some(tensor))
}

/// A new CPU tensor of `shape` whose elements, in row-major order, `write` sets; they are zero at first.
pub fn fill<T: Element, E: From<TorchError>>(
    shape: &[i64],
    write: impl FnOnce(&mut [T]) -> Result<(), E>,
) -> Result<Tensor, E> {
    let tensor = Tensor::f_zeros(shape, (T::KIND, Device::Cpu)).map_err(TorchError::from)?;
    if let Some((data, count)) = data::<T>(&tensor, true) {
        // SAFETY: the shim checked device, layout and dtype, so `data` points at `count` aligned elements, which are
        // zero; the tensor was made here, and nothing else refers to it.
        write(unsafe { std::slice::from_raw_parts_mut(data, count) })?;
    }
    Ok(tensor)
}

fn data<T: Element>(tensor: &Tensor, writable: bool) -> Option<(*mut T, usize)> {
    let mut data = std::ptr::null_mut();
    let mut count = 0;
    // SAFETY: a live tensor and places to write to.
    let status = unsafe { shim::host_torch_cpu_data(tensor.as_ptr(), T::SCALAR_TYPE, writable, &mut data, &mut count) };
    let data = data.cast::<T>();
    // An empty tensor has no storage, and an empty slice needs an aligned pointer that is not null.
    match (status, data.is_null(), count) {
        (0, false, count) => Some((data, count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_of_any_dtype_are_read() {
        assert_eq!(scalar(&Tensor::from(0.5f32)).unwrap(), 0.5);
        assert_eq!(scalar(&Tensor::from(0.25f64)).unwrap(), 0.25);
        assert_eq!(scalar(&Tensor::from(7i64)).unwrap(), 7.0);
        assert!(scalar(&Tensor::from_slice(&[1f32, 2.0])).is_err());
    }

    #[test]
    fn a_counter_counts() {
        for counter in [Tensor::from(3i64), Tensor::from(3f32), Tensor::from(3i32)] {
            add_one(&counter).unwrap();
            assert_eq!(scalar(&counter).unwrap(), 4.0);
        }
    }

    #[test]
    fn a_slice_is_given_of_contiguous_tensors_of_its_dtype_only() {
        let tensor = Tensor::from_slice2(&[[1f32, 2.0], [3.0, 4.0]]);
        // SAFETY: nothing writes to the tensors of this test.
        unsafe {
            assert_eq!(slice::<f32>(&tensor), Some([1f32, 2.0, 3.0, 4.0].as_slice()));
            assert_eq!(slice::<f64>(&tensor), None);
            assert_eq!(slice::<f32>(&tensor.tr()), None);
            assert_eq!(slice::<f32>(&Tensor::new()), None);
        }
    }

    #[test]
    fn a_tensor_is_filled_row_by_row() {
        let filled = fill::<_, TorchError>(&[2, 2], |values: &mut [i64]| {
            values.copy_from_slice(&[1, 2, 3, 4]);
            Ok(())
        });
        assert_eq!(filled.unwrap(), Tensor::from_slice2(&[[1i64, 2], [3, 4]]));
        let empty = fill::<_, TorchError>(&[0, 2], |_: &mut [f32]| Ok(()));
        assert_eq!(empty.unwrap().size(), [0, 2]);
    }

    #[test]
    fn rows_are_gathered_in_the_order_of_the_indices() {
        let rows = [1i64, 2, 3, 4, 5, 6];
        let gathered = gather_rows(&rows, 2, &[2, 0, 2], &[3, 2]).unwrap().unwrap();
        assert_eq!(gathered, Tensor::from_slice2(&[[5i64, 6], [1, 2], [5, 6]]));
        assert_eq!(gather_rows(&rows, 2, &[3], &[1, 2]).unwrap(), None);
        assert_eq!(gather_rows(&rows, 2, &[0], &[2, 2]).unwrap(), None);
        assert_eq!(gather_rows(&rows, 2, &[], &[0, 2]).unwrap().unwrap().size(), [0, 2]);
        assert_eq!(gather_rows(&rows, 2, &[0], &[0, 2]).unwrap(), None);
    }
}
