//! Where a service puts its answer, and the tensors that it lends.

use std::any::Any;
use std::borrow::Cow;
use std::ffi::c_void;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use plugin_api::TensorView;
use plugin_api::abi::{Bytes, DataType, Device, DlTensor, ReplyTable, TensorTable, Text};
use plugin_api::protocol::{TensorInfo, TensorSet};
use plugin_api::services::Service;
use serde::Serialize;

use super::ServiceError;

/// Where a service puts its answer.
pub struct Reply<'a> {
    table: &'a ReplyTable,
    /// What is lent lives here until the hook returns.
    kept: &'a mut Vec<Lent>,
}

/// A tensor lent to a callback until its hook returns. A clone is another loan of the same memory.
#[derive(Clone)]
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
    pub owner: Rc<dyn Any>,
}

impl Lent {
    /// Gives its table, which is valid for the call.
    pub fn with_table<R>(&self, read: impl FnOnce(&TensorTable) -> R) -> R {
        read(&self.table())
    }

    /// Its description.
    pub fn info(&self) -> TensorInfo {
        TensorInfo { name: self.name.clone(), shape: self.shape.clone(), dtype: self.dtype.name() }
    }

    /// Whether a tensor lies in this one's memory.
    pub fn holds(&self, table: &TensorTable) -> bool {
        // SAFETY: the caller's table is valid for this call; only its description is read.
        let part = unsafe { TensorView::from_table(*table) };
        if (part.device().kind, part.device().index) != (self.device.kind, self.device.index) {
            return false;
        }
        let first = table.tensor.data.addr().wrapping_add(table.tensor.byte_offset as usize);
        let inner = extent(first, part.shape(), part.strides(), part.dtype());
        let outer = extent(self.data.addr(), &self.shape, Some(&self.strides), self.dtype);
        matches!((inner, outer), (Some(inner), Some(outer)) if outer.start <= inner.start && inner.end <= outer.end)
    }

    /// A loan of a tensor that this one [holds](Self::holds).
    pub fn part(&self, table: &TensorTable) -> Self {
        // SAFETY: the caller's table is valid for this call, and what is read of it is copied.
        let part = unsafe { TensorView::from_table(*table) };
        let strides = part.strides().map_or_else(|| contiguous_strides(part.shape()), <[i64]>::to_vec);
        let data = table.tensor.data.wrapping_byte_add(table.tensor.byte_offset as usize);
        Self {
            name: part.name().to_owned(),
            shape: part.shape().to_vec(),
            strides,
            data,
            dtype: part.dtype(),
            device: self.device,
            owner: Rc::clone(&self.owner),
        }
    }

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
    pub fn new(table: &'a ReplyTable, kept: &'a mut Vec<Lent>) -> Self {
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
        // What the table points to is the loan's own, and stays where it is when the loan moves.
        let table = lent.table();
        self.kept.push(lent);
        // SAFETY: the plugin's function, with its own context; the table outlives the call.
        unsafe { (self.table.tensor)(self.table.context, &raw const table) };
    }

    /// Lends those of `tensors` that `names` asks for, in the set's order; all if it is empty.
    ///
    /// # Errors
    ///
    /// When the set has no tensor of one of the names.
    pub fn lend_named(&mut self, tensors: Vec<Lent>, set: &TensorSet, names: &[String]) -> Result<(), ServiceError> {
        if let Some(name) = names.iter().find(|name| !tensors.iter().any(|tensor| tensor.name == **name)) {
            let what = format!("tensor in `{set}` called");
            return Err(ServiceError::no_such_name(&what, name, tensors.iter().map(|tensor| tensor.name.as_str())));
        }
        tensors
            .into_iter()
            .filter(|tensor| names.is_empty() || names.contains(&tensor.name))
            .for_each(|tensor| self.lend(tensor));
        Ok(())
    }
}

