//! Wrong: its header has no layout constant, which `abi_stable` would let through unchecked.

use std::ffi::c_void;

use abi_stable::library::{CheckTypeLayout, LibHeader, RootModuleResult};
use plugin_api::abi::root::{load, RootRef};

extern "C" fn library() -> *const c_void {
    std::ptr::null()
}

extern "C" fn loader() -> RootModuleResult {
    load(library)
}

// SAFETY: `loader` returns the reference of a `RootRef`.
#[export_name = "_1as_0lib_1header_0root_bmodule_bloader"]
pub static HEADER: LibHeader = unsafe { LibHeader::from_constructor::<RootRef>(loader, CheckTypeLayout::No) };
