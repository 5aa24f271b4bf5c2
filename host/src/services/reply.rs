//! Where a service puts its answer, and the tensors that it lends.

use std::any::Any;
use std::ffi::c_void;
use std::sync::Arc;

use plugin_api::TensorView;
use plugin_api::abi::{Bytes, DataType, Device, DlTensor, ReplyTable, TensorTable, Text};
use plugin_api::protocol::TensorInfo;
use plugin_api::services::Service;
use serde::Serialize;

use super::ServiceError;

/// Where a service puts its answer.
pub struct Reply<'a> {
    table: &'a ReplyTable,
    /// What is lent lives here until the hook returns.
    kept: &'a mut Vec<Box<dyn Any>>,
}

/// A tensor lent to a callback until its hook returns.
pub struct Lent {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its strides, in elements.
    pub strides: Vec<i64>,
    /// Its first element; null when it has none.
    pub data: *mut std::ffi::c_void,
    /// Its element type.
    pub dtype: DataType,
    /// Where it lies.
    pub device: Device,
    /// Keeps the memory alive.
    pub owner: Box<dyn Any>,
}

impl Lent {
    /// Its table, which points into it.
    fn table(&self) -> TensorTable {
        TensorTable {
            size: size_of::<TensorTable>() as u32,
            flags: 1,
            name: Text::new(&self.name),
            tensor: DlTensor {
                data: self.data,
                device: self.device,
                dimensions: self.shape.len() as i32,
                dtype: self.dtype,
                shape: self.shape.as_ptr(),
                strides: self.strides.as_ptr(),
                byte_offset: 0,
            },
        }
    }
}

impl<'a> Reply<'a> {
    /// A reply into `table`; what is lent is kept in `kept`.
    pub fn new(table: &'a ReplyTable, kept: &'a mut Vec<Box<dyn Any>>) -> Self {
        Self { table, kept }
    }

    /// Answers with the reply of `service`.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded.
    pub fn answer<Q, R: Serialize>(&mut self, _: Service<Q, R>, reply: &R) -> Result<(), ServiceError> {
        self.value(reply)
    }

    /// Answers with a value that encodes to the service's reply without being one: borrowed parts of it.
    ///
    /// # Errors
    ///
    /// When the value cannot be encoded.
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ServiceError> {
        let bytes = rmp_serde::to_vec_named(value).map_err(|error| ServiceError::Failed(error.to_string()))?;
        self.bytes(&bytes);
        Ok(())
    }

    /// Answers with bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        // SAFETY: the plugin's function, with its own context; the bytes outlive the call.
        unsafe { (self.table.bytes)(self.table.context, Bytes::new(bytes)) };
    }

    /// Lends a tensor until the hook returns.
    pub fn lend(&mut self, lent: Lent) {
        let lent = Box::new(lent);
        let table = lent.table();
        // The box keeps the addresses in the table valid.
        self.kept.push(lent);
        // SAFETY: the plugin's function, with its own context; the table outlives the call.
        unsafe { (self.table.tensor)(self.table.context, &raw const table) };
    }
}

/// A tensor in memory that is no longer written: any thread may read it.
#[derive(Clone)]
pub struct SharedTensor {
    name: Arc<str>,
    shape: Arc<[i64]>,
    dtype: DataType,
    data: *mut c_void,
    /// Keeps the memory alive.
    owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the memory is only read, and its owner may be dropped on any thread.
unsafe impl Send for SharedTensor {}
// SAFETY: as above.
unsafe impl Sync for SharedTensor {}

impl SharedTensor {
    /// A contiguous tensor on the CPU.
    ///
    /// # Safety
    ///
    /// `data` must hold such a tensor, and nobody may write it, for as long as `owner` lives.
    pub unsafe fn new(
        name: &str,
        shape: &[i64],
        dtype: DataType,
        data: *mut c_void,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self { name: name.into(), shape: shape.into(), dtype, data, owner }
    }

    /// A copy of a plugin's tensor.
    ///
    /// # Errors
    ///
    /// When it is not on the CPU, or has a type that cannot be copied.
    pub fn copy_of(view: &TensorView<'_>) -> Result<Self, ServiceError> {
        let owned = view.to_owned().map_err(|error| ServiceError::Failed(error.message().to_owned()))?;
        let owner = Arc::new(owned);
        let table = *owner.view().table();
        // SAFETY: contiguous, on the CPU, and alive as long as its owner.
        Ok(unsafe {
            Self::new(view.name(), view.shape(), table.tensor.dtype, table.tensor.data, Arc::clone(&owner) as _)
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its description.
    pub fn info(&self) -> TensorInfo {
        TensorInfo { name: self.name.to_string(), shape: self.shape.to_vec(), dtype: self.dtype.name() }
    }

    /// Gives its table, which is valid for the call.
    pub fn with_table<R>(&self, read: impl FnOnce(&TensorTable) -> R) -> R {
        read(&self.lend().table())
    }

    /// A loan of it.
    pub fn lend(&self) -> Lent {
        Lent {
            name: self.name.to_string(),
            shape: self.shape.to_vec(),
            strides: contiguous_strides(&self.shape),
            data: self.data,
            dtype: self.dtype,
            device: Device { kind: 1, index: 0 },
            owner: Box::new(Arc::clone(&self.owner)),
        }
    }
}

/// The strides of a row-major tensor, in elements.
pub fn contiguous_strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension] * shape[dimension];
    }
    strides
}
