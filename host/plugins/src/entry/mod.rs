//! The two entries of a library: the header of one in Rust, and the function of one in C or C++. Both give a table of
//! functions, and whatever comes after knows that table only.

mod c;
mod rust;
mod table;

use std::ffi::c_void;
use std::path::Path;

use plugin_api::abi::LibraryTable;
use plugin_api::abi::root::HEADER_SYMBOL;
use plugin_api::abi::{C_HEADER_NAME, ENTRY_SYMBOL};

use super::error::LoadError;

/// By which entry a library is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The header that `plugin-api` exports, checked by `abi_stable`.
    Rust,
    /// The function of `host_plugin.h`.
    C,
}

impl Entry {
    const ALL: [Self; 2] = [Self::Rust, Self::C];

    /// The symbol, with a trailing NUL.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Rust => HEADER_SYMBOL,
            Self::C => ENTRY_SYMBOL,
        }
    }

    /// What authors write it with.
    fn sdk(self) -> &'static str {
        match self {
            Self::Rust => "plugin-api",
            Self::C => C_HEADER_NAME,
        }
    }

    /// The one entry of a library in which `exports` finds symbols, given without their NUL.
    ///
    /// # Errors
    ///
    /// A library with none or with both.
    pub(super) fn of(path: &Path, exports: impl Fn(&str) -> bool) -> Result<Self, LoadError> {
        let found = Self::ALL.map(|entry| exports(entry.symbol().trim_end_matches('\0')));
        match found {
            [true, false] => Ok(Self::Rust),
            [false, true] => Ok(Self::C),
            [false, false] => Err(LoadError::NoPlugin { path: path.to_owned() }),
            [true, true] => Err(LoadError::TwoEntries { path: path.to_owned() }),
        }
    }

    /// Gives the library's table, checked.
    ///
    /// # Safety
    ///
    /// `symbol` must be the address of this entry's symbol in the library at `path`, which is never closed.
    pub(super) unsafe fn open(self, path: &Path, symbol: *const c_void) -> Result<LibraryTable, LoadError> {
        let table = match self {
            // SAFETY: the caller's promise.
            Self::Rust => unsafe { rust::open(path, symbol) }?,
            // SAFETY: the caller's promise.
            Self::C => unsafe { c::open(symbol) },
        };
        // SAFETY: both entries give null or a static table that begins as every version of it does.
        unsafe { table::checked(self, path, table) }
    }
}
