//! The written form of what crosses the ABI: descriptors, the values that services take and return, and their
//! [`requests`].
//!
//! Every struct here is a MessagePack map with named keys (a descriptor: a JSON object). Fields are only ever added, with
//! a default; unknown keys are ignored. So both sides may have different minor versions, and a plugin in C needs only
//! the helpers of its header.
//!
//! Of MessagePack's encodings, the host writes integers in the shortest form, floats as 64-bit floats, text as `str`,
//! bytes as `bin`, and maps and arrays with the shortest header; it reads every encoding of a number, so that a float may
//! come as an integer or as 32 bits.

mod descriptor;
mod record;
pub mod requests;
mod tensors;
mod values;

pub use descriptor::{Descriptor, Need};
pub use record::{Blob, HyperParameter, Record, RecordValue};
pub use tensors::{Tap, TapOf, TapReduce, TensorInfo, TensorSet};
pub use values::{
    ArrayPoint, CheckpointWritten, ConsoleLine, Control, CopyAction, DataInfo, HookTime, ParameterGroup, Point, RunInfo,
};
