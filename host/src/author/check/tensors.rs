//! Tensors in plain memory.

use std::any::Any;
use std::ffi::c_void;
use std::sync::Arc;

use plugin_api::abi::{DataType, TensorTable};
use plugin_api::{Element, TensorView};

use crate::services::{ServiceError, SharedTensor};

/// A named tensor on the CPU, contiguous. Cloning is cheap, and replacing the tensor does not change what is lent.
#[derive(Clone, Debug)]
pub(super) struct Values {
    pub(super) name: String,
    pub(super) shape: Vec<i64>,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    F32(Arc<[f32]>),
    I64(Arc<[i64]>),
}

impl Values {
    /// A tensor of `f32` whose element `index` is `value(index)`.
    pub(super) fn f32(name: impl Into<String>, shape: Vec<i64>, value: impl Fn(usize) -> f32) -> Self {
        let data = Data::F32((0..elements(&shape)).map(value).collect());
        Self { name: name.into(), shape, data }
    }

    /// A tensor of `i64` whose element `index` is `value(index)`.
    pub(super) fn i64(name: impl Into<String>, shape: Vec<i64>, value: impl Fn(usize) -> i64) -> Self {
        let data = Data::I64((0..elements(&shape)).map(value).collect());
        Self { name: name.into(), shape, data }
    }

    /// The numbers; none for a tensor of integers.
    pub(super) fn floats(&self) -> &[f32] {
        match &self.data {
            Data::F32(values) => values,
            Data::I64(_) => &[],
        }
    }

    /// Tensors one after another along their first dimension.
    pub(super) fn joined(tensors: &[Self]) -> Option<Self> {
        let first = tensors.first()?;
        let mut shape = first.shape.clone();
        shape[0] = tensors.iter().map(|tensor| tensor.shape[0]).sum();
        let mut data = first.data.clone();
        for tensor in &tensors[1..] {
            data = match (data, &tensor.data) {
                (Data::F32(values), Data::F32(more)) => Data::F32(values.iter().chain(&**more).copied().collect()),
                (Data::I64(values), Data::I64(more)) => Data::I64(values.iter().chain(&**more).copied().collect()),
                _ => return None,
            };
        }
        Some(Self { name: first.name.clone(), shape, data })
    }

    /// A copy of a plugin's tensor.
    pub(super) fn from_plugin(table: &TensorTable) -> Result<Self, ServiceError> {
        // SAFETY: a request's tensors are valid until the call returns, and the view does not outlive it.
        let view = unsafe { TensorView::from_table(*table) };
        let failed = |error: plugin_api::Error| ServiceError::Failed(error.message().to_owned());
        let data = if view.dtype() == i64::DTYPE {
            Data::I64(view.to_vec::<i64>().map_err(failed)?.into())
        } else {
            Data::F32(view.to_vec::<f32>().map_err(failed)?.into())
        };
        Ok(Self { name: view.name().to_owned(), shape: view.shape().to_vec(), data })
    }

    /// The same under another name.
    pub(super) fn named(&self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    /// Whether `other` could be written in its place.
    pub(super) fn fits(&self, other: &Self) -> bool {
        self.shape == other.shape && self.dtype() == other.dtype()
    }

    /// The same, as a snapshot holds it.
    pub(super) fn shared(&self) -> SharedTensor {
        let (data, owner): (*mut c_void, Arc<dyn Any + Send + Sync>) = match &self.data {
            Data::F32(values) => (values.as_ptr().cast_mut().cast(), Arc::new(Arc::clone(values))),
            Data::I64(values) => (values.as_ptr().cast_mut().cast(), Arc::new(Arc::clone(values))),
        };
        // SAFETY: contiguous, never written, and alive as long as its owner.
        unsafe { SharedTensor::new(&self.name, &self.shape, self.dtype(), data, owner) }
    }

    fn dtype(&self) -> DataType {
        match self.data {
            Data::F32(_) => f32::DTYPE,
            Data::I64(_) => i64::DTYPE,
        }
    }
}

fn elements(shape: &[i64]) -> usize {
    shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).product()
}
