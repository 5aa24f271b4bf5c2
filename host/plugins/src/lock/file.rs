//! The file of a lock: TOML, read with limits and written whole.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use host_command::report::Report;
use serde::{Deserialize, Serialize};

use super::{Lock, Locked};
use crate::neighbors;
use crate::regular_file::{self, NotRead};

/// The version of the format.
const VERSION: u32 = 1;

/// The longest lock that is read, in bytes.
const LONGEST: u64 = 16 << 20;

const HEADER: &str = "# Which plugin libraries may be opened, by their content. Written by `host plugins lock`, `add`, `update` and `remove`;
# checked by `--locked`. Keep it beside the run file, under version control.
";

/// Why a lock was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// There is none.
    #[error("there is no lock `{path}`")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read the lock `{path}`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: NotRead,
    },
    /// It is not what a host writes.
    #[error("the lock `{path}` is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A newer host wrote it.
    #[error("the lock `{path}` has version {found}, this host knows version {VERSION}")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It cannot be written.
    #[error("cannot write the lock `{path}`")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Report for LockError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing { .. } => "write it with `host plugins lock`, or name another with `--lock FILE`",
            Self::Unreadable { .. } | Self::Unwritable { .. } => "check the path and its permissions",
            Self::Damaged { .. } => {
                "take it from version control again, or remove it and write it with `host plugins lock`"
            }
            Self::TooNew { .. } => "use the host that wrote it, or remove it and write it with `host plugins lock`",
        };
        Some(hint.to_owned())
    }
}

/// The document, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default, rename = "library", skip_serializing_if = "Vec::is_empty")]
    libraries: Vec<Locked>,
}

