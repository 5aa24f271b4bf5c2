//! The narrow waist: everything that crosses between a host and a plugin library, as C sees it.
//!
//! A plugin author who writes Rust never needs this module. It is for hosts, and for plugins in C, which include
//! `host_plugin.h` (in this crate's `include` folder): the same tables and numbers, held to these by a test.
//!
//! # Rules
//!
//! * What crosses is an integer, a float, a pointer with a length, a function pointer, or a pointer to a `#[repr(C)]`
//!   table whose first field is `size: u32`, its own size in bytes as its maker knows it. A reader touches nothing past
//!   `size`; that is how a table grows. [`read_table`] is the one place that applies the rule. An array of tables comes
//!   with the size of one element, and [`read_tables`] is the one place that steps through it.
//! * Whoever made a thing frees it. Every pointer is borrowed and valid until the function that received it returns, or,
//!   for the tensors in a service's answer, until the hook returns.
//! * Kinds ([`EventKind`], [`ServiceKind`], …) are transparent integers with named constants. A reader ignores those that
//!   it does not know.
//! * A panic or a C++ exception never crosses: a function of either side catches it and returns [`Status::PANIC`].
//! * Requests and replies of services are [MessagePack](https://msgpack.org) maps with named keys, described in
//!   [`protocol`](crate::protocol); unknown keys are ignored and absent ones have defaults. Tensors go by reference.
//!
//! # The conversation
//!
//! The host opens the library and asks for its [`LibraryTable`]: a library in Rust gives it through the header of
//! [`root`], any other through the C function [`ENTRY_SYMBOL`]. Each kind of callback describes itself with one JSON
//! document ([`Descriptor`](crate::protocol::Descriptor)). `create` makes an instance, `handle` takes one event, `destroy`
//! ends it. During `create` and `handle` the plugin may call services through the [`HostHandle`] that came with the call,
//! on the same thread; afterwards the handle's ticket is spent and every call answers [`Status::STALE`].
//!
//! # What is fixed, and what may grow
//!
//! Version 1 of the ABI is final. For the whole of it:
//!
//! | part | fixed | may be added in a minor version |
//! |---|---|---|
//! | the header of [`root`] | all of it: `abi_stable` compares types | nothing |
//! | the symbol [`ENTRY_SYMBOL`], [`MAGIC`] | all of it | nothing |
//! | a sized table | fields, their order, types and meaning | fields at its end, with a default for a shorter table |
//! | [`Text`], [`Bytes`], [`HostHandle`], [`DlTensor`], [`DataType`], [`Device`] | all of it: they have no size of their own | nothing |
//! | a function in a table | signature, thread, ownership | other functions, at the table's end |
//! | events, services | number, name, what they carry and where they may be called | new ones, with the next number |
//! | [`Status`] | numbers and meaning | new ones; a reader takes an unknown one for [`Status::ERROR`] |
//! | requests, replies, descriptors | keys and their types | keys with a default; a reader ignores unknown ones |
//!
//! A **draft** is an event, a service or a descriptor's key that is being tried: its documentation says so, and
//! [`EventKind::is_draft`] and [`ServiceKind::is_draft`] tell it. Its number belongs to it, and everything else may change
//! or go in any version. A plugin that uses a draft is told so by `host plugins check`. A draft becomes a promise when it
//! loses the mark, and its `since` becomes the minor version in which that happens.

pub mod kinds;
#[doc(hidden)]
pub mod root;
mod tables;

use self::kinds::{EventKind, ServiceKind, Status};

pub use self::tables::{
    Bytes, CreateTable, DataType, Device, DlTensor, EvaluationTable, EventTable, HostHandle, HostTable, LibraryTable,
    LogTable, ReplyTable, RequestTable, Table, TensorTable, Text, TextsTable, read_table, read_tables,
};

/// The ABI's major version: libraries of another major are refused.
pub const MAJOR: u32 = 1;

/// The ABI's minor version: the newest events and services that this SDK knows.
pub const MINOR: u32 = if cfg!(feature = "next-minor") { 1 } else { 0 };

/// What a [`LibraryTable`] begins with after its size and version: `HOSTPLUG` in ASCII, read as a big-endian number.
pub const MAGIC: u64 = u64::from_be_bytes(*b"HOSTPLUG");

/// The C function by which a library that is not written in Rust gives its [`LibraryTable`], with a trailing NUL:
/// `const struct host_plugin_library *host_plugin_entry(void)`. The table is static and never null.
pub const ENTRY_SYMBOL: &str = "host_plugin_entry\0";

/// The name of [`C_HEADER`] as a file.
pub const C_HEADER_NAME: &str = "host_plugin.h";

/// The header: the ABI for C and C++, with helpers, as a text.
pub const C_HEADER: &str = include_str!("../../include/host_plugin.h");
