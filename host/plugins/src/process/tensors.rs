//! Tensors in the memory that two processes share.

use std::io;

use plugin_api::TensorView;
use plugin_api::abi::{DataType, Device, DlTensor, TensorTable, Text};

use super::memory::{Access, Mapping, MemoryFile};
use super::messages::Tensor;

/// Where each tensor begins: a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// The most dimensions of a tensor, as libtorch and NumPy have them.
const MOST_DIMENSIONS: usize = 64;

/// The most bytes of tensors in one hook, and in one call of a plugin: half of the machine's memory. More is a flood, of which
/// the host would hold a copy.
fn most() -> usize {
    let machine = rustix::system::sysinfo();
    usize::try_from(machine.totalram as u64 * u64::from(machine.mem_unit) / 2).unwrap_or(usize::MAX)
}

/// Memory of which less than this is kept however rarely it is used, in bytes.
const ALWAYS_KEPT: usize = 16 << 20;

/// After so many hooks without a tensor, the memory is given back.
const RESTS: u32 = 1000;

/// The tensors that one side sends: they lie one after the other until [`Self::clear`].
pub(super) struct Outgoing {
    file: MemoryFile,
    mapping: Mapping,
    used: usize,
    most: usize,
    rests: u32,
}

impl Outgoing {
    /// Of a file that this process may write.
    pub(super) fn new(file: MemoryFile) -> io::Result<Self> {
        let mapping = file.map(file.length()?, Access::Write)?;
        Ok(Self { file, mapping, used: 0, most: most(), rests: 0 })
    }

    pub(super) fn file(&self) -> &MemoryFile {
        &self.file
    }

    /// Copies a tensor on the CPU after the ones before it.
    ///
    /// # Safety
    ///
    /// The table, and what it points to, must be valid.
    pub(super) unsafe fn put(&mut self, table: &TensorTable) -> Result<Tensor, String> {
        // SAFETY: the caller's promise.
        let view = unsafe { TensorView::from_table(*table) };
        let name = view.name().to_owned();
        let length = length(view.shape(), view.dtype()).ok_or_else(|| format!("tensor `{name}` has no size"))?;
        let failed = |error: io::Error| format!("no memory for tensor `{name}` of {length} bytes: {error}");
        let start = self.used.next_multiple_of(ALIGNMENT);
        let end = start.checked_add(length).filter(|end| *end <= self.most);
        let end =
            end.ok_or_else(|| format!("tensor `{name}` is one too many: a hook gets {} bytes at most", self.most))?;
        if end > self.mapping.length() {
            // A little more each time, so that a growing model does not grow it at each step.
            let longer = (end + end / 4).next_multiple_of(1 << 16);
            self.file.grow(longer).map_err(failed)?;
            self.mapping = self.file.map(longer, Access::Write).map_err(failed)?;
        }
        // SAFETY: the tensor has `length` bytes of elements, and so has the mapping from `start`; the other side has not
        // heard of it yet.
        unsafe { copy_row_major(&view, self.mapping.first().add(start)) };
        self.used = end;
        self.rests = 0;
        let dtype = view.dtype();
        Ok(Tensor {
            name,
            dtype: (dtype.code, dtype.bits, dtype.lanes),
            shape: view.shape().to_vec(),
            offset: start as u64,
            length: length as u64,
        })
    }

    /// The other side needs none of them any more.
    pub(super) fn clear(&mut self) {
        if self.used > 0 {
            self.used = 0;
        } else if self.mapping.length() > ALWAYS_KEPT {
            self.rests += 1;
            if self.rests == RESTS
                && let Err(error) = self.file.empty()
            {
                tracing::debug!("shared memory is kept: {error}");
            }
        }
    }
}

/// The tensors that the other side sends.
pub(super) struct Incoming {
    file: MemoryFile,
    /// The newest is the longest. Older ones are kept while tensors in them may be in use.
    mappings: Vec<Mapping>,
    most: usize,
}

impl Incoming {
    pub(super) fn new(file: MemoryFile) -> Self {
        Self { file, mappings: Vec::new(), most: most() }
    }

    pub(super) fn file(&self) -> &MemoryFile {
        &self.file
    }

    /// The tensors that a message describes. The tables point into `tensors` and into shared memory; both stay where they
    /// are until [`Self::clear`].
    pub(super) fn tables(&mut self, tensors: &[Tensor]) -> Result<Vec<TensorTable>, String> {
        let sum = tensors.iter().fold(0u64, |sum, tensor| sum.saturating_add(tensor.length));
        if sum > self.most as u64 {
            return Err(format!("{sum} bytes of tensors are too many for one call, which has {} at most", self.most));
        }
        tensors.iter().map(|tensor| self.table(tensor)).collect()
    }

