//! Tensors outside the loop: on the CPU, contiguous, and free of autograd.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use crate::checkpoint::{Dtype, TensorRef};
use crate::services::SharedTensor;
use crate::torch::TorchError;
use crate::train::TrainError;
use crate::train::dtype::data_type;

/// A tensor as the checkpoint's format takes it: on the CPU, contiguous.
pub(in super::super) struct HostTensor {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    tensor: Tensor,
}

impl HostTensor {
    /// A copy of `tensor` if `copied` is set or it is not on the CPU; else the tensor itself.
    pub(in super::super) fn new(name: &str, tensor: &Tensor, copied: bool) -> Result<Self, TrainError> {
        let tensor = if tensor.device() != Device::Cpu {
            tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?
        } else if copied {
            copy(tensor)?
        } else {
            tensor.f_detach()?.f_contiguous()?
        };
        let shape = tensor.size().iter().map(|&size| size as usize).collect();
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Double => Dtype::F64,
            Kind::Int64 => Dtype::I64,
            Kind::Int => Dtype::I32,
            Kind::Uint8 => Dtype::U8,
            Kind::Bool => Dtype::BOOL,
            Kind::Half => Dtype::F16,
            Kind::BFloat16 => Dtype::BF16,
            kind => return Err(unsupported(name, kind)),
        };
        Ok(Self { name: name.to_owned(), shape, dtype, tensor })
    }

    /// A copy of `tensor` in the memory of this one, which is one too, if it fits.
    pub(super) fn renewed(self, name: &str, tensor: &Tensor) -> Result<Self, TrainError> {
        let fits = self.name == name
            && tensor.device() == Device::Cpu
            && tensor.is_contiguous()
            && self.tensor.kind() == tensor.kind()
            && self.tensor.size() == tensor.size();
        if !fits {
            return Self::new(name, tensor, true);
        }
        copy_values(tensor, &self.tensor);
        Ok(self)
    }

    /// A copy that any thread may read.
    pub(in super::super) fn share(name: &str, tensor: &Tensor) -> Result<SharedTensor, TrainError> {
        let Self { name, tensor, .. } = Self::new(name, tensor, true)?;
        let (dtype, shape) = (data_type(tensor.kind()), tensor.size());
        let dtype = dtype.ok_or_else(|| unsupported(&name, tensor.kind()))?;
        let data = if tensor.numel() == 0 { std::ptr::null_mut() } else { tensor.data_ptr() };
        // SAFETY: a contiguous copy on the CPU that nothing else refers to; the owner holds it.
        Ok(unsafe { SharedTensor::new(&name, &shape, dtype, data, Arc::new(Owner(tensor))) })
    }

    pub(in super::super) fn as_ref(&self) -> TensorRef<'_> {
        let length = self.tensor.numel() * self.tensor.kind().elt_size_in_bytes();
        let bytes = if length == 0 {
            &[]
        } else {
            // SAFETY: contiguous, on the CPU, of that many bytes; nothing writes to it while it is borrowed: inline the
            // loop waits, in the background it is a copy.
            unsafe { std::slice::from_raw_parts(self.tensor.data_ptr().cast::<u8>(), length) }
        };
        TensorRef { name: &self.name, dtype: self.dtype, shape: &self.shape, bytes }
    }
}

/// A contiguous copy of a tensor on the CPU. `Tensor.clone` does the same by several calls of libtorch, which take longer than
/// the copying for tensors of a few thousand values.
fn copy(tensor: &Tensor) -> Result<Tensor, TrainError> {
    if !tensor.is_contiguous() {
        // Its values in their order are a tensor of their own.
        return Ok(tensor.f_detach()?.f_contiguous()?);
    }
    let copy = Tensor::f_empty(tensor.size(), (tensor.kind(), Device::Cpu))?;
    copy_values(tensor, &copy);
    Ok(copy)
}

/// Copies the values of a tensor to another that nobody else has; both are contiguous, on the CPU, and of one shape and dtype.
fn copy_values(from: &Tensor, to: &Tensor) {
    let bytes = from.numel() * from.kind().elt_size_in_bytes();
    if bytes > 0 {
        // SAFETY: two contiguous tensors on the CPU with that many bytes, of which nobody else has the second.
        unsafe { std::ptr::copy_nonoverlapping(from.data_ptr().cast::<u8>(), to.data_ptr().cast::<u8>(), bytes) }
    }
}

// SAFETY: the tensor is on the CPU, contiguous, and only read once it is here; libtorch's reference counts are atomic.
unsafe impl Send for HostTensor {}
// SAFETY: as above: reading a CPU tensor's memory from several threads is sound.
unsafe impl Sync for HostTensor {}

/// Keeps a copied tensor's memory alive on any thread.
struct Owner(#[expect(dead_code, reason = "held for its memory")] Tensor);

// SAFETY: the tensor is only dropped, and libtorch's reference counts are atomic.
unsafe impl Send for Owner {}
// SAFETY: as above.
unsafe impl Sync for Owner {}

fn unsupported(name: &str, kind: Kind) -> TrainError {
    TrainError::Torch(TorchError::Operator {
        message: format!("`{name}` has the type {kind:?}, which cannot be copied out of the training"),
    })
}
