//! A list of tensors on the C++ side.

use std::ptr::NonNull;

use tch::Tensor;

use super::{TorchError, error::check, shim};

/// References to tensors, kept in a `std::vector<at::Tensor>`, so that a kernel over a thousand parameters is called
/// with one pointer and no allocation. The list shares the tensors' storage and their gradients; it copies nothing.
pub struct TensorList {
    list: NonNull<shim::Tensors>,
    length: usize,
}

// SAFETY: the vector holds reference-counted tensors, which tch itself sends between threads; every call that
// writes through a list takes place on the one thread that owns it.
unsafe impl Send for TensorList {}

impl TensorList {
    /// Makes a list that shares `tensors`.
    pub fn new<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<TensorList, TorchError> {
        let pointers: Vec<_> = tensors.into_iter().map(Tensor::as_ptr).collect();
        let mut list = std::ptr::null_mut();
        // SAFETY: `pointers` are live tensors borrowed for the call, and `list` is a place to write to.
        let status = unsafe { shim::host_torch_tensors_new(pointers.as_ptr(), pointers.len(), &mut list) };
        check(status, "TensorList::new")?;
        let list = NonNull::new(list)
            .ok_or(TorchError::Operation { operation: "TensorList::new", message: "no list was made".to_owned() })?;
        Ok(TensorList { list, length: pointers.len() })
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn as_ptr(&self) -> *const shim::Tensors {
        self.list.as_ptr()
    }
}

impl Drop for TensorList {
    fn drop(&mut self) {
        // SAFETY: made by `host_torch_tensors_new`, freed once.
        unsafe { shim::host_torch_tensors_free(self.list.as_ptr()) }
    }
}

impl std::fmt::Debug for TensorList {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TensorList").field("length", &self.length).finish_non_exhaustive()
    }
}