/// Only the version, since another one may have other fields.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Lock {
    /// Reads the lock at `path`.
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    pub fn read(path: &Path) -> Result<Self, LockError> {
        match regular_file::read(path, LONGEST) {
            Ok(bytes) => Self::parse(path, &bytes),
            Err(NotRead::System(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(LockError::Missing { path: path.to_owned() })
            }
            Err(source) => Err(LockError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// Reads the lock at `path`; one that is not there is empty.
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    pub fn read_or_empty(path: &Path) -> Result<Self, LockError> {
        match Self::read(path) {
            Err(LockError::Missing { .. }) => Ok(Self::default()),
            read => read,
        }
    }

    /// Reads the content of a lock, that of the file at `path`.
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, LockError> {
        let damaged = |detail: String| LockError::Damaged { path: path.to_owned(), detail };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not UTF-8".to_owned()))?;
        let words = |error: toml::de::Error| damaged(error.to_string().trim_end().replace('\n', "; "));
        let Versioned { version: found } = toml::from_str(text).map_err(words)?;
        if found > VERSION {
            return Err(LockError::TooNew { path: path.to_owned(), found });
        }
        let Document { libraries, .. } = toml::from_str(text).map_err(words)?;
        for library in &libraries {
            let is_file_name = |name: &str| neighbors::joined("", name).is_some_and(|name| !name.is_empty());
            if !is_file_name(&library.file) || library.file.contains('/') || library.file == ".." {
                return Err(damaged(format!("`{}` is not the name of a file", library.file)));
            }
            if let Some(wrong) = library.beside.iter().find(|beside| !is_file_name(&beside.file)) {
                return Err(damaged(format!("`{}` is not the relative path of a file", wrong.file)));
            }
        }
        let mut lock = Self { libraries };
        lock.sort();
        Ok(lock)
    }

    /// The text of its file.
    pub fn text(&self) -> String {
        let document = Document { version: VERSION, libraries: self.libraries.clone() };
        // Texts, numbers and lists of them, which TOML has.
        format!("{HEADER}\n{}", toml::to_string(&document).unwrap_or_default())
    }

    /// Writes it to `path`: whole or not at all.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        let unwritable = |source| LockError::Unwritable { path: path.to_owned(), source };
        let absolute = std::path::absolute(path).map_err(unwritable)?;
        replace(&absolute, self.text().as_bytes()).map_err(unwritable)
    }
}

/// Puts `bytes` in the place of the file at `path`, an absolute one, whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".host-");
    // Not a secret, as a temporary file is otherwise: what the umask leaves.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(folder);
    Ok(())
}

/// Has what was renamed in a folder survive a loss of power, where the system can.
pub(crate) fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = std::fs::File::open(folder) {
        // The change itself is made; only its order with a loss of power is left open.
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = folder;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checksum::Checksum;
    use crate::lock::{LockedKind, LockedPackage};
    use crate::neighbors::Neighbor;

    fn locked(file: &str, target: &str) -> Locked {
        Locked {
            file: file.to_owned(),
            target: target.to_owned(),
            size: 3,
            sha256: Checksum::of(b"abc"),
            abi: "1.0".to_owned(),
            build: String::new(),
            kinds: vec![LockedKind { kind: "mine".to_owned(), version: "0.1.0".to_owned() }],
            package: None,
            beside: Vec::new(),
        }
    }

    fn parse(text: &str) -> Result<Lock, LockError> {
        Lock::parse(Path::new("plugins.lock"), text.as_bytes())
    }

    #[test]
    fn a_lock_reads_as_a_table_for_each_library() {
        let mut lock = Lock::default();
        lock.put(locked("libb.so", "x86_64-linux"));
        let mut first = locked("liba.so", "x86_64-linux");
        first.package = Some(LockedPackage { name: "a".to_owned(), version: "1.0.0".to_owned(), signed_by: None });
        first.beside = vec![Neighbor { file: "lib/c.so".to_owned(), size: 3, sha256: Checksum::of(b"abc") }];
        lock.put(first);
        lock.put(locked("libb.so", "aarch64-linux"));
        lock.put(locked("libb.so", "x86_64-linux"));
        let text = lock.text();
        insta::assert_snapshot!(text.strip_prefix(HEADER).unwrap(), @r#"

        version = 1

        [[library]]
        file = "liba.so"
        target = "x86_64-linux"
        size = 3
        sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        abi = "1.0"
        kinds = ["mine 0.1.0"]

        [library.package]
        name = "a"
        version = "1.0.0"

        [[library.beside]]
        file = "lib/c.so"
        size = 3
        sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

        [[library]]
        file = "libb.so"
        target = "aarch64-linux"
        size = 3
        sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        abi = "1.0"
        kinds = ["mine 0.1.0"]

        [[library]]
        file = "libb.so"
        target = "x86_64-linux"
        size = 3
        sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        abi = "1.0"
        kinds = ["mine 0.1.0"]
        "#);
        assert_eq!(parse(&text).unwrap(), lock);
    }

    #[test]
    fn what_no_host_writes_is_refused() {
        assert!(matches!(parse("version = 2\nnew = true").unwrap_err(), LockError::TooNew { found: 2, .. }));
        let mut lock = Lock::default();
        for name in ["../libx.so", "/libx.so", "..", "", "."] {
            lock.libraries = vec![locked(name, "x86_64-linux")];
            assert!(matches!(parse(&lock.text()).unwrap_err(), LockError::Damaged { .. }), "`{name}` was taken");
        }
        lock.libraries = vec![locked("libx.so", "x86_64-linux")];
        lock.libraries[0].beside = vec![Neighbor { file: "/c.so".to_owned(), size: 3, sha256: Checksum::of(b"abc") }];
        assert!(matches!(parse(&lock.text()).unwrap_err(), LockError::Damaged { .. }));
    }

    #[test]
    fn it_is_written_whole_and_read_with_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plugins.lock");
        assert!(matches!(Lock::read(&path).unwrap_err(), LockError::Missing { .. }));
        let mut lock = Lock::read_or_empty(&path).unwrap();
        lock.put(locked("libx.so", "x86_64-linux"));
        lock.write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), lock);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(Lock::read(&path).unwrap_err(), LockError::Unreadable { .. }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Lock::parse(Path::new("plugins.lock"), &bytes);
        }

        #[test]
        fn a_changed_lock_is_read_or_refused(at in any::<proptest::sample::Index>(), byte: u8, length in any::<proptest::sample::Index>()) {
            let mut lock = Lock::default();
            lock.put(locked("liba.so", "x86_64-linux"));
            lock.put(locked("libb.so", "x86_64-linux"));
            let mut bytes = lock.text().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(length.index(bytes.len()) + 1);
            if let Ok(read) = Lock::parse(Path::new("plugins.lock"), &bytes) {
                // Whatever is read is written so that it is read again.
                prop_assert_eq!(parse(&read.text()).unwrap(), read);
            }
        }

        #[test]
        fn any_lock_is_read_back(files in proptest::collection::vec(("[a-z_.]{1,8}", "[a-z0-9-]{1,8}", ".{0,20}", 0_u64..1 << 40), 0..5)) {
            let mut lock = Lock::default();
            for (name, kind, text, size) in files {
                let mut library = locked(&format!("lib{name}.so"), &kind);
                library.size = size;
                library.kinds = vec![LockedKind { kind, version: format!("1{text}") }];
                library.build = text;
                lock.put(library);
            }
            prop_assert_eq!(parse(&lock.text()).unwrap(), lock);
        }
    }
}
