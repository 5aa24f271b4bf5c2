//! The narrow waist: everything that crosses between a host and a plugin library, as C sees it.
//!
//! A plugin author who writes Rust never needs this module; it is for hosts, and for plugins in C.
//!
//! # Rules
//!
//! * What crosses is an integer, a float, a pointer with a length, a function pointer, or a pointer
//!   to a `#[repr(C)]` table whose first field is `size: u32`, its own size in bytes as its maker
//!   knows it. A reader touches nothing past `size`; that is how a table grows. [`read_table`] is
//!   the one place that applies the rule.
//! * Whoever made a thing frees it. Every pointer is borrowed and valid until the function that
//!   received it returns, or, for what a service answers with tensors, until the hook returns.
//! * Kinds ([`EventKind`], [`ServiceKind`], …) are transparent integers with named constants.
//!   A reader ignores those that it does not know.
//! * A panic never crosses: an `extern "C"` function of either side catches it and returns
//!   [`Status::PANIC`].
//! * Requests and replies of services are [MessagePack](https://msgpack.org) maps with named keys,
//!   described in [`protocol`](crate::protocol); unknown keys are ignored and absent ones have
//!   defaults. Tensors alone go by reference.
//!
//! # The conversation
//!
//! The host opens the library, takes its header (see [`root`]), and asks for the
//! [`LibraryTable`]. Each kind of callback describes itself with one JSON document
//! ([`Descriptor`](crate::protocol::Descriptor)). `create` makes an instance, `handle` takes one event, `destroy`
//! ends it. During `handle` the plugin may call services through the [`HostHandle`] that came with
//! the event, on the same thread; afterwards the handle's ticket is spent and every call answers
//! [`Status::STALE`].
//!
//! # Plugins in C
//!
//! Everything above can be written in C, but for the header by which a host finds and checks a library: it is
//! `abi_stable`'s and holds a Rust type's layout. A plugin in C links one Rust file that exports the header around the
//! plugin's own function returning a [`LibraryTable`]; `tests/plugins/no-schema` of the repository shows such a table
//! written by hand.

pub mod kinds;
#[doc(hidden)]
pub mod root;

use std::ffi::c_void;

use self::kinds::{EventKind, ServiceKind, Status};

/// The ABI's major version: libraries of another major are refused.
pub const MAJOR: u32 = 1;

/// The ABI's minor version: the newest events and services that this SDK knows.
pub const MINOR: u32 = if cfg!(feature = "next-minor") { 1 } else { 0 };

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

    /// The text, with what is not UTF-8 replaced.
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
pub struct LibraryTable {
    /// `size_of::<LibraryTable>()` as the library knows it.
    pub size: u32,
    /// The [`MINOR`] of the SDK that built the library; for messages, not for the decision whether to load.
    pub minor: u32,
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
    /// Gives kind `index`'s JSON descriptor to `reply.bytes`. Any thread.
    pub describe: unsafe extern "C" fn(index: u32, reply: *const ReplyTable) -> Status,
    /// Makes an instance of kind `index` from `options` (JSON) and writes it to `instance`.
    /// On failure the message goes to `reply.bytes` and nothing is written. The host's thread.
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

/// What `create` is given. Borrowed until it returns.
#[repr(C)]
pub struct CreateTable {
    /// `size_of::<CreateTable>()` as the host knows it.
    pub size: u32,
    /// The host's [`MINOR`].
    pub minor: u32,
    /// The kind's options: a JSON object that satisfies its schema, defaults filled in.
    pub options: Text,
    /// The instance's name.
    pub instance: Text,
    /// Where the library's logs go: valid until the process ends, callable from any thread.
    pub log: unsafe extern "C" fn(record: *const LogTable),
}

/// One log record of a library. Borrowed until the function returns.
#[repr(C)]
pub struct LogTable {
    /// `size_of::<LogTable>()` as the library knows it.
    pub size: u32,
    /// 1 error, 2 warning, 3 information, 4 debug, 5 trace.
    pub level: u32,
    /// The module that logs.
    pub target: Text,
    /// The message, with its fields as `name=value` behind it.
    pub message: Text,
}

/// One event. Borrowed until `handle` returns.
#[repr(C)]
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

/// The data of the events that carry three texts; which, [`EventKind`] tells.
#[repr(C)]
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
    /// Bytes, where the event has some.
    pub bytes: Bytes,
    /// A value, where the event has one.
    pub value: f64,
}