/// The addresses of a tensor's elements, whatever their order; `None` if it has none, or if they cannot be counted.
fn extent(first: usize, shape: &[i64], strides: Option<&[i64]>, dtype: DataType) -> Option<Range<usize>> {
    let strides = strides.map_or_else(|| Cow::Owned(contiguous_strides(shape)), Cow::Borrowed);
    let (mut least, mut greatest) = (0i64, 0i64);
    for (&size, &stride) in shape.iter().zip(&*strides) {
        let reach = size.checked_sub(1).filter(|last| *last >= 0)?.checked_mul(stride)?;
        if reach < 0 {
            least = least.checked_add(reach)?;
        } else {
            greatest = greatest.checked_add(reach)?;
        }
    }
    let bytes = |elements: i64| isize::try_from(elements).ok()?.checked_mul(isize::try_from(dtype.bytes()).ok()?);
    let (start, last) = (first.checked_add_signed(bytes(least)?)?, first.checked_add_signed(bytes(greatest)?)?);
    Some(start..last.checked_add(dtype.bytes())?)
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
            owner: Rc::new(Arc::clone(&self.owner)),
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

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;

    use super::*;

    /// A loan of a tensor of the shape `[4, 3]`, and the tensor.
    fn loan() -> (Lent, Rc<Tensor>) {
        let tensor = Rc::new(Tensor::new("whole", &[4, 3], &[0f32; 12]).unwrap());
        let table = *tensor.view().table();
        let lent = Lent {
            name: "whole".to_owned(),
            shape: vec![4, 3],
            strides: vec![3, 1],
            data: table.tensor.data,
            dtype: table.tensor.dtype,
            device: table.tensor.device,
            owner: Rc::clone(&tensor) as _,
        };
        (lent, tensor)
    }

    /// Whether the loan holds a tensor of this shape and these strides that begins `offset` bytes after it.
    fn holds(offset: u64, shape: &[i64], strides: &[i64]) -> bool {
        let (lent, tensor) = loan();
        let mut table = *tensor.view().table();
        table.tensor.dimensions = shape.len() as i32;
        (table.tensor.shape, table.tensor.strides) = (shape.as_ptr(), strides.as_ptr());
        table.tensor.byte_offset = offset;
        lent.holds(&table)
    }

    #[test]
    fn parts_of_a_loan_are_recognized() {
        assert!(holds(0, &[4, 3], &[3, 1]) && holds(0, &[3, 4], &[1, 3]));
        assert!(holds(24, &[2, 3], &[3, 1]), "the last two rows");
        assert!(holds(44, &[4, 3], &[-3, -1]), "backward from the last element");
        assert!(holds(44, &[], &[]), "the last element");
        assert!(!holds(24, &[3, 3], &[3, 1]), "one row after the end");
        assert!(!holds(0, &[4, 3], &[3, -1]), "before the first element");
        assert!(!holds(48, &[], &[]), "one element after the last");
        assert!(!holds(0, &[0, 3], &[3, 1]), "nothing lies nowhere");
        assert!(!holds(0, &[i64::MAX, i64::MAX], &[i64::MAX, 1]), "what cannot be counted");
    }

    #[test]
    fn another_device_has_other_memory() {
        let (lent, tensor) = loan();
        let mut table = *tensor.view().table();
        table.tensor.device.kind = 2;
        assert!(!lent.holds(&table));
    }

    #[test]
    fn a_part_keeps_the_memory_of_the_whole() {
        let (lent, tensor) = loan();
        let view = tensor.view();
        let shape = [2i64, 3];
        let mut table = *view.table();
        (table.tensor.shape, table.tensor.byte_offset) = (shape.as_ptr(), 24);
        let part = lent.part(&table);
        drop(lent);
        assert_eq!(Rc::strong_count(&tensor), 2);
        assert_eq!((part.shape, part.strides), (vec![2, 3], vec![3, 1]));
        assert_eq!(part.data.addr(), table.tensor.data.addr() + 24);
    }
}
