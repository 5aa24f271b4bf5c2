//! Wrong: keeps the handle of a hook, and calls a service with it in the next one.
//!
//! Written against the ABI by hand, as a plugin in C would be: the SDK does not let an author do this.

use std::ffi::c_void;

use abi_stable::library::{CheckTypeLayout, LibHeader, RootModuleResult};
use plugin_api::abi::kinds::Status;
use plugin_api::abi::root::{load, RootRef};
use plugin_api::abi::{
    Bytes, CreateTable, EventTable, HostHandle, LibraryTable, ReplyTable, TensorTable, Text, MAGIC, MAJOR, MINOR,
};

use std::mem::size_of;

use plugin_api::abi::kinds::ServiceKind;
use plugin_api::abi::RequestTable;

unsafe extern "C" fn ignore_bytes(_context: *mut c_void, _bytes: Bytes) {}

unsafe extern "C" fn ignore_tensor(_context: *mut c_void, _tensor: *const TensorTable) {}

const DESCRIPTOR: &str = r#"{
    "kind": "stale-handle", "version": "0.1.0", "summary": "Uses a handle after its hook", "license": "MIT",
    "hooks": ["epoch_start", "epoch_end"], "by_default": false,
    "options": { "type": "object", "properties": {}, "additionalProperties": false }
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
        unsafe { instance.write(Box::into_raw(Box::new(None::<HostHandle>)).cast()) };
        return Status::OK;
    }
    let words = "it has no options";
    // SAFETY: the host's table outlives the call.
    unsafe { ((*reply).bytes)((*reply).context, Bytes::new(words.as_bytes())) };
    Status::ERROR
}

/// Calls with the handle of the previous hook.
unsafe extern "C" fn handle(_index: u32, instance: *mut c_void, _event: *const EventTable, host: HostHandle) -> Status {
    // SAFETY: made by `create`; hooks of an instance never overlap.
    let kept = unsafe { &mut *instance.cast::<Option<HostHandle>>() };
    let Some(spent) = kept.replace(host) else { return Status::OK };
    let request = RequestTable {
        size: size_of::<RequestTable>() as u32,
        tensor_count: 0,
        payload: Bytes::new(&[]),
        tensors: std::ptr::null(),
        tensor_size: 0,
        reserved: 0,
    };
    let reply = ReplyTable {
        size: size_of::<ReplyTable>() as u32,
        reserved: 0,
        context: std::ptr::null_mut(),
        bytes: ignore_bytes,
        tensor: ignore_tensor,
    };
    // SAFETY: the host's table is static; that the ticket is spent is what the host must notice.
    let status =
        unsafe { ((*spent.table).call)(spent.ticket, ServiceKind::METRICS, &raw const request, &raw const reply) };
    // The host must refuse the call; the refusal must not fail the run.
    if status == Status::STALE {
        Status::OK
    } else {
        Status::ERROR
    }
}

unsafe extern "C" fn destroy(_index: u32, instance: *mut c_void) -> Status {
    // SAFETY: made by `create`, and destroyed once.
    drop(unsafe { Box::from_raw(instance.cast::<Option<HostHandle>>()) });
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
#[export_name = "_1as_0lib_1header_0root_bmodule_bloader"]
pub static HEADER: LibHeader = unsafe { LibHeader::from_constructor::<RootRef>(loader, CheckTypeLayout::Yes) };
