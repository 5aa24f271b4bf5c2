//! The tables, and the one place that reads them.

use std::ffi::c_void;

use super::{EventKind, ServiceKind, Status};

/// UTF-8 text, borrowed. `pointer` may be null when `length` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// The first byte.
    pub pointer: *const u8,
    /// Bytes, not characters.
    pub length: usize,
}

impl Text {
    /// Borrows `text`.
    pub const fn new(text: &str) -> Self {
        Self { pointer: text.as_ptr(), length: text.len() }
    }

    /// The text; bytes that are not UTF-8 are replaced.
    ///
    /// # Safety
    ///
    /// The pointer must be valid for `length` bytes for as long as `'a`.
    pub unsafe fn read<'a>(self) -> std::borrow::Cow<'a, str> {
        // SAFETY: the caller's promise is that of `Bytes::read`.
        String::from_utf8_lossy(unsafe { Bytes::from(self).read() })
    }
}

/// Bytes, borrowed. `pointer` may be null when `length` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// The first byte.
    pub pointer: *const u8,
    /// How many.
    pub length: usize,
}

impl Bytes {
    /// Borrows `bytes`.
    pub const fn new(bytes: &[u8]) -> Self {
        Self { pointer: bytes.as_ptr(), length: bytes.len() }
    }

    /// The bytes.
    ///
    /// # Safety
    ///
    /// The pointer must be valid for `length` bytes for as long as `'a`.
    pub unsafe fn read<'a>(self) -> &'a [u8] {
        if self.pointer.is_null() || self.length == 0 {
            return &[];
        }
        // SAFETY: not null, and valid for `length` bytes by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length) }
    }
}

impl From<Text> for Bytes {
    fn from(text: Text) -> Self {
        Self { pointer: text.pointer, length: text.length }
    }
}

/// What a library offers. Static: valid until the process ends.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LibraryTable {
    /// `size_of::<LibraryTable>()` as the library knows it.
    pub size: u32,
    /// The [`MAJOR`](super::MAJOR) of the SDK that built the library: another one is refused.
    pub major: u32,
    /// [`MAGIC`](super::MAGIC).
    pub magic: u64,
    /// The [`MINOR`](super::MINOR) of that SDK; for messages, not for the decision whether to load.
    pub minor: u32,
    /// `size_of::<*const ()>()`: the tables of a library with other pointers cannot be read.
    pub pointer_size: u32,
    /// The SDK's name and version, `plugin-api 1.0.0`.
    pub sdk: Text,
    /// The compiler, as it names itself.
    pub compiler: Text,
    /// The target triple, or as much of it as the SDK knows.
    pub target: Text,
    /// 1 when a panic unwinds in this library; 0 when it would end the process.
    pub unwinds: u32,
    /// How many kinds the library has.
    pub kinds: u32,
    /// Passes kind `index`'s JSON descriptor to `reply.bytes`. Any thread.
    pub describe: unsafe extern "C" fn(index: u32, reply: *const ReplyTable) -> Status,
    /// Creates an instance of kind `index` from `options` (JSON) and writes it to `instance`.
    /// On failure it passes the message to `reply.bytes` and writes nothing. The host's thread.
    pub create: unsafe extern "C" fn(
        index: u32,
        request: *const CreateTable,
        instance: *mut *mut c_void,
        reply: *const ReplyTable,
    ) -> Status,
    /// Handles one event. Never called for one instance from two threads at a time, nor again
    /// before it has returned; the thread may change between calls. A failure's message goes to
    /// the service [`ServiceKind::FAULT`] before the function returns.
    pub handle:
        unsafe extern "C" fn(index: u32, instance: *mut c_void, event: *const EventTable, host: HostHandle) -> Status,
    /// Ends an instance. Called once, after every `handle`.
    pub destroy: unsafe extern "C" fn(index: u32, instance: *mut c_void) -> Status,
}

