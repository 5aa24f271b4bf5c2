//! Opens one library: inspects the file, binds it, checks its table, reads its descriptors.

use std::ffi::c_void;
use std::io::Read;
use std::path::{Path, PathBuf};

use plugin_api::abi::kinds::Status;
use plugin_api::abi::{self, Bytes, LibraryTable, ReplyTable, TensorTable};
use plugin_api::protocol::Descriptor;

use super::checksum::Checksum;
use super::descriptor_cache::{Description, DescriptorCache};
use super::entry::Entry;
use super::error::LoadError;
use super::float_control::FloatControl;
use super::inspect::{begins_like_a_library, inspect};
use super::lock::Expected;
use super::neighbors::Neighbor;
#[cfg(unix)]
use super::private_copy::PrivateCopy;
use super::regular_file::{self, LARGEST, NotRead};

/// A loaded library; it stays loaded until the process ends.
pub struct Library {
    path: PathBuf,
    entry: Entry,
    table: LibraryTable,
    descriptors: Vec<Descriptor>,
}

impl Library {
    /// Opens the library at `path`, on any thread.
    ///
    /// # Errors
    ///
    /// See [`LoadError`]. Nothing of the library runs before its file was inspected.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::open_expecting(path, None)
    }

    /// Opens the library at `path` if it is what is `expected`: the bytes that are compared are the bytes that are loaded.
    ///
    /// # Errors
    ///
    /// See [`LoadError`].
    pub fn open_expecting(path: &Path, expected: Option<&Expected>) -> Result<Self, LoadError> {
        Self::open_bytes(path, &read(path)?, expected)
    }

    /// The same, and remembers what it says of itself.
    pub(super) fn open_cached(
        path: &Path,
        cache: &DescriptorCache,
        expected: Option<&Expected>,
    ) -> Result<Self, LoadError> {
        // Before the content, so that a file that changes meanwhile is not taken for the one that was read.
        let metadata = path.metadata();
        let bytes = read(path)?;
        let library = Self::open_bytes(path, &bytes, expected)?;
        if let Ok(metadata) = metadata {
            cache.keep(path, &metadata, &bytes, library.description());
        }
        Ok(library)
    }

    fn open_bytes(path: &Path, bytes: &[u8], expected: Option<&Expected>) -> Result<Self, LoadError> {
        let float = FloatControl::read();
        let opened = Self::open_as_it_is(path, bytes, expected);
        if FloatControl::read() != float {
            float.set();
            tracing::warn!(
                "`{}` changed how numbers are rounded while it was loaded, as what is linked with `-ffast-math` does: it is set \
                 back",
                path.display()
            );
        }
        opened
    }

    fn open_as_it_is(path: &Path, bytes: &[u8], expected: Option<&Expected>) -> Result<Self, LoadError> {
        let (entry, symbol) = match expected {
            Some(expected) => {
                let (found, expected_sum) = (Checksum::of(bytes), expected.sha256);
                if found != expected_sum {
                    return Err(LoadError::Unexpected { path: path.to_owned(), expected: expected_sum, found });
                }
                bind_expected(path, bytes, &expected.beside)?
            }
            None => {
                let known = inspect(path, bytes)?;
                bind_copy(path, bytes, known).map_or_else(|| bind(path, path, known), Ok)?
            }
        };
        // SAFETY: the entry's symbol, of a library that `bind` never closes.
        let table = unsafe { entry.open(path, symbol) }?;
        if table.unwinds == 0 {
            return Err(LoadError::Aborts { path: path.to_owned() });
        }
        let descriptors = (0..table.kinds).map(|index| describe(path, &table, index)).collect::<Result<Vec<_>, _>>()?;
        // SAFETY: static texts of the library.
        let (sdk, compiler, target) = unsafe { (table.sdk.read(), table.compiler.read(), table.target.read()) };
        tracing::debug!(path = %path.display(), %sdk, %compiler, %target, minor = table.minor, "plugin library loaded");
        Ok(Self { path: path.to_owned(), entry, table, descriptors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its kinds, in its own order.
    pub fn descriptors(&self) -> &[Descriptor] {
        &self.descriptors
    }

    /// By which entry it is used.
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// Its functions.
    pub(super) fn table(&self) -> &LibraryTable {
        &self.table
    }

    /// What it says of itself.
    pub(super) fn description(&self) -> Description {
        Description { descriptors: self.descriptors.clone(), build: self.build() }
    }

    /// What built it: SDK, compiler and target.
    pub fn build(&self) -> String {
        // SAFETY: static texts of the library.
        let (sdk, compiler, target) =
            unsafe { (self.table.sdk.read(), self.table.compiler.read(), self.table.target.read()) };
        format!("{sdk}, {compiler}, {target}")
    }
}

/// The content of a file that begins like a library; of no other is more read than its start.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    const START: u64 = 64;
    let read = || -> Result<Option<Vec<u8>>, NotRead> {
        let mut file = regular_file::open(path, LARGEST)?;
        let mut start = Vec::new();
        file.by_ref().take(START).read_to_end(&mut start)?;
        if !begins_like_a_library(&start) {
            return Ok(None);
        }
        regular_file::read_rest(start, file, LARGEST).map(Some)
    };
    match read() {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(LoadError::NotALibrary { path: path.to_owned() }),
        Err(NotRead::System(source)) => Err(LoadError::Unreadable { path: path.to_owned(), source }),
        Err(detail) => Err(LoadError::NoFile { path: path.to_owned(), detail }),
    }
}

/// Binds a private copy of a library whose content was checked, with the libraries beside it that it may use, checked too.
#[cfg(unix)]
fn bind_expected(path: &Path, bytes: &[u8], beside: &[Neighbor]) -> Result<(Entry, *const c_void), LoadError> {
    let known = inspect(path, bytes)?;
    let copy = PrivateCopy::with(path, bytes, beside)?;
    bind(path, copy.path(), known)
}

/// A library that is loaded cannot be overwritten, but in the moment before it can.
#[cfg(not(unix))]
fn bind_expected(path: &Path, bytes: &[u8], _: &[Neighbor]) -> Result<(Entry, *const c_void), LoadError> {
    bind(path, path, inspect(path, bytes)?)
}

/// Binds a private copy, so that nothing happens to the process when the file is overwritten; `None` where that is not
/// possible: the file itself is bound then, and what is wrong with it is told.
#[cfg(unix)]
fn bind_copy(path: &Path, bytes: &[u8], known: Option<Entry>) -> Option<(Entry, *const c_void)> {
    let told = |error: &dyn std::fmt::Display| {
        tracing::debug!(path = %path.display(), "the library itself is loaded, not a copy: {error}");
    };
    let copy = PrivateCopy::of(path, bytes).inspect_err(|error| told(error)).ok()?;
    bind(path, copy.path(), known).inspect_err(|error| told(error)).ok()
}

/// A library that is loaded cannot be overwritten.
#[cfg(not(unix))]
fn bind_copy(_: &Path, _: &[u8], _: Option<Entry>) -> Option<(Entry, *const c_void)> {
    None
}

/// Binds every symbol of the library at `path` now, from `file`, so that one that is missing is an error here instead of
/// the end of the process at its first call, and gives its entry with the address of that. An entry that is not `known`
/// is looked for.
fn bind(path: &Path, file: &Path, known: Option<Entry>) -> Result<(Entry, *const c_void), LoadError> {
    let failed =
        |error: &libloading::Error| LoadError::NotLoadable { path: path.to_owned(), detail: loader_words(path, error) };
    #[cfg(unix)]
    let library = {
        use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
        // SAFETY: the library's constructors run; that it is a plugin was inspected.
        unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| failed(&error))?
    };
    #[cfg(windows)]
    let library = {
        use libloading::os::windows::{LOAD_LIBRARY_SEARCH_DEFAULT_DIRS, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR, Library};
        let flags = LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_DEFAULT_DIRS;
        // SAFETY: as on Unix; what it needs is also searched in its own folder.
        unsafe { Library::load_with_flags(file, flags) }.map_err(|error| failed(&error))?
    };
    let address = |symbol: &str| {
        // SAFETY: nothing is done with the symbol; its address is all that is taken.
        let found = unsafe { library.get::<*const c_void>(symbol.as_bytes()) }.ok()?.into_raw();
        #[cfg(unix)]
        let found = found.cast_const();
        #[cfg(windows)]
        let found = found as *const c_void;
        Some(found)
    };
    let entry = match known {
        Some(entry) => entry,
        None => Entry::of(path, |symbol| address(symbol).is_some())?,
    };
    let symbol = address(entry.symbol()).ok_or_else(|| LoadError::NoPlugin { path: path.to_owned() })?;
    // Never closed: see the module's invariant.
    std::mem::forget(library);
    Ok((entry, symbol))
}