    fn table(&mut self, tensor: &Tensor) -> Result<TensorTable, String> {
        let wrong = |what: &str| format!("tensor `{}` {what}", tensor.name);
        let (code, bits, lanes) = tensor.dtype;
        let dtype = DataType { code, bits, lanes };
        if tensor.shape.len() > MOST_DIMENSIONS || lanes != 1 {
            return Err(wrong("is of no known form"));
        }
        let length = length(&tensor.shape, dtype).filter(|length| *length as u64 == tensor.length);
        let length = length.ok_or_else(|| wrong("has another size than it says"))?;
        let offset = usize::try_from(tensor.offset).ok().filter(|offset| offset % ALIGNMENT == 0);
        let offset = offset.ok_or_else(|| wrong("lies where none may lie"))?;
        let end = offset.checked_add(length).ok_or_else(|| wrong("lies outside of its memory"))?;
        if self.mappings.last().is_none_or(|mapping| mapping.length() < end) {
            // The length is the file's own, which cannot become less: what is mapped is there.
            let available = self.file.length().map_err(|error| error.to_string())?;
            if end > available {
                return Err(wrong("lies outside of its memory"));
            }
            self.mappings.push(self.file.map(available, Access::Read).map_err(|error| error.to_string())?);
        }
        let first = self.mappings.last().map_or(std::ptr::null_mut(), Mapping::first);
        Ok(TensorTable {
            size: size_of::<TensorTable>() as u32,
            flags: 1,
            name: Text::new(&tensor.name),
            tensor: DlTensor {
                data: first.wrapping_add(offset).cast(),
                device: Device { kind: 1, index: 0 },
                dimensions: tensor.shape.len() as i32,
                dtype,
                shape: tensor.shape.as_ptr(),
                strides: std::ptr::null(),
                byte_offset: 0,
            },
        })
    }

    /// None of the tensors is in use any more.
    pub(super) fn clear(&mut self) {
        if self.mappings.len() > 1 {
            self.mappings.drain(..self.mappings.len() - 1);
        }
    }
}

/// Bytes of a row-major tensor; `None` if they cannot be counted.
fn length(shape: &[i64], dtype: DataType) -> Option<usize> {
    let elements = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(usize::try_from(size).ok()?))?;
    elements.checked_mul(dtype.bytes())
}