// SAFETY: the table is immutable and its texts point to statics.
unsafe impl Send for LibraryTable {}
// SAFETY: as above.
unsafe impl Sync for LibraryTable {}

/// The argument of `create`. Borrowed until it returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CreateTable {
    /// `size_of::<CreateTable>()` as the host knows it.
    pub size: u32,
    /// The host's [`MINOR`](super::MINOR).
    pub minor: u32,
    /// The kind's options: a JSON object that satisfies its schema, defaults filled in.
    pub options: Text,
    /// The instance's name.
    pub instance: Text,
    /// Where the library's logs go: valid until the process ends, callable from any thread.
    pub log: unsafe extern "C" fn(record: *const LogTable),
    /// For services that may be called while an instance is created, mainly [`ServiceKind::OPTION`]. Spent
    /// when `create` returns.
    pub host: HostHandle,
}

/// One log record of a library. Borrowed until the function returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LogTable {
    /// `size_of::<LogTable>()` as the library knows it.
    pub size: u32,
    /// 1 error, 2 warning, 3 information, 4 debug, 5 trace.
    pub level: u32,
    /// The module that logs.
    pub target: Text,
    /// The message, with its fields as `name=value` after it.
    pub message: Text,
}

/// One event. Borrowed until `handle` returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EventTable {
    /// `size_of::<EventTable>()` as the host knows it.
    pub size: u32,
    /// Which event.
    pub kind: EventKind,
    /// The epoch in progress, from 1; 0 before the first.
    pub epoch: u64,
    /// The step within the epoch, from 1; 0 before the first.
    pub step: u64,
    /// Optimizer updates since the run began, from 1; 0 before the first.
    pub global_step: u64,
    /// Training samples seen since the run began.
    pub samples: u64,
    /// The table that belongs to `kind` (see [`EventKind`]), or null.
    pub data: *const c_void,
}

/// The data of `eval_start`, `eval_step_start`, `eval_step_end`, `eval_end`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EvaluationTable {
    /// `size_of::<EvaluationTable>()` as the host knows it.
    pub size: u32,
    /// 1 when the evaluation interrupts an epoch.
    pub mid_epoch: u32,
    /// The split's name.
    pub split: Text,
    /// The batch within the evaluation, from 1; 0 for start and end.
    pub batch: u64,
    /// How many batches the evaluation has.
    pub batches: u64,
}

/// The data of the events that carry texts; [`EventKind`] documents them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TextsTable {
    /// `size_of::<TextsTable>()` as the host knows it.
    pub size: u32,
    /// A number that goes with the texts.
    pub number: u32,
    /// The first text.
    pub first: Text,
    /// The second text.
    pub second: Text,
    /// The third text.
    pub third: Text,
    /// Bytes, if the event has some.
    pub bytes: Bytes,
    /// A value, if the event has one.
    pub value: f64,
}

/// The host's handle during one hook: passed by value, spent when the hook returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostHandle {
    /// The host's table; static.
    pub table: *const HostTable,
    /// Names the hook in progress; never used twice in a process.
    pub ticket: u64,
}

/// The host's services. Static: valid until the process ends.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostTable {
    /// `size_of::<HostTable>()` as the host knows it.
    pub size: u32,
    /// The host's [`MINOR`](super::MINOR).
    pub minor: u32,
    /// Calls a service. On the hook's thread with the hook's ticket, or from any thread with the
    /// ticket of a remote. On failure `reply.bytes` gets a
    /// [`Failure`](crate::protocol::requests::Failure) and the status says what kind.
    pub call: unsafe extern "C" fn(
        ticket: u64,
        service: ServiceKind,
        request: *const RequestTable,
        reply: *const ReplyTable,
    ) -> Status,
}

// SAFETY: the table holds integers and a function.
unsafe impl Sync for HostTable {}

