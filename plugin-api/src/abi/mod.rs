//! The ABI: everything that crosses between a host and a plugin library, as C sees it.
//!
//! Authors of plugins in Rust do not need this module. It is for hosts, and for plugins in C, which include
//! `host_plugin.h` (in this crate's `include` folder): the same tables and numbers, which a test compares.
//!
//! # Rules
//!
//! * What crosses is an integer, a float, a pointer with a length, a function pointer, or a pointer to a `#[repr(C)]`
//!   table whose first field is `size: u32`, its own size in bytes as its maker knows it. A reader reads nothing past
//!   `size`; so a table can grow. [`read_table`] is the one place that applies the rule. An array of tables comes
//!   with the size of one element, and [`read_tables`] is the one place that steps through it.
//! * The side that allocates memory frees it. Every pointer is borrowed and valid until the function that received it
//!   returns, or, for the tensors in a service's answer, until the hook returns.
//! * Kinds ([`EventKind`], [`ServiceKind`], …) are transparent integers with named constants. A reader ignores those that
//!   it does not know.
//! * A panic or a C++ exception never crosses: the functions of both sides catch it and return [`Status::PANIC`].
//! * Requests and replies of services are [MessagePack](https://msgpack.org) maps with named keys, described in
//!   [`protocol`](crate::protocol); unknown keys are ignored, absent ones have defaults. Tensors are borrowed.
//!
//! # The sequence of calls
//!
//! The host opens the library and asks for its [`LibraryTable`]: a library in Rust provides it through the header of
//! [`root`], any other through the C function [`ENTRY_SYMBOL`]. Each kind of callback describes itself with one JSON
//! document ([`Descriptor`](crate::protocol::Descriptor)). `create` makes an instance, `handle` takes one event,
//! `destroy` ends the instance. During `create` and `handle` the plugin may call services through the [`HostHandle`] of
//! that call, on the same thread; afterwards the handle's ticket is spent and every call returns [`Status::STALE`].
//!
//! # What is fixed, and what may grow
//!
//! Version 1 of the ABI is final:
//!
//! | part | fixed | may be added in a minor version |
//! |---|---|---|
//! | the header of [`root`] | all of it: `abi_stable` compares types | nothing |
//! | the symbol [`ENTRY_SYMBOL`], [`MAGIC`] | all of it | nothing |
//! | a sized table | fields, their order, types and meaning | fields at its end, with a default for a shorter table |
//! | [`Text`], [`Bytes`], [`HostHandle`], [`DlTensor`], [`DataType`], [`Device`] | all of it: they have no size of their own | nothing |
//! | a function in a table | signature, thread, ownership | other functions, at the table's end |
//! | events, services | number, name, what they carry and where they may be called | new ones, with the next number |
//! | [`Status`] | numbers and meaning | new ones; a reader treats an unknown one as [`Status::ERROR`] |
//! | requests, replies, descriptors | keys and their types | keys with a default; a reader ignores unknown ones |
//!
//! A **draft** is an experimental event, service or key of a descriptor: its documentation says so, and
//! [`EventKind::is_draft`] and [`ServiceKind::is_draft`] return true. Its number is fixed; everything else may change
//! or disappear in any version. `host plugins check` tells the author of a plugin that uses a draft. A draft becomes
//! stable when it loses the mark; its `since` becomes the minor version in which that happens.

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

/// The value in a [`LibraryTable`] after its size and version: `HOSTPLUG` in ASCII, read as a big-endian number.
pub const MAGIC: u64 = u64::from_be_bytes(*b"HOSTPLUG");

/// The C function by which a library that is not written in Rust provides its [`LibraryTable`], with a trailing NUL:
/// `const struct host_plugin_library *host_plugin_entry(void)`. The table is static and never null.
pub const ENTRY_SYMBOL: &str = "host_plugin_entry\0";

/// The name of [`C_HEADER`] as a file.
pub const C_HEADER_NAME: &str = "host_plugin.h";

/// The header: the ABI for C and C++, with helpers, as a text.
pub const C_HEADER: &str = include_str!("../../include/host_plugin.h");
