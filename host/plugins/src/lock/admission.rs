//! Which files of the folders a lock lets be opened.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use host_command::report::{Report, did_you_mean};
use plugin_api::protocol::Descriptor;

use super::{Expected, Lock, Locked, LockedKind};
use crate::checksum::Checksum;
use crate::inspect::this_target;
use crate::neighbors;
use crate::python;
use crate::regular_file::{self, LARGEST, NotRead};
use crate::trust::{self, Exposed};

/// Why a file is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The lock does not have it.
    #[error("`{path}` is not listed")]
    NotListed {
        /// The file.
        path: PathBuf,
        /// The files that are listed for this target.
        listed: Vec<String>,
        /// The targets for which a file of this name is listed.
        targets: Vec<String>,
    },
    /// Its content is another one.
    #[error("`{path}` has another content than when it was locked: {detail}")]
    Differs {
        /// The file.
        path: PathBuf,
        /// How it differs.
        detail: String,
    },
    /// It offers something else than the lock says.
    #[error("`{path}` offers {found}, and the lock says {locked}")]
    OtherKinds {
        /// The file.
        path: PathBuf,
        /// The kinds of the library, with versions.
        found: String,
        /// Those of the lock.
        locked: String,
    },
    /// Somebody else can change it.
    #[error(transparent)]
    Exposed(#[from] Exposed),
}

impl Report for Refusal {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotListed { targets, .. } if !targets.is_empty() => Some(format!(
                "the lock has it for {}: run `host plugins lock` here, too, if you trust the file",
                targets.join(", ")
            )),
            Self::NotListed { path, listed, .. } => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let meant = did_you_mean(&name, listed.iter().map(String::as_str));
                let meant = meant.map(|meant| format!("{meant} Otherwise ")).unwrap_or_default();
                Some(format!("{meant}take it out of the folder, or run `host plugins lock` if you trust it"))
            }
            Self::Differs { .. } | Self::OtherKinds { .. } => {
                Some("put the file back that was locked, or run `host plugins lock` if you trust this one".to_owned())
            }
            Self::Exposed(exposed) => exposed.hint(),
        }
    }
}

/// The files that a lock lets be opened.
#[derive(Debug, Default)]
pub struct Admission {
    admitted: BTreeMap<PathBuf, Locked>,
}

impl Admission {
    /// Holds every one of `files` to the lock, and looks who else can change them. Libraries that others need beside
    /// themselves are no plugins of their own, and what is no regular file is never opened: neither is refused, nor in the
    /// result.
    ///
    /// # Errors
    ///
    /// Everything that is refused.
    pub fn check(lock: &Lock, lock_file: &Path, files: &[PathBuf]) -> Result<Self, Vec<Refusal>> {
        let target = this_target();
        let mut refusals: Vec<Refusal> = Vec::new();
        let mut admitted = BTreeMap::new();
        for path in files {
            match check(lock, &target, path) {
                Ok(Some(locked)) => drop(admitted.insert(path.clone(), locked.clone())),
                Ok(None) => {}
                Err(refusal) => refusals.push(refusal),
            }
        }
        let ways = std::iter::once(lock_file).chain(admitted.keys().map(PathBuf::as_path));
        refusals.extend(trust::exposed(ways).into_iter().map(Refusal::from));
        if refusals.is_empty() { Ok(Self { admitted }) } else { Err(refusals) }
    }

    /// What the file must be when it is opened; `None` if it may not be opened.
    pub fn expected(&self, path: &Path) -> Option<Expected> {
        self.admitted.get(path).map(Locked::expected)
    }

    /// The kinds that the lock says of a file.
    pub(crate) fn kinds(&self, path: &Path) -> Vec<LockedKind> {
        self.admitted.get(path).map(|locked| locked.kinds.clone()).unwrap_or_default()
    }

    /// Holds what a library says of itself to what the lock says.
    ///
    /// # Errors
    ///
    /// When it offers something else.
    pub fn check_kinds(&self, path: &Path, descriptors: &[Descriptor]) -> Result<(), Refusal> {
        self.admitted.get(path).map_or(Ok(()), |locked| same_kinds(path, &locked.kinds, descriptors))
    }
}

