//! The one module that names `abi_stable`: a library's header, and its root module.
//!
//! `abi_stable` is frozen upstream, and only this module uses it. It checks the root module's type
//! and all that is reachable from it; so the root module holds one function that returns an opaque
//! pointer, and never changes within a major version. Only the sized tables grow.
//!
//! `RootModule::load_from*` is not used: it caches one module per *type*, so that a second library
//! silently gets the first one's. Each library's own header is taken instead.

use std::ffi::c_void;

use abi_stable::library::{
    AbiHeaderRef, IsLayoutChecked, LibHeader, LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL, RootModule,
    RootModuleError,
};
use abi_stable::sabi_types::VersionStrings;
use abi_stable::{StableAbi, package_version_strings};

use super::LibraryTable;

// The header's symbol, for the export macro and for tests that break a header on purpose.
#[doc(hidden)]
pub use abi_stable;

/// The symbol under which a library exports its header, with a trailing NUL.
pub const HEADER_SYMBOL: &str = ROOT_MODULE_LOADER_NAME_WITH_NUL;

/// What `abi_stable` checks: frozen for the major version.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootRef)))]
#[sabi(missing_field(panic))]
pub struct Root {
    /// Returns the library's [`LibraryTable`]; static, never null.
    #[sabi(last_prefix_field)]
    pub library: extern "C" fn() -> *const c_void,
}

impl RootModule for RootRef {
    abi_stable::declare_root_module_statics! {RootRef}
    const BASE_NAME: &'static str = "host_plugin";
    const NAME: &'static str = "host_plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// Why a library's header was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum HeaderError {
    /// The library was built with another `abi_stable`, or its header is not one.
    Header {
        /// What was expected and found.
        detail: String,
    },
    /// The ABI's major versions differ.
    Version {
        /// This host's.
        expected: String,
        /// The library's.
        found: String,
    },
    /// The root modules' layouts differ.
    Layout {
        /// The tree of types, which is pages long: for the debug log.
        tree: String,
    },
    /// The library exports no layout to check.
    NoLayout,
    /// The library's root module loader failed.
    Loader {
        /// Its error.
        message: String,
    },
    /// The library's root module loader panicked.
    LoaderPanicked,
}

/// Checks the header at [`HEADER_SYMBOL`] and returns the library's table: static, not null, and to be read with
/// [`read_table`](super::read_table), since it may be shorter than this version's.
///
/// # Errors
///
/// See [`HeaderError`]; only the library's header and its loader have run by then.
///
/// # Safety
///
/// `header` must be the value of the symbol [`HEADER_SYMBOL`] of a library that is never closed.
pub unsafe fn open_header(header: *const c_void) -> Result<*const LibraryTable, HeaderError> {
    // SAFETY: the symbol is a `LibHeader`, which begins with an `AbiHeader`; `AbiHeaderRef` is a
    // transparent reference to it. `upgrade` reads the magic string before anything else.
    let header: AbiHeaderRef = unsafe { std::mem::transmute::<*const c_void, AbiHeaderRef>(header) };
    let header: &'static LibHeader = header.upgrade().map_err(refusal)?;
    if matches!(header.root_mod_consts().layout(), IsLayoutChecked::No) {
        // `ensure_layout` would let it through unchecked.
        return Err(HeaderError::NoLayout);
    }
    let root = header.init_root_module::<RootRef>().map_err(refusal)?;
    let library = (root.library())().cast::<LibraryTable>();
    if library.is_null() {
        return Err(HeaderError::Loader { message: "its root module gave no library table".to_owned() });
    }
    Ok(library)
}

fn refusal(error: LibraryError) -> HeaderError {
    match error {
        LibraryError::IncompatibleVersionNumber { expected_version, actual_version, .. } => {
            HeaderError::Version { expected: expected_version.to_string(), found: actual_version.to_string() }
        }
        LibraryError::AbiInstability(tree) => HeaderError::Layout { tree: tree.to_string() },
        LibraryError::RootModule { err: RootModuleError::Unwound, .. } => HeaderError::LoaderPanicked,
        LibraryError::RootModule { err: RootModuleError::Returned(error), .. } => {
            HeaderError::Loader { message: error.to_string().trim().to_owned() }
        }
        other => HeaderError::Header { detail: other.to_string().trim().to_owned() },
    }
}

/// Emits a library's header. `#[plugin]` calls it; `$crate` spares the author a dependency on `abi_stable`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_header {
    ($kinds:path) => {
        const _: () = {
            extern "C" fn library() -> *const ::core::ffi::c_void {
                static TABLE: ::std::sync::OnceLock<$crate::abi::LibraryTable> = ::std::sync::OnceLock::new();
                ::core::ptr::from_ref(TABLE.get_or_init(|| $crate::export::library_table::<Library>())).cast()
            }

            struct Library;
            impl $crate::export::Library for Library {
                const KINDS: &'static [$crate::Kind] = $kinds;
            }

            extern "C" fn loader() -> $crate::abi::root::abi_stable::library::RootModuleResult {
                $crate::abi::root::load(library)
            }

            // The name is `abi_stable`'s mangling of its root module loader; a test compares it with
            // the constant. `abi_stable`'s own attribute would name `::abi_stable`, which a plugin
            // does not depend on, and a `#[no_mangle]` that edition 2024 refuses.
            // SAFETY: no other symbol of a plugin library has this name.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static HEADER: $crate::abi::root::abi_stable::library::LibHeader = {
                // SAFETY: `loader` returns the reference of a `RootRef`.
                unsafe {
                    $crate::abi::root::abi_stable::library::LibHeader::from_constructor::<$crate::abi::root::RootRef>(
                        loader,
                        $crate::abi::root::abi_stable::library::CheckTypeLayout::Yes,
                    )
                }
            };
        };
    };
}

/// Creates the root module around a library's function. Runs no other code of the library.
#[doc(hidden)]
pub fn load(library: extern "C" fn() -> *const c_void) -> abi_stable::library::RootModuleResult {
    use abi_stable::prefix_type::{PrefixRefTrait, PrefixTypeTrait};
    let root = Root { library }.leak_into_prefix();
    // SAFETY: the cast forgets the fields' type; the header remembers it as `RootRef`.
    let erased = unsafe { root.to_prefix_ref().cast() };
    abi_stable::std_types::RResult::ROk(erased)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exported_name_is_that_of_abi_stable() {
        assert_eq!(HEADER_SYMBOL, "_1as_0lib_1header_0root_bmodule_bloader\0");
    }
}
