//! Why a library was not loaded: each a sentence with path and cause, and what to do.

use std::path::PathBuf;

use host_command::report::Report;

use super::checksum::Checksum;
use super::lock::{LockError, Refusal};
use super::regular_file::NotRead;
use super::search::VARIABLE;

/// Why one file was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the plugin library `{path}`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no file that can be a library: a pipe, a device, or longer than any library.
    #[error("`{path}` is passed over: {detail}")]
    NoFile {
        /// What was named.
        path: PathBuf,
        /// What it is.
        detail: NotRead,
    },
    /// It is not the file that is expected.
    #[error("`{path}` is not the file that is expected: its SHA-256 is {found}, not {expected}")]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// The SHA-256 that it must have.
        expected: Checksum,
        /// The one that it has.
        found: Checksum,
    },
    /// The file that was checked cannot be kept from changes.
    #[error("cannot make a private copy of `{path}`")]
    NoCopy {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something else of itself than when it was listed.
    #[error("the plugin library `{path}` offers other kinds than when it was listed")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a shared library of any system.
    #[error("`{path}` is not a shared library")]
    NotALibrary {
        /// The file.
        path: PathBuf,
    },
    /// The file ends before its own headers say.
    #[error("`{path}` is truncated: it has {found} bytes, its headers promise {expected}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that the headers promise.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The file begins like a shared library and cannot be read as one.
    #[error("`{path}` is a damaged shared library: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Built for another processor or system.
    #[error("`{path}` is built for {found}, this host for {expected}")]
    WrongArchitecture {
        /// The file.
        path: PathBuf,
        /// This host's.
        expected: String,
        /// The library's.
        found: String,
    },
    /// A shared library without an entry for the host.
    #[error("`{path}` is a shared library, but no plugin: it exports neither a plugin header nor `host_plugin_entry`")]
    NoPlugin {
        /// The file.
        path: PathBuf,
    },
    /// A library with the entries of both languages.
    #[error("`{path}` exports a plugin header and `host_plugin_entry`: which of them counts is not clear")]
    TwoEntries {
        /// The file.
        path: PathBuf,
    },
    /// The table behind an entry cannot be used.
    #[error("the table of functions that `{path}` gives cannot be used: {detail}")]
    Table {
        /// The file.
        path: PathBuf,
        /// What its entry is made with.
        sdk: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The system's loader refused it: a symbol or a library that it needs is missing.
    #[error("the system cannot load `{path}`: {detail}")]
    NotLoadable {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        detail: String,
    },
    /// Another major version of the ABI.
    #[error("`{path}` is built for plugin ABI {found}, this host has {expected}")]
    Version {
        /// The file.
        path: PathBuf,
        /// This host's.
        expected: String,
        /// The library's.
        found: String,
    },
    /// The root modules differ, or the library gives no layout to compare.
    #[error("the binary layout of `{path}` does not match this host's plugin ABI {expected}: {detail}")]
    Layout {
        /// The file.
        path: PathBuf,
        /// This host's ABI.
        expected: String,
        /// In a few words; the tree of types goes to the debug log.
        detail: String,
    },
    /// Its root module loader failed.
    #[error("the module loader of `{path}` failed: {message}")]
    Loader {
        /// The file.
        path: PathBuf,
        /// Its words.
        message: String,
    },
    /// A kind needs a newer host.
    #[error("`{kind}` in `{path}` needs plugin ABI {major}.{required}, this host has {major}.{available}")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The kind.
        kind: String,
        /// The ABI's major version.
        major: u32,
        /// What the kind needs.
        required: u32,
        /// What the host has.
        available: u32,
    },
    /// A panic in it would end the process.
    #[error("`{path}` is built with `panic = \"abort\"`: a panic in it would end the run")]
    Aborts {
        /// The file.
        path: PathBuf,
    },
    /// Its own process could not open it; the message has the path.
    #[error("{message}")]
    Refused {
        /// Why, in a sentence.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The process that was to open it failed.
    #[error("the process of `{path}` failed: {detail}")]
    Process {
        /// The file.
        path: PathBuf,
        /// How.
        detail: String,
    },
    /// The program that holds plugins is not there.
    #[error("`{path}` cannot run in a process of its own: the program `host-plugin` is not beside `{program}`")]
    NoProgram {
        /// The file.
        path: PathBuf,
        /// This program.
        program: PathBuf,
    },
    /// Plugins run in processes of their own on Linux only.
    #[error("`{path}` cannot run in a process of its own: that needs Linux")]
    NoIsolation {
        /// The file.
        path: PathBuf,
    },
    /// There is no Python for a plugin in Python.
    #[error("`{program}` cannot be started for the plugin `{path}`")]
    NoPython {
        /// The file, or the class with its package.
        path: PathBuf,
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The package for plugins in Python cannot be written.
    #[error("the package for plugins in Python cannot be written to the folder for temporary files")]
    NoPackage {
        /// Why.
        source: std::io::Error,
    },
    /// A source file of Python that does not say its kinds.
    #[error("`{path}` has no line `# host-plugin: KIND`")]
    NoMark {
        /// The file.
        path: PathBuf,
    },
    /// A source file of Python that says other kinds than it has.
    #[error("`{path}` says `# host-plugin: {marked}`, and has {has}")]
    OtherMark {
        /// The file.
        path: PathBuf,
        /// The kind that it says.
        marked: String,
        /// Those that it has.
        has: String,
    },
    /// A plugin in Python where only what a lock lists may be opened.
    #[error("`{path}` is of the kind `python`, which runs what no lock lists")]
    NotLocked {
        /// The file or the class.
        path: PathBuf,
    },
    /// A plugin in Python where a library is wanted.
    #[error("`{path}` is a plugin in Python, which runs in a process of its own")]
    NotInProcess {
        /// The file.
        path: PathBuf,
    },
    /// A lock says something else of it.
    #[error(transparent)]
    NotAsLocked(#[from] Refusal),
    /// A descriptor that is not understood.
    #[error("kind {index} of `{path}` does not describe itself: {detail}")]
    Descriptor {
        /// The file.
        path: PathBuf,
        /// Which kind, from 0.
        index: u32,
        /// What is wrong.
        detail: String,
    },
}

impl Report for LoadError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unreadable { .. } => "check the path and its permissions",
            Self::NoFile { .. } => "take it out of the folder, or leave it: nothing of it is read",
            Self::Unexpected { .. } => "it changed since it was checked: start again",
            Self::NoCopy { .. } => "set `TMPDIR` to a folder whose files may be executed",
            Self::Changed { .. } => "start again: what it offers has been read anew",
            Self::NotALibrary { .. } => {
                "build the plugin with `crate-type = [\"cdylib\"]` and copy the library that cargo names; in C build it with `cc -shared`"
            }
            Self::Truncated { .. } | Self::Damaged { .. } => "copy the file again, or build it anew",
            Self::WrongArchitecture { .. } => {
                "build the plugin for this host's target: `cargo build --release --target …`, or with a compiler for it"
            }
            Self::NoPlugin { .. } => {
                "export its kinds: `#[plugin] const KINDS: &[Kind] = &[…];`, in C `HP_LIBRARY(…)`; a library that plugins need belongs beside the folder, not in it"
            }
            Self::TwoEntries { .. } => "export one of them: a plugin is in Rust or in C",
            Self::Table { sdk, .. } => {
                return Some(format!("build the plugin with an unmodified `{sdk}`, which fills the table in"));
            }
            Self::NotLoadable { .. } => "install what it needs, or build it against this system",
            Self::Version { .. } => {
                "build the plugin with a `plugin-api` or a `host_plugin.h` of this host's major version"
            }
            Self::Layout { .. } => {
                "build the plugin with an unmodified `plugin-api`; `-v` writes the difference to the log"
            }
            Self::Refused { hint, .. } => return hint.clone(),
            Self::NotAsLocked(refusal) => return refusal.hint(),
            Self::Process { .. } => {
                "the log has what the plugin printed; if it is not what you expected, tell its author"
            }
            Self::NoProgram { .. } => {
                "the programs `host`, `host-engine` and `host-plugin` belong together: install all of them in one folder"
            }
            Self::NoIsolation { .. } => "set `isolation = \"none\"` for plugins that you trust",
            Self::NoPython { .. } => "install Python 3.9 or newer, or name one with `[run] python`",
            Self::NoPackage { .. } => "make room on the disk, or name another folder with the variable `TMPDIR`",
            Self::NoMark { .. } => {
                "add the line, without indentation, with the kind of its class; or run a class of it by the kind `python`"
            }
            Self::OtherMark { .. } => "write the kind of its class there: that is `kind`, or the class's name with `-`",
            Self::NotLocked { .. } => {
                "give its file the line `# host-plugin: KIND` and put it into a folder of plugins, which `host plugins lock` then lists"
            }
            Self::NotInProcess { .. } => "set `isolation = \"process\"`",
            Self::Loader { .. } => "this is a fault of the plugin: tell its author",
            Self::TooNew { .. } => "use a newer host, or an older version of the plugin",
            Self::Aborts { .. } => "build it with `panic = \"unwind\"`, which is cargo's default",
            Self::Descriptor { .. } => "this is a fault of the plugin: tell its author",
        };
        Some(text.to_owned())
    }
}