/// The system loader's own message, without the path that we say already.
fn loader_words(path: &Path, error: &libloading::Error) -> String {
    let words = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    words.replace(&format!("{}: ", path.display()), "").trim_end_matches('.').to_owned()
}

fn describe(path: &Path, table: &LibraryTable, index: u32) -> Result<Descriptor, LoadError> {
    let failed = |detail: String| LoadError::Descriptor { path: path.to_owned(), index, detail };
    let mut text = Vec::new();
    let reply = reply_into(&mut text);
    // SAFETY: the library's function, with an index below its count and a reply that outlives the call.
    let status = unsafe { (table.describe)(index, &raw const reply) };
    if status != Status::OK {
        return Err(failed(words_of(status, &text)));
    }
    let descriptor: Descriptor = serde_json::from_slice(&text).map_err(|error| {
        let what = if error.is_data() { "" } else { "its descriptor is not JSON: " };
        failed(format!("{what}{error}"))
    })?;
    if !is_name(&descriptor.kind) {
        return Err(failed(format!("`{}` is not a name: use `[a-z0-9-]+`", descriptor.kind)));
    }
    if descriptor.requires_minor > abi::MINOR {
        return Err(LoadError::TooNew {
            path: path.to_owned(),
            kind: descriptor.kind,
            major: abi::MAJOR,
            required: descriptor.requires_minor,
            available: abi::MINOR,
        });
    }
    Ok(descriptor)
}