/// Holds what the plugin at `path` says of itself to the kinds of a lock.
///
/// # Errors
///
/// When it offers something else.
pub(crate) fn same_kinds(path: &Path, locked: &[LockedKind], descriptors: &[Descriptor]) -> Result<(), Refusal> {
    let found = kinds_of(descriptors);
    if found == locked {
        return Ok(());
    }
    let told = |kinds: &[LockedKind]| kinds.iter().map(LockedKind::to_string).collect::<Vec<_>>().join(", ");
    Err(Refusal::OtherKinds { path: path.to_owned(), found: told(&found), locked: told(locked) })
}

fn check<'a>(lock: &'a Lock, target: &str, path: &Path) -> Result<Option<&'a Locked>, Refusal> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let differs = |detail: String| Refusal::Differs { path: path.to_owned(), detail };
    let listed: Vec<&Locked> = lock.of_target(target).filter(|locked| locked.file == name).collect();
    let Some(first) = listed.first() else {
        let is_neighbor = |locked: &Locked| locked.beside.iter().any(|beside| beside.file == name);
        return match regular_file::open(path, LARGEST) {
            Err(NotRead::Special(_) | NotRead::TooLong { .. }) => Ok(None),
            _ if lock.of_target(target).any(is_neighbor) => Ok(None),
            _ => Err(Refusal::NotListed {
                path: path.to_owned(),
                listed: lock.of_target(target).map(|locked| locked.file.clone()).collect(),
                targets: of_other_targets(lock, &name),
            }),
        };
    };
    let mut file = regular_file::open(path, LARGEST).map_err(|error| differs(error.to_string()))?;
    // One that grows meanwhile is another one, and is not read for ever.
    let (sha256, size) =
        Checksum::of_reader(&mut (&mut file).take(LARGEST + 1)).map_err(|error| differs(error.to_string()))?;
    let Some(locked) = listed.iter().find(|locked| locked.sha256 == sha256) else {
        return Err(differs(if first.size == size {
            "its SHA-256 is another one".to_owned()
        } else {
            format!("it has {size} bytes, and had {} bytes", first.size)
        }));
    };
    for beside in &locked.beside {
        let path = path.parent().unwrap_or(Path::new("")).join(&beside.file);
        let sum = regular_file::open(&path, LARGEST)
            .and_then(|file| Checksum::of_reader(&mut file.take(LARGEST + 1)).map_err(NotRead::from))
            .map_err(|error| Refusal::Differs { path: path.clone(), detail: error.to_string() })?;
        if sum.0 != beside.sha256 {
            return Err(Refusal::Differs { path, detail: "its SHA-256 is another one".to_owned() });
        }
    }
    Ok(Some(locked))
}

/// The targets for which a lock has a file of this name.
fn of_other_targets(lock: &Lock, name: &str) -> Vec<String> {
    lock.libraries().iter().filter(|locked| locked.file == name).map(|locked| locked.target.clone()).collect()
}

/// What a lock says of the library at `path`, which offers `descriptors`.
///
/// # Errors
///
/// When it, or a library beside it that it needs, cannot be read.
pub fn lock_entry(path: &Path, descriptors: &[Descriptor], build: &str) -> Result<Locked, (PathBuf, NotRead)> {
    let bytes = regular_file::read(path, LARGEST).map_err(|error| (path.to_owned(), error))?;
    Ok(Locked {
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        target: this_target(),
        size: bytes.len() as u64,
        sha256: Checksum::of(&bytes),
        abi: abi_of(descriptors),
        build: build.to_owned(),
        kinds: kinds_of(descriptors),
        package: None,
        beside: if python::is_source(path) { python::beside(path)? } else { neighbors::of(path, &bytes)? },
    })
}

/// The version of the plugin ABI that kinds need.
pub(crate) fn abi_of(descriptors: &[Descriptor]) -> String {
    let minor = descriptors.iter().map(|descriptor| descriptor.requires_minor).max().unwrap_or_default();
    format!("{}.{minor}", plugin_api::abi::MAJOR)
}

