//! Wrong: its descriptor has no schema of the options.
//!
//! Written against the ABI by hand, as a plugin in C would be: the SDK does not let an author do this.

use std::ffi::c_void;

use abi_stable::library::{CheckTypeLayout, LibHeader, RootModuleResult};
use plugin_api::abi::kinds::Status;
use plugin_api::abi::root::{RootRef, load};
use plugin_api::abi::{
    Bytes, CreateTable, EventTable, HostHandle, LibraryTable, MAGIC, MAJOR, MINOR, ReplyTable, Text,
};

const DESCRIPTOR: &str = r#"{
    "kind": "no-schema", "version": "0.1.0", "summary": "Has no schema of its options", "license": "MIT",
    "hooks": ["epoch_end"], "by_default": false
}"#;

unsafe extern "C" fn describe(_index: u32, reply: *const ReplyTable) -> Status {
    // SAFETY: the host's table outlives the call.
    unsafe { ((*reply).bytes)((*reply).context, Bytes::new(DESCRIPTOR.as_bytes())) };
    Status::OK
}

unsafe extern "C" fn create(
    _index: u32,
    request: *const CreateTable,
    instance: *mut *mut c_void,
    reply: *const ReplyTable,
) -> Status {
    // SAFETY: the host's table and its text outlive the call.
    let options = unsafe { (*request).options.read() };
    if serde_json::from_str::<serde_json::Value>(&options).is_ok_and(|options| options == serde_json::json!({})) {
        // SAFETY: the host's place for one pointer.
        unsafe { instance.write(std::ptr::dangling_mut::<u8>().cast()) };
        return Status::OK;
    }
    let words = "it has no options";
    // SAFETY: the host's table outlives the call.
    unsafe { ((*reply).bytes)((*reply).context, Bytes::new(words.as_bytes())) };
    Status::ERROR
}

/// Does nothing.
unsafe extern "C" fn handle(
    _index: u32,
    _instance: *mut c_void,
    _event: *const EventTable,
    _host: HostHandle,
) -> Status {
    Status::OK
}

unsafe extern "C" fn destroy(_index: u32, _instance: *mut c_void) -> Status {
    Status::OK
}

static TABLE: LibraryTable = LibraryTable {
    size: size_of::<LibraryTable>() as u32,
    major: MAJOR,
    magic: MAGIC,
    minor: MINOR,
    pointer_size: size_of::<*const ()>() as u32,
    sdk: Text::new("by hand"),
    compiler: Text::new("rustc"),
    target: Text::new(std::env::consts::ARCH),
    unwinds: 1,
    kinds: 1,
    describe,
    create,
    handle,
    destroy,
};

extern "C" fn library() -> *const c_void {
    (&raw const TABLE).cast()
}

extern "C" fn loader() -> RootModuleResult {
    load(library)
}

// SAFETY: `loader` returns the reference of a `RootRef`.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
pub static HEADER: LibHeader = unsafe { LibHeader::from_constructor::<RootRef>(loader, CheckTypeLayout::Yes) };