/// Why the folders as a whole cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// No folder was named, and none was found.
    #[error("no plugins were named, and none were found")]
    NotFound {
        /// The folders that were searched.
        searched: Vec<String>,
    },
    /// A folder or file that `--plugins` names is not there.
    #[error("the plugins folder `{path}` does not exist")]
    Missing {
        /// What was named.
        path: PathBuf,
    },
    /// A folder without a library.
    #[error("the plugins folder `{path}` holds no `*.{extension}` file")]
    Empty {
        /// The folder.
        path: PathBuf,
        /// This system's extension.
        extension: &'static str,
    },
    /// A folder cannot be listed.
    #[error("cannot list the plugins folder `{path}`")]
    Unlistable {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Two libraries offer one kind.
    #[error("two libraries offer the kind `{kind}`: `{first}` and `{second}`")]
    Ambiguous {
        /// The kind.
        kind: String,
        /// Found first.
        first: PathBuf,
        /// Found later.
        second: PathBuf,
    },
    /// The lock refuses files.
    #[error("the lock `{lock}` does not fit the plugins: {}", sentences(.refusals))]
    Refused {
        /// The lock.
        lock: PathBuf,
        /// What is refused, and why; not empty.
        refusals: Vec<Refusal>,
    },
    /// The lock cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file that was named itself cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl Report for CatalogueError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { searched } => Some(format!(
                "give the folder that holds the plugin libraries: `--plugins DIR`, or set `{VARIABLE}`; searched: {}",
                searched.join(", ")
            )),
            Self::Missing { .. } => Some("give the folder that holds the plugin libraries: `--plugins DIR`".to_owned()),
            Self::Empty { .. } => Some("copy plugin libraries into it; folders within it are not searched".to_owned()),
            Self::Unlistable { .. } => Some("check the path and its permissions".to_owned()),
            Self::Ambiguous { .. } => Some("take one of them out of the folder".to_owned()),
            Self::Refused { refusals, .. } => {
                let mut hints: Vec<String> = Vec::new();
                for hint in refusals.iter().filter_map(Report::hint) {
                    if !hints.contains(&hint) {
                        hints.push(hint);
                    }
                }
                Some(hints.join("; "))
            }
            Self::Lock(error) => error.hint(),
            Self::Load(error) => error.hint(),
        }
    }
}

fn sentences(refusals: &[Refusal]) -> String {
    refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ")
}
