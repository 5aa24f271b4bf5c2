//! Why a package was not made, read, added or removed.

use std::io;
use std::path::PathBuf;

use host_command::report::Report;
use semver::Version;

use super::LARGEST;
use crate::error::LoadError;
use crate::lock::LockError;
use crate::trust::Exposed;

/// Why something was not done with a package. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// A file or a folder cannot be read.
    #[error("cannot read `{path}`")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or a folder cannot be written.
    #[error("cannot write `{path}`")]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive cannot be read, or is none.
    #[error("`{package}` is not a package: {detail}")]
    NotAPackage {
        /// What was given.
        package: String,
        /// What is wrong.
        detail: String,
    },
    /// The archive holds something that a package does not.
    #[error("`{package}` is refused: {detail}")]
    Forbidden {
        /// What was given.
        package: String,
        /// What it holds.
        detail: String,
    },
    /// More than a package may have.
    #[error("`{package}` is refused: it has more than {most} bytes", most = LARGEST)]
    TooLarge {
        /// What was given.
        package: String,
    },
    /// A file is not what `SHA256SUMS`, or the index, says.
    #[error("`{package}` is damaged: the SHA-256 of {what} is another one")]
    Checksum {
        /// What was given.
        package: String,
        /// Which file.
        what: String,
    },
    /// Built for another system.
    #[error("`{package}` is built for {found}, this host for {expected}")]
    Target {
        /// What was given.
        package: String,
        /// This host's.
        expected: String,
        /// The package's.
        found: String,
    },
    /// It needs another host.
    #[error("`{package}` needs plugin ABI {found}, this host has {expected}")]
    Abi {
        /// What was given.
        package: String,
        /// This host's.
        expected: String,
        /// What it needs.
        found: String,
    },
    /// The library in it is none that a host opens.
    #[error("the library of `{package}` cannot be used: {detail}")]
    Library {
        /// What was given.
        package: String,
        /// Why.
        detail: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The version of a library cannot be compared.
    #[error("`{version}` is not a version that can be compared")]
    Version {
        /// What it says.
        version: String,
    },
    /// The library needs others beside itself.
    #[error("`{library}` needs libraries beside itself: {beside}")]
    Beside {
        /// The library.
        library: PathBuf,
        /// Which.
        beside: String,
    },
    /// An older version than the one that is there.
    #[error("`{name}` {found} is older than {installed}, which is there")]
    Older {
        /// The package.
        name: String,
        /// Its version.
        found: Version,
        /// The version that is there.
        installed: Version,
    },
    /// A file is in the way.
    #[error("`{path}` is there already, and not from a package `{name}`")]
    InTheWay {
        /// The file.
        path: PathBuf,
        /// The package.
        name: String,
    },
    /// Another library offers a kind of it.
    #[error("`{file}` offers the kind `{kind}` already")]
    KindTaken {
        /// The library.
        file: String,
        /// The kind.
        kind: String,
    },
    /// A version has another file than the one before.
    #[error("`{name}` {version} has the library `{found}`, the version that is there has `{installed}`")]
    Renamed {
        /// The package.
        name: String,
        /// Its version.
        version: Version,
        /// Its library.
        found: String,
        /// The library that is there.
        installed: String,
    },
    /// No package of that name is there.
    #[error("no package `{name}` is in `{folder}`")]
    NotThere {
        /// What was given.
        name: String,
        /// The folder.
        folder: PathBuf,
        /// What to do.
        hint: String,
    },
    /// Another command works on the folder.
    #[error("another command changes `{folder}`")]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// An address that is not contacted.
    #[error("`{address}` is not contacted: {reason}")]
    Address {
        /// The address.
        address: String,
        /// Why not.
        reason: &'static str,
    },
    /// A server does not give what is asked for.
    #[error("cannot get `{address}`: {detail}")]
    Network {
        /// The address.
        address: String,
        /// Why.
        detail: String,
    },
    /// A name was given, and no index.
    #[error("`{name}` is the name of a package, and no index is named")]
    NoIndex {
        /// The name.
        name: String,
    },
    /// The index does not have it.
    #[error("the index `{index}` has no {what}")]
    NotInIndex {
        /// The index.
        index: String,
        /// What was looked for.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The index is not understood.
    #[error("the index `{index}` is damaged: {detail}")]
    Index {
        /// The index.
        index: String,
        /// What is wrong.
        detail: String,
    },
    /// The package and the index do not agree.
    #[error("`{package}` is another package than the index says: {detail}")]
    OtherThanIndexed {
        /// What was given.
        package: String,
        /// How it differs.
        detail: String,
    },
    /// There is no signature, and one is required.
    #[error("`{package}` is not signed: there is no `{signature}`")]
    Unsigned {
        /// What was given.
        package: String,
        /// Where it would be.
        signature: String,
    },
    /// Signed with a key that is not known, and a known one is required.
    #[error("`{package}` is signed with a key that is not in `{keys}`")]
    UnknownKey {
        /// What was given.
        package: String,
        /// The folder of keys.
        keys: PathBuf,
    },
    /// The signature is of the kind that minisign made before 0.10.
    #[error("the signature of `{package}` is of the kind that minisign made before 0.10")]
    OldSignature {
        /// What was given.
        package: String,
    },
    /// The signature is not that of the package.
    #[error("the signature of `{package}` is wrong: {detail}")]
    BadSignature {
        /// What was given.
        package: String,
        /// How.
        detail: String,
    },
    /// A key cannot be used.
    #[error("the key `{path}` is not a public key of minisign")]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else can change what is relied on.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// The lock cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl PackageError {
    pub(super) fn library(package: &str, error: &LoadError) -> Self {
        Self::Library { package: package.to_owned(), detail: error.to_string(), hint: error.hint() }
    }
}

impl Report for PackageError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unreadable { .. } | Self::Unwritable { .. } => "check the path and its permissions",
            Self::NotAPackage { .. } => "give a file that `host plugins package` wrote",
            Self::Forbidden { .. } | Self::TooLarge { .. } => {
                "`host plugins package` does not write such a package: ask whoever it comes from"
            }
            Self::Checksum { .. } => "get it again; if it stays so, ask whoever it comes from",
            Self::Target { .. } => "take the package for this host's target",
            Self::Abi { .. } => "use a newer host, or an older version of the package",
            Self::Library { hint, .. } => return hint.clone(),
            Self::Version { .. } => "give the library a version as in `1.2.0`: see https://semver.org",
            Self::Beside { .. } => "link them statically, or give users the folder instead of a package",
            Self::Older { .. } => "if that is meant, add `--downgrade`",
            Self::InTheWay { .. } => "move it out of the folder first",
            Self::KindTaken { .. } => {
                "remove that library first: `host plugins remove KIND`, or take the file out of the folder and lock again"
            }
            Self::Renamed { name, .. } => {
                return Some(format!("remove the old one first: `host plugins remove {name}`"));
            }
            Self::NotThere { hint, .. } | Self::NotInIndex { hint, .. } => return Some(hint.clone()),
            Self::Busy { .. } => "wait until it is done",
            Self::Address { .. } => {
                "use `https://`; `http://` is for servers on this machine, such as `http://localhost:8000`"
            }
            Self::Network { .. } => "check the address and the connection",
            Self::NoIndex { .. } => {
                "name the index with `--index FOLDER|URL`, or with the variable `HOST_INDEX`; for a file give its path, as in `./NAME`"
            }
            Self::Index { .. } => "write it anew with `host plugins index FOLDER`",
            Self::OtherThanIndexed { .. } => "tell whoever keeps the index",
            Self::Unsigned { .. } => "ask its author for a signature: `minisign -Sm PACKAGE`",
            Self::UnknownKey { .. } => {
                "get the author's public key in a way that you trust, and put it there as `NAME.pub`"
            }
            Self::OldSignature { .. } => "ask its author to sign it with minisign 0.10 or newer",
            Self::BadSignature { .. } => "do not use it: it is not what the key's owner signed",
            Self::Key { .. } => "put the file there that `minisign -G` wrote, or take it out of the folder",
            Self::Exposed(error) => return error.hint(),
            Self::Lock(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}
