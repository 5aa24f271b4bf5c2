//! The entry of a library in Rust: `abi_stable`'s header.

use std::ffi::c_void;
use std::path::Path;

use plugin_api::abi::root::{HeaderError, open_header};
use plugin_api::abi::{self, LibraryTable};

use crate::error::LoadError;

/// Checks the header and asks the library for its table.
///
/// # Safety
///
/// `header` must be the address of the header's symbol in the library at `path`, which is never closed.
pub(super) unsafe fn open(path: &Path, header: *const c_void) -> Result<*const LibraryTable, LoadError> {
    // SAFETY: the caller's promise.
    unsafe { open_header(header) }.map_err(|error| refusal(path, error))
}

fn refusal(path: &Path, error: HeaderError) -> LoadError {
    let path = path.to_owned();
    let expected = format!("{}.{}", abi::MAJOR, abi::MINOR);
    let layout = |path, detail: &str| LoadError::Layout { path, expected: expected.clone(), detail: detail.to_owned() };
    match error {
        HeaderError::Version { expected, found } => LoadError::Version { path, expected, found },
        HeaderError::Layout { tree } => {
            tracing::debug!(path = %path.display(), %tree, "the layouts differ");
            layout(path, "its root module is another type")
        }
        HeaderError::NoLayout => layout(path, "it exports no layout, so that nothing can be checked"),
        HeaderError::Header { detail } => {
            tracing::debug!(path = %path.display(), %detail, "the header is not this one's");
            layout(path, "its header is of another `abi_stable`")
        }
        HeaderError::Loader { message } => LoadError::Loader { path, message },
        HeaderError::LoaderPanicked => LoadError::Loader { path, message: "it panicked".to_owned() },
        other => layout(path, &format!("{other:?}")),
    }
}
