//! Wrong: a shared library that exports no plugin header.

/// Something to export.
#[no_mangle]
pub extern "C" fn answer() -> i32 {
    42
}