/// The way back to the host during one hook: passed by value, spent when the hook returns.
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
pub struct HostTable {
    /// `size_of::<HostTable>()` as the host knows it.
    pub size: u32,
    /// The host's [`MINOR`].
    pub minor: u32,
    /// Calls a service. On the hook's thread with the hook's ticket, or from any thread with the
    /// ticket of a remote. On failure `reply.bytes` gets a
    /// [`Failure`](crate::protocol::Failure) and the status says what kind.
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
pub struct RequestTable {
    /// `size_of::<RequestTable>()` as its maker knows it.
    pub size: u32,
    /// How many tensors.
    pub tensor_count: u32,
    /// The request's MessagePack map; empty for a service that takes none.
    pub payload: Bytes,
    /// The tensors, one behind the other.
    pub tensors: *const TensorTable,
}

/// Where a service, or `describe` and `create`, put their answer. Borrowed until the call returns.
#[repr(C)]
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
    /// The allocation; null for a tensor without elements. The device's stream is synchronised.
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
    /// Where the first element is, in bytes behind `data`.
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

/// Reads a sized table: what lies past the maker's `size` is taken from `T::default_table()`.
///
/// This is the growth rule of the ABI: an older maker's table is shorter, and its reader sees
/// defaults where it ends; a newer maker's is longer, and its reader sees the part that it knows.
///
/// Returns `None` for a null pointer or a table too short to hold its own `size`.
///
/// # Safety
///
/// `table` must be null or point to a table of the kind `T` whose first field is its size in bytes.
pub unsafe fn read_table<T: Table>(table: *const T) -> Option<T> {
    if table.is_null() {
        return None;
    }
    // SAFETY: every table begins with its size.
    let size = unsafe { table.cast::<u32>().read() } as usize;
    if size < T::MINIMUM {
        return None;
    }
    let mut value = T::default_table();
    // SAFETY: the copy stays within both: the maker's `size` bytes and ours. `T` is plain data.
    unsafe {
        std::ptr::copy_nonoverlapping(
            table.cast::<u8>(),
            (&raw mut value).cast::<u8>(),
            size.min(std::mem::size_of::<T>()),
        );
    }
    Some(value)
}

/// A sized table that [`read_table`] reads.
pub trait Table: Sized {
    /// Bytes of the table in the major version's first release; a shorter one is refused.
    const MINIMUM: usize;
    /// What a reader sees of fields that the maker did not know.
    fn default_table() -> Self;
}

const NO_TEXT: Text = Text { pointer: std::ptr::null(), length: 0 };
const NO_BYTES: Bytes = Bytes { pointer: std::ptr::null(), length: 0 };

impl Table for EvaluationTable {
    const MINIMUM: usize = 40;
    fn default_table() -> Self {
        Self { size: 0, mid_epoch: 0, split: NO_TEXT, batch: 0, batches: 0 }
    }
}

impl Table for TextsTable {
    const MINIMUM: usize = 80;
    fn default_table() -> Self {
        Self { size: 0, number: 0, first: NO_TEXT, second: NO_TEXT, third: NO_TEXT, bytes: NO_BYTES, value: 0.0 }
    }
}

impl Table for EventTable {
    const MINIMUM: usize = 48;
    fn default_table() -> Self {
        Self { size: 0, kind: EventKind(0), epoch: 0, step: 0, global_step: 0, samples: 0, data: std::ptr::null() }
    }
}

impl Table for RequestTable {
    const MINIMUM: usize = 32;
    fn default_table() -> Self {
        Self { size: 0, tensor_count: 0, payload: NO_BYTES, tensors: std::ptr::null() }
    }
}

impl Table for LogTable {
    const MINIMUM: usize = 40;
    fn default_table() -> Self {
        Self { size: 0, level: 3, target: NO_TEXT, message: NO_TEXT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimum_sizes_are_those_of_the_first_release() {
        assert_eq!(EvaluationTable::MINIMUM, size_of::<EvaluationTable>());
        assert_eq!(TextsTable::MINIMUM, size_of::<TextsTable>());
        assert_eq!(EventTable::MINIMUM, size_of::<EventTable>());
        assert_eq!(RequestTable::MINIMUM, size_of::<RequestTable>());
        assert_eq!(LogTable::MINIMUM, size_of::<LogTable>());
    }

    #[test]
    fn a_longer_table_is_read_as_far_as_it_is_known() {
        #[repr(C)]
        struct Longer {
            known: EvaluationTable,
            grown: u64,
        }
        let longer = Longer {
            known: EvaluationTable {
                size: size_of::<Longer>() as u32,
                mid_epoch: 1,
                split: Text::new("val"),
                batch: 3,
                batches: 7,
            },
            grown: u64::MAX,
        };
        // SAFETY: `Longer` begins with the table and its size.
        let read = unsafe { read_table(&raw const longer.known) }.expect("long enough");
        assert_eq!((read.mid_epoch, read.batch, read.batches), (1, 3, 7));
        assert_eq!(longer.grown, u64::MAX);
    }

    #[test]
    fn a_table_too_short_or_missing_is_refused() {
        let short = EvaluationTable { size: 8, ..EvaluationTable::default_table() };
        // SAFETY: a table with its size first, then null.
        unsafe {
            assert!(read_table(&raw const short).is_none());
            assert!(read_table(std::ptr::null::<EvaluationTable>()).is_none());
        }
    }
}