/// Kinds with their versions.
pub(crate) fn kinds_of(descriptors: &[Descriptor]) -> Vec<LockedKind> {
    let kind =
        |descriptor: &Descriptor| LockedKind { kind: descriptor.kind.clone(), version: descriptor.version.clone() };
    descriptors.iter().map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(kind: &str) -> Descriptor {
        serde_json::from_value(serde_json::json!({"kind": kind, "version": "1.0.0"})).unwrap()
    }

    fn library(folder: &Path, name: &str, content: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn files_are_held_to_the_lock_by_name_and_content() {
        let folder = tempfile::tempdir().unwrap();
        let lock_file = library(folder.path(), "plugins.lock", "");
        let first = library(folder.path(), "libfirst.so", "first");
        let second = library(folder.path(), "libsecond.so", "second");
        let mut lock = Lock::default();
        lock.put(lock_entry(&first, &[descriptor("first")], "").unwrap());
        let check = |lock: &Lock| Admission::check(lock, &lock_file, &[first.clone(), second.clone()]);
        let refused = check(&lock).unwrap_err();
        assert!(matches!(&refused[..], [Refusal::NotListed { path, .. }] if *path == second), "{refused:?}");
        let entry = lock_entry(&second, &[descriptor("second")], "").unwrap();
        lock.put(Locked { target: "sparc-solaris".to_owned(), ..entry.clone() });
        let refused = check(&lock).unwrap_err();
        assert!(refused[0].hint().unwrap().contains("sparc-solaris"), "{refused:?}");
        lock.put(entry.clone());
        let admitted = check(&lock).unwrap();
        assert_eq!(admitted.expected(&second), Some(entry.expected()));
        assert!(admitted.check_kinds(&second, &[descriptor("second")]).is_ok());
        let refused = admitted.check_kinds(&second, &[descriptor("first")]).unwrap_err();
        assert_eq!(
            refused.to_string().replace(&second.display().to_string(), "libsecond.so"),
            "`libsecond.so` offers first 1.0.0, and the lock says second 1.0.0"
        );
        // Same length, other content; then the lock knows both.
        std::fs::write(&second, "SECOND").unwrap();
        let refused = check(&lock).unwrap_err();
        assert!(matches!(&refused[..], [Refusal::Differs { .. }]), "{refused:?}");
        lock.add(lock_entry(&second, &[descriptor("second")], "").unwrap());
        assert!(check(&lock).is_ok());
        std::fs::write(&second, "second").unwrap();
        assert!(check(&lock).is_ok());
    }

    #[test]
    #[cfg(unix)]
    fn a_lock_that_others_can_write_counts_for_nothing() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let lock_file = library(folder.path(), "plugins.lock", "");
        std::fs::set_permissions(&lock_file, std::fs::Permissions::from_mode(0o666)).unwrap();
        let refused = Admission::check(&Lock::default(), &lock_file, &[]).unwrap_err();
        assert!(matches!(&refused[..], [Refusal::Exposed(Exposed { path, .. })] if *path == lock_file), "{refused:?}");
    }

    #[test]
    fn what_a_library_needs_beside_itself_is_no_plugin() {
        let folder = tempfile::tempdir().unwrap();
        let lock_file = library(folder.path(), "plugins.lock", "");
        let plugin = library(folder.path(), "libplugin.so", "plugin");
        let needed = library(folder.path(), "libneeded.so", "needed");
        let mut entry = lock_entry(&plugin, &[descriptor("plugin")], "").unwrap();
        let sha256 = Checksum::of(b"needed");
        entry.beside = vec![neighbors::Neighbor { file: "libneeded.so".to_owned(), size: 6, sha256 }];
        let mut lock = Lock::default();
        lock.put(entry);
        let check = || Admission::check(&lock, &lock_file, &[plugin.clone(), needed.clone()]);
        let admitted = check().unwrap();
        assert!(admitted.expected(&needed).is_none() && admitted.expected(&plugin).is_some());
        std::fs::write(&needed, "changed").unwrap();
        let refused = check().unwrap_err();
        assert!(matches!(&refused[..], [Refusal::Differs { path, .. }] if *path == needed), "{refused:?}");
    }
}
