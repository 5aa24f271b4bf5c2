//! The entry of a library in C or C++: a function without arguments.

use std::ffi::c_void;

use plugin_api::abi::LibraryTable;

/// Asks the library for its table. Nothing of what it gives is looked at here.
///
/// # Safety
///
/// `symbol` must be the address of the function of `host_plugin.h`, in a library that is never closed.
pub(super) unsafe fn open(symbol: *const c_void) -> *const LibraryTable {
    // SAFETY: the symbol's name is a promise of its type, as of every C function; an address in a loaded library is no
    // null.
    let entry = unsafe { std::mem::transmute::<*const c_void, unsafe extern "C" fn() -> *const LibraryTable>(symbol) };
    // SAFETY: the function takes nothing.
    unsafe { entry() }
}