/// A service's request. Borrowed until the call returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RequestTable {
    /// `size_of::<RequestTable>()` as its maker knows it.
    pub size: u32,
    /// How many tensors.
    pub tensor_count: u32,
    /// The request's MessagePack map; empty for a service that takes none.
    pub payload: Bytes,
    /// The tensors, one after the other, `tensor_size` bytes apart.
    pub tensors: *const TensorTable,
    /// `size_of::<TensorTable>()` as the maker of the array knows it.
    pub tensor_size: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

/// Receives the answer of a service, `describe` or `create`. Borrowed until the call returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ReplyTable {
    /// `size_of::<ReplyTable>()` as its maker knows it.
    pub size: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// Passed back to the functions.
    pub context: *mut c_void,
    /// Takes the answer; called at most once. The bytes are borrowed until it returns.
    pub bytes: unsafe extern "C" fn(context: *mut c_void, bytes: Bytes),
    /// Takes one tensor; called once for each. What the table points to stays valid until the hook returns.
    pub tensor: unsafe extern "C" fn(context: *mut c_void, tensor: *const TensorTable),
}

/// The element type of a tensor, as DLPack writes it (`DLDataType`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataType {
    /// 0 signed integer, 1 unsigned integer, 2 float, 4 bfloat, 6 bool.
    pub code: u8,
    /// Bits of one element.
    pub bits: u8,
    /// 1: vector types are not used.
    pub lanes: u16,
}

/// Where a tensor lies, as DLPack writes it (`DLDevice`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// 1 CPU, 2 CUDA, 8 Metal.
    pub kind: i32,
    /// Which of them.
    pub index: i32,
}

impl Device {
    /// Whether its tensors can be read where they lie.
    pub fn is_cpu(self) -> bool {
        self.kind == 1
    }
}

/// A tensor in DLPack's layout (`DLTensor`), borrowed.
///
/// Source: the DLPack specification, `dlpack.h` 1.1.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DlTensor {
    /// The allocation; null for a tensor without elements. The device's stream is synchronized.
    pub data: *mut c_void,
    /// Where it lies.
    pub device: Device,
    /// Number of dimensions.
    pub dimensions: i32,
    /// The element type.
    pub dtype: DataType,
    /// `dimensions` sizes.
    pub shape: *const i64,
    /// `dimensions` strides in elements; null means contiguous, last dimension fastest.
    pub strides: *const i64,
    /// Where the first element is, in bytes after `data`.
    pub byte_offset: u64,
}

/// A named, borrowed tensor.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TensorTable {
    /// `size_of::<TensorTable>()` as its maker knows it.
    pub size: u32,
    /// Bit 0: read only.
    pub flags: u32,
    /// Its name.
    pub name: Text,
    /// The tensor.
    pub tensor: DlTensor,
}

/// Reads a sized table: fields past the maker's `size` are taken from `T::default_table()`.
///
/// This is the growth rule of the ABI: an older maker's table is shorter, and its reader sees defaults where it ends; a
/// newer maker's is longer, and its reader sees the part that it knows.
///
/// Returns `None` for a null pointer or a table that is shorter than in the major version's first release.
///
/// # Safety
///
/// `table` must be null or point to a table of the kind `T` whose first field is its size in bytes.
#[inline]
pub unsafe fn read_table<T: Table>(table: *const T) -> Option<T> {
    if table.is_null() {
        return None;
    }
    // SAFETY: every table begins with its size.
    let size = unsafe { table.cast::<u32>().read() } as usize;
    if size >= std::mem::size_of::<T>() {
        // The common case, and part of the hot path: a copy of known length.
        // SAFETY: the maker's table is at least as long as ours, and plain data.
        return Some(unsafe { table.read() });
    }
    // SAFETY: the maker's promise is `size` bytes.
    unsafe { read_shorter(table, size) }
}

