//! Packages: a library with what belongs to it, in one file `NAME-VERSION-TARGET.tar.zst`.
//!
//! The archive has plain files and no folders:
//!
//! * `package.json`, the [`Manifest`]: name, version, target, and what the library says of its kinds
//! * `SHA256SUMS`, the checksum of every other file, as `sha256sum --check` reads it
//! * the library
//! * texts for people: `README…`, `LICENSE…` and their like
//!
//! Two packages of the same files have the same bytes.
//!
//! Invariant: nothing here opens a library. What a package says of its library is believed until a host opens that, and is then
//! held to what the lock says.

mod error;
mod fetch;
mod folder;
mod index;
mod read;
mod signature;
#[cfg(test)]
mod tests;
mod write;

use serde::{Deserialize, Serialize};

use plugin_api::abi;
use plugin_api::protocol::Descriptor;
use semver::Version;

pub use error::PackageError;
pub use fetch::Source;
pub use folder::{Added, Change, Folder, How, Removed};
pub use index::{Index, Release, write_index};
pub use read::{Unpacked, read_manifest, unpack};
pub use signature::{Keys, Signed};
pub use write::{Text, Written, texts_in, write};

/// What a package's file is called at its end.
pub const EXTENSION: &str = ".tar.zst";

/// The version of the format.
const FORMAT: u32 = 1;

/// The most bytes of a package, packed and unpacked.
pub const LARGEST: u64 = 1 << 30;

/// The most files of a package.
const MOST_FILES: usize = 64;

/// The most bytes of `package.json` and of `SHA256SUMS`.
const LONGEST_MANIFEST: u64 = 8 << 20;

const MANIFEST: &str = "package.json";
const SUMS: &str = "SHA256SUMS";

/// The beginnings of the names of texts, in upper case.
const TEXTS: [&str; 7] = ["README", "LICENSE", "LICENCE", "COPYING", "NOTICE", "CHANGELOG", "AUTHORS"];

/// What a package says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// Its name: that of its one kind, or another.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// What the library is built for, as in `x86_64-linux`.
    pub target: String,
    /// The version of the plugin ABI that it needs, as in `1.0`.
    pub abi: String,
    /// What built it: SDK, compiler and target.
    #[serde(default)]
    pub build: String,
    /// The file of the library.
    pub library: String,
    /// Its kinds, in its own order, as it describes them.
    pub kinds: Vec<Descriptor>,
}

impl Manifest {
    /// The name of the package's file.
    pub fn file_name(&self) -> String {
        format!("{}-{}-{}{EXTENSION}", self.name, self.version, self.target)
    }

    /// Checks what does not depend on this host.
    ///
    /// # Errors
    ///
    /// What is wrong, in a sentence.
    fn check(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!("`{}` is not a name: use `[a-z0-9-]+`", self.name));
        }
        if self.name == "index" {
            return Err("`index` is the name of an index's own file".to_owned());
        }
        if !is_plain(&self.library) || is_text(&self.library) || [MANIFEST, SUMS].contains(&self.library.as_str()) {
            return Err(format!("`{}` is not the name of a library's file", self.library));
        }
        if !is_target(&self.target) {
            return Err(format!(
                "`{}` is not a target: it is a processor and a system, as in `x86_64-linux`",
                self.target
            ));
        }
        if abi_version(&self.abi).is_none() {
            return Err(format!("`{}` is not a version of the plugin ABI, as `1.0` is", self.abi));
        }
        if self.kinds.is_empty() {
            return Err("it has no kinds".to_owned());
        }
        for (index, kind) in self.kinds.iter().enumerate() {
            if !is_name(&kind.kind) {
                return Err(format!("`{}` is not a name of a kind: use `[a-z0-9-]+`", kind.kind));
            }
            if self.kinds[..index].iter().any(|other| other.kind == kind.kind) {
                return Err(format!("it has the kind `{}` twice", kind.kind));
            }
        }
        Ok(())
    }
}

/// Whether `name` may name a package or a kind.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= 64 && !name.starts_with('-') && name.bytes().all(allowed)
}

fn is_target(target: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    target.split_once('-').is_some_and(|(processor, system)| {
        [processor, system].iter().all(|part| !part.is_empty() && part.bytes().all(allowed))
    })
}

/// Whether `name` is the name of a file on every system, and short enough for an archive.
fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.bytes().all(allowed)
}

/// Whether a file is a text for people.
fn is_text(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    TEXTS.iter().any(|text| name.starts_with(text))
}

fn abi_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether this host can open what needs this version of the plugin ABI.
fn fits_this_host(abi: &str) -> bool {
    abi_version(abi).is_some_and(|(major, minor)| major == abi::MAJOR && (0..=abi::MINOR).contains(&minor))
}