/// What a library says of a failure, with what is not UTF-8 replaced.
pub(super) fn words_of(status: Status, words: &[u8]) -> String {
    if words.is_empty() {
        let meaning = match status {
            Status::STALE => ": a handle that was spent",
            Status::UNKNOWN => ": something that this host does not know",
            Status::NO_SUCH_NAME => ": no such name",
            Status::NOT_ALLOWED => ": not allowed here",
            Status::NO_VALUE => ": no value yet",
            _ => "",
        };
        return format!("it failed without a message, with status {}{meaning}", status.0);
    }
    String::from_utf8_lossy(words).into_owned()
}

/// Whether `name` may name a kind or an instance.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// A reply table that appends to `bytes`; tensors are not expected.
pub fn reply_into(bytes: &mut Vec<u8>) -> ReplyTable {
    unsafe extern "C" fn take(context: *mut c_void, bytes: Bytes) {
        // SAFETY: `context` is the vector below, which outlives the call; the bytes are borrowed until we return.
        unsafe { (*context.cast::<Vec<u8>>()).extend_from_slice(bytes.read()) };
    }
    unsafe extern "C" fn ignore(_: *mut c_void, _: *const TensorTable) {}
    ReplyTable {
        size: size_of::<ReplyTable>() as u32,
        reserved: 0,
        context: std::ptr::from_mut(bytes).cast(),
        bytes: take,
        tensor: ignore,
    }
}