/// # Safety
///
/// `table` must have `size` bytes, fewer than `T`.
#[cold]
unsafe fn read_shorter<T: Table>(table: *const T, size: usize) -> Option<T> {
    if size < T::MINIMUM {
        return None;
    }
    let mut value = T::default_table();
    // SAFETY: `size` bytes are there, and fit; `T` is plain data.
    unsafe { std::ptr::copy_nonoverlapping(table.cast::<u8>(), (&raw mut value).cast::<u8>(), size) };
    Some(value)
}

/// Reads an array of `count` sized tables that lie `element_size` bytes apart. An element that cannot be read ends it
/// with `None`.
///
/// # Safety
///
/// `first` must be null, or point to `count` tables of the kind `T`, `element_size` bytes apart.
pub unsafe fn read_tables<T: Table>(first: *const T, count: u32, element_size: u32) -> Option<Vec<T>> {
    if count == 0 {
        return Some(Vec::new());
    }
    if first.is_null() || (element_size as usize) < T::MINIMUM {
        return None;
    }
    (0..count as usize)
        .map(|index| {
            // SAFETY: within the array, by the caller's promise.
            unsafe { read_table(first.byte_add(index * element_size as usize)) }
        })
        .collect()
}

/// A sized table that [`read_table`] reads.
pub trait Table: Copy {
    /// Bytes of the table in the major version's first release; a shorter one is refused.
    const MINIMUM: usize;
    /// The values of fields that the maker did not know.
    fn default_table() -> Self;
}

const NO_TEXT: Text = Text { pointer: std::ptr::null(), length: 0 };
const NO_BYTES: Bytes = Bytes { pointer: std::ptr::null(), length: 0 };
const NO_HANDLE: HostHandle = HostHandle { table: std::ptr::null(), ticket: 0 };

/// The functions of a table without functions: nothing calls them, since such a table is refused.
mod absent {
    use super::*;

    pub(super) unsafe extern "C" fn describe(_: u32, _: *const ReplyTable) -> Status {
        Status::UNKNOWN
    }
    pub(super) unsafe extern "C" fn create(
        _: u32,
        _: *const CreateTable,
        _: *mut *mut c_void,
        _: *const ReplyTable,
    ) -> Status {
        Status::UNKNOWN
    }
    pub(super) unsafe extern "C" fn handle(_: u32, _: *mut c_void, _: *const EventTable, _: HostHandle) -> Status {
        Status::UNKNOWN
    }
    pub(super) unsafe extern "C" fn destroy(_: u32, _: *mut c_void) -> Status {
        Status::UNKNOWN
    }
    pub(super) unsafe extern "C" fn call(
        _: u64,
        _: ServiceKind,
        _: *const RequestTable,
        _: *const ReplyTable,
    ) -> Status {
        Status::UNKNOWN
    }
    pub(super) unsafe extern "C" fn log(_: *const LogTable) {}
    pub(super) unsafe extern "C" fn bytes(_: *mut c_void, _: Bytes) {}
    pub(super) unsafe extern "C" fn tensor(_: *mut c_void, _: *const TensorTable) {}
}

macro_rules! tables {
    ($($type:ident = $minimum:literal { $($field:ident: $value:expr),* $(,)? })*) => {
        $(impl Table for $type {
            // The first release's size, on the 64-bit systems that libtorch is built for.
            const MINIMUM: usize = if cfg!(target_pointer_width = "64") { $minimum } else { size_of::<Self>() };
            fn default_table() -> Self {
                Self { $($field: $value),* }
            }
        })*

        #[cfg(test)]
        const SIZES: &[(&str, usize, usize)] = &[$((stringify!($type), $minimum, size_of::<$type>())),*];
    };
}