/// Copies the elements of a tensor, whatever its strides, to `into`, the last dimension fastest.
///
/// # Safety
///
/// The tensor must be on the CPU and valid, and `into` have room for all its elements.
unsafe fn copy_row_major(view: &TensorView<'_>, into: *mut u8) {
    let (shape, bytes) = (view.shape(), view.dtype().bytes());
    let tensor = &view.table().tensor;
    let first = tensor.data.cast::<u8>().cast_const().wrapping_add(tensor.byte_offset as usize);
    if view.is_empty() {
        return;
    }
    let Some(strides) = view.strides() else {
        // SAFETY: the caller's promise: row-major, and as long.
        unsafe { std::ptr::copy_nonoverlapping(first, into, view.len() * bytes) };
        return;
    };
    // The dimensions at the end that lie one after the other are one run.
    let mut run = 1usize;
    let mut outer = shape.len();
    while outer > 0 && (shape[outer - 1] == 1 || strides[outer - 1] == run as i64) {
        outer -= 1;
        run *= shape[outer] as usize;
    }
    let mut index = vec![0i64; outer];
    let mut written = 0;
    loop {
        let at: i64 = index.iter().zip(strides).map(|(index, stride)| index * stride).sum();
        // SAFETY: the element at `index` and the run after it are the tensor's; `written` counts them.
        unsafe {
            let from = first.wrapping_offset(at as isize * bytes as isize);
            std::ptr::copy_nonoverlapping(from, into.add(written), run * bytes);
        }
        written += run * bytes;
        let Some(dimension) = (0..outer).rev().find(|&dimension| index[dimension] + 1 < shape[dimension]) else {
            return;
        };
        index[dimension] += 1;
        index[dimension + 1..].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor as Owned;
    use proptest::prelude::*;

    use super::*;

    fn pair() -> (Outgoing, Incoming) {
        let file = MemoryFile::new("test", 0).unwrap();
        let reader = MemoryFile::of(file.read_only().unwrap());
        (Outgoing::new(file).unwrap(), Incoming::new(reader))
    }

    fn sent(outgoing: &mut Outgoing, view: TensorView<'_>) -> Tensor {
        // SAFETY: a tensor of this test.
        unsafe { outgoing.put(view.table()) }.unwrap()
    }

    fn values(incoming: &mut Incoming, tensors: &[Tensor]) -> Vec<Vec<f32>> {
        let tables = incoming.tables(tensors).unwrap();
        // SAFETY: tables of this call, and memory that stays.
        tables.iter().map(|table| unsafe { TensorView::from_table(*table) }.to_vec::<f32>().unwrap()).collect()
    }

    #[test]
    fn tensors_cross_also_when_the_memory_grows() {
        let (mut outgoing, mut incoming) = pair();
        let small = Owned::new("small", &[2, 2], &[1f32, 2., 3., 4.]).unwrap();
        let large = Owned::new("large", &[1 << 18], &vec![7f32; 1 << 18]).unwrap();
        let first = [sent(&mut outgoing, small.view())];
        let table = incoming.tables(&first).unwrap()[0];
        let second = [sent(&mut outgoing, large.view())];
        assert!(values(&mut incoming, &second)[0].iter().all(|value| *value == 7.));
        // SAFETY: the first tensor stays until the memory is cleared.
        assert_eq!(unsafe { TensorView::from_table(table) }.as_slice::<f32>().unwrap(), [1., 2., 3., 4.]);
        outgoing.clear();
        incoming.clear();
        let again = [sent(&mut outgoing, small.view())];
        assert_eq!((again[0].offset, values(&mut incoming, &again)), (0, vec![vec![1., 2., 3., 4.]]));
    }

    #[test]
    fn memory_that_is_not_used_for_long_is_given_back() {
        let (mut outgoing, mut incoming) = pair();
        let large = Owned::new("large", &[8 << 20], &vec![7f32; 8 << 20]).unwrap();
        let tensors = [sent(&mut outgoing, large.view())];
        let mut first = || values(&mut incoming, &tensors)[0][0];
        outgoing.clear();
        assert_eq!(first(), 7.);
        for _ in 0..RESTS {
            outgoing.clear();
        }
        assert_eq!(first(), 0.);
    }

    #[test]
    fn what_a_message_says_of_a_tensor_is_checked() {
        let (mut outgoing, mut incoming) = pair();
        let tensor = Owned::new("weight", &[4], &[1f32; 4]).unwrap();
        let right = sent(&mut outgoing, tensor.view());
        let refused = |tensor: Tensor| incoming_refuses(&mut incoming, tensor);
        let mut refused = refused;
        assert!(refused(Tensor { length: 17, ..right.clone() }).contains("another size"));
        assert!(refused(Tensor { shape: vec![-4], ..right.clone() }).contains("another size"));
        assert!(refused(Tensor { shape: vec![i64::MAX, i64::MAX], ..right.clone() }).contains("another size"));
        assert!(refused(Tensor { offset: 4, ..right.clone() }).contains("where none may lie"));
        assert!(refused(Tensor { offset: 1 << 40, ..right.clone() }).contains("outside"));
        assert!(refused(Tensor { offset: u64::MAX - 63, ..right.clone() }).contains("outside"));
        assert!(refused(Tensor { shape: vec![1; 65], ..right.clone() }).contains("form"));
        assert_eq!(values(&mut incoming, &[right])[0], [1.; 4]);
    }

    fn incoming_refuses(incoming: &mut Incoming, tensor: Tensor) -> String {
        incoming.tables(&[tensor]).unwrap_err()
    }

    proptest! {
        /// Any order of the dimensions, with gaps, is copied row by row.
        #[test]
        fn strides_are_followed(
            shape in prop::collection::vec(1i64..5, 0..4),
            order in prop::collection::vec(0u32..100, 4),
            gap in 1i64..3,
        ) {
            let mut dimensions: Vec<usize> = (0..shape.len()).collect();
            dimensions.sort_by_key(|&dimension| order[dimension]);
            let mut strides = vec![0i64; shape.len()];
            let mut next = gap;
            for &dimension in &dimensions {
                strides[dimension] = next;
                next *= shape[dimension];
            }
            let storage = Owned::new("storage", &[next + 1], &(0..=next).map(|value| value as f32).collect::<Vec<_>>()).unwrap();
            let mut table = *storage.view().table();
            table.tensor.dimensions = shape.len() as i32;
            (table.tensor.shape, table.tensor.strides) = (shape.as_ptr(), strides.as_ptr());
            // SAFETY: within the storage, which outlives the view.
            let view = unsafe { TensorView::from_table(table) };
            let (mut outgoing, mut incoming) = pair();
            let tensors = [sent(&mut outgoing, view)];
            prop_assert_eq!(&values(&mut incoming, &tensors)[0], &view.to_vec::<f32>().unwrap());
        }
    }
}
