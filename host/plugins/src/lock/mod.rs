//! `plugins.lock`: which libraries a run may open, by their content.
//!
//! A lock has entries for several targets; who locks on one keeps those of the others.

mod admission;
mod file;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use admission::{Admission, Refusal, lock_entry};
pub(crate) use admission::{abi_of, kinds_of, same_kinds};
pub use file::LockError;
pub(crate) use file::{replace, sync_folder};

use super::checksum::Checksum;
use super::neighbors::Neighbor;

/// The name of the file.
pub const FILE_NAME: &str = "plugins.lock";

/// The content of a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// Its libraries, by file and target.
    libraries: Vec<Locked>,
}

/// A library of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The name of its file, without the folder.
    pub file: String,
    /// What it is built for, processor and system, as in `x86_64-linux`.
    pub target: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Checksum,
    /// The version of the plugin ABI that it needs, as in `1.0`.
    pub abi: String,
    /// What built it, for people: SDK, compiler and target.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub build: String,
    /// Its kinds with their versions, in its own order.
    pub kinds: Vec<LockedKind>,
    /// The package that it came with, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<LockedPackage>,
    /// The libraries beside it that it needs; of a file of Python, the modules beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Neighbor>,
}

/// A kind of a lock; its text is `NAME VERSION`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LockedKind {
    /// Its name.
    pub kind: String,
    /// Its version.
    pub version: String,
}

/// The package that a library came with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The key that it was signed with, by the name of its file without `.pub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
}

/// What a library must be when it is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The SHA-256 of its file.
    pub sha256: Checksum,
    /// The libraries or modules beside it that it may use; no others are.
    #[serde(default)]
    pub beside: Vec<Neighbor>,
}

impl Lock {
    /// Its libraries, by file and target.
    pub fn libraries(&self) -> &[Locked] {
        &self.libraries
    }

    /// The libraries for `target`.
    pub fn of_target(&self, target: &str) -> impl Iterator<Item = &Locked> {
        self.libraries.iter().filter(move |library| library.target == target)
    }

    /// Puts a library in the place of one with the same file and target.
    pub fn put(&mut self, library: Locked) {
        self.remove(&library.file, &library.target);
        self.add(library);
    }

    /// Adds a library beside one with the same file and target, so that both may be opened: as long as one takes the
    /// other's place.
    pub fn add(&mut self, library: Locked) {
        self.libraries.push(library);
        self.sort();
    }

    /// Takes out the libraries with this file and target.
    pub fn remove(&mut self, file: &str, target: &str) {
        self.libraries.retain(|library| library.file != file || library.target != target);
    }

    /// Keeps the libraries that `keep` says.
    pub fn retain(&mut self, keep: impl FnMut(&Locked) -> bool) {
        self.libraries.retain(keep);
    }

    fn sort(&mut self) {
        self.libraries.sort_by(|one, other| {
            (&one.file, &one.target, one.sha256).cmp(&(&other.file, &other.target, other.sha256))
        });
    }
}

impl Locked {
    /// What its file must be when it is opened.
    pub fn expected(&self) -> Expected {
        Expected { sha256: self.sha256, beside: self.beside.clone() }
    }
}

/// The lock of a command: the one that was named, or that beside the run file, or that of the working folder.
pub fn path(named: Option<&Path>, run_file_folder: Option<&Path>) -> PathBuf {
    named.map_or_else(|| run_file_folder.unwrap_or(Path::new("")).join(FILE_NAME), Path::to_owned)
}

/// A kind without a name.
#[derive(Debug, thiserror::Error)]
#[error("a kind is written `NAME VERSION`")]
pub struct NoKind;

impl TryFrom<String> for LockedKind {
    type Error = NoKind;

    fn try_from(text: String) -> Result<Self, NoKind> {
        let (kind, version) = text.split_once(' ').unwrap_or((&text, ""));
        if kind.is_empty() {
            return Err(NoKind);
        }
        Ok(Self { kind: kind.to_owned(), version: version.to_owned() })
    }
}

impl fmt::Display for LockedKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.kind)?;
        if self.version.is_empty() { Ok(()) } else { write!(formatter, " {}", self.version) }
    }
}

impl From<LockedKind> for String {
    fn from(kind: LockedKind) -> String {
        kind.to_string()
    }
}