tables! {
    LibraryTable = 112 {
        size: 0, major: 0, magic: 0, minor: 0, pointer_size: 0, sdk: NO_TEXT, compiler: NO_TEXT, target: NO_TEXT,
        unwinds: 0, kinds: 0, describe: absent::describe, create: absent::create, handle: absent::handle,
        destroy: absent::destroy,
    }
    CreateTable = 64 {
        size: 0, minor: 0, options: NO_TEXT, instance: NO_TEXT, log: absent::log, host: NO_HANDLE,
    }
    LogTable = 40 { size: 0, level: 3, target: NO_TEXT, message: NO_TEXT }
    EventTable = 48 {
        size: 0, kind: EventKind(0), epoch: 0, step: 0, global_step: 0, samples: 0, data: std::ptr::null(),
    }
    EvaluationTable = 40 { size: 0, mid_epoch: 0, split: NO_TEXT, batch: 0, batches: 0 }
    TextsTable = 80 {
        size: 0, number: 0, first: NO_TEXT, second: NO_TEXT, third: NO_TEXT, bytes: NO_BYTES, value: f64::NAN,
    }
    HostTable = 16 { size: 0, minor: 0, call: absent::call }
    RequestTable = 40 {
        size: 0, tensor_count: 0, payload: NO_BYTES, tensors: std::ptr::null(), tensor_size: 0, reserved: 0,
    }
    ReplyTable = 32 {
        size: 0, reserved: 0, context: std::ptr::null_mut(), bytes: absent::bytes, tensor: absent::tensor,
    }
    TensorTable = 72 {
        size: 0, flags: 0, name: NO_TEXT,
        tensor: DlTensor {
            data: std::ptr::null_mut(), device: Device { kind: 1, index: 0 }, dimensions: 0,
            dtype: DataType { code: 2, bits: 32, lanes: 1 }, shape: std::ptr::null(), strides: std::ptr::null(),
            byte_offset: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On 64-bit systems; elsewhere pointers are of another size, and so are the tables.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn minimum_sizes_are_those_of_the_first_release() {
        for (name, minimum, size) in SIZES {
            assert_eq!(minimum, size, "{name}");
        }
    }

    fn evaluation(size: usize) -> EvaluationTable {
        EvaluationTable { size: size as u32, mid_epoch: 1, split: Text::new("val"), batch: 3, batches: 7 }
    }

    #[repr(C)]
    struct Longer {
        known: EvaluationTable,
        grown: u64,
    }

    #[test]
    fn a_longer_table_is_read_as_far_as_it_is_known() {
        let longer = Longer { known: evaluation(size_of::<Longer>()), grown: u64::MAX };
        // SAFETY: `Longer` begins with the table and its size.
        let read = unsafe { read_table(&raw const longer.known) }.expect("long enough");
        assert_eq!((read.mid_epoch, read.batch, read.batches), (1, 3, 7));
        assert_eq!(longer.grown, u64::MAX);
    }

    #[test]
    fn a_table_too_short_or_missing_is_refused() {
        let short = evaluation(8);
        // SAFETY: a table with its size first, then null.
        unsafe {
            assert!(read_table(&raw const short).is_none());
            assert!(read_table(std::ptr::null::<EvaluationTable>()).is_none());
        }
    }

    #[test]
    fn an_array_of_longer_tables_is_read_element_by_element() {
        let element =
            |batch| Longer { known: EvaluationTable { batch, ..evaluation(size_of::<Longer>()) }, grown: u64::MAX };
        let array = [element(1), element(2), element(3)];
        let read = |count, size: usize| {
            // SAFETY: as many tables as are asked for, that far apart.
            unsafe { read_tables(&raw const array[0].known, count, size as u32) }
        };
        let batches = |read: Vec<EvaluationTable>| read.iter().map(|table| table.batch).collect::<Vec<_>>();
        assert_eq!(read(3, size_of::<Longer>()).map(batches), Some(vec![1, 2, 3]));
        assert_eq!(read(0, 0).map(batches), Some(Vec::new()));
        assert!(read(1, 8).is_none(), "an element is never shorter than in the first release");
        // SAFETY: null is not read.
        assert!(unsafe { read_tables(std::ptr::null::<EvaluationTable>(), 1, 40) }.is_none());
    }
}
