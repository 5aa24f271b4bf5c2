//! The written form of what crosses the ABI: descriptors, the values that services take and return, and their
//! [`requests`].
//!
//! Every struct here is a MessagePack map with named keys (a descriptor: a JSON object). Fields are only ever added, with
//! a default; unknown keys are ignored. So both sides may have different minor versions, and a plugin in C needs only
//! the helpers of its header.
//!
//! Of MessagePack's encodings, the host writes integers in the shortest form, an `f64` as a float of 64 bits, an `f32` as
//! one of 32, text as `str`, bytes as `bin`, and maps and arrays with the shortest header. It reads every encoding of a
//! value, and an integer where a number is wanted. The value of an option may be an integer where its schema says number.

mod descriptor;
mod record;
pub mod requests;
mod tensors;
mod values;

pub use descriptor::{Descriptor, Need};
pub use record::{Blob, HyperParameter, Record, RecordValue};
pub use tensors::{Tap, TapOf, TapReduce, TensorInfo, TensorSet};
pub use values::{
    Action, ArrayPoint, CheckpointWritten, ConsoleLine, Control, CopyAction, DataInfo, Evaluated, HookTime, LoraInfo,
    ParameterGroup, Point, Recording, RunInfo, Span, SpanKind, WeightsInfo,
};
