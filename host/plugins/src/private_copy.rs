//! Private copies of library files: a file that is overwritten in place while its code runs would end the process, and one
//! that is replaced between a check and the loading would not have been checked.

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

use tempfile::TempDir;

use super::checksum::Checksum;
use super::error::LoadError;
use super::neighbors::Neighbor;
use super::regular_file;

/// A copy of a library's file. One in a folder is deleted when this is dropped: what is loaded stays. One in memory can be
/// changed by nobody.
pub(super) struct PrivateCopy {
    _folder: Option<TempDir>,
    path: PathBuf,
}

impl PrivateCopy {
    /// Copies `bytes`, the content of the library at `original`. A library that looks for others beside itself finds them:
    /// the copy's folder has links to what is beside the original.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub(super) fn of(original: &Path, bytes: &[u8]) -> io::Result<Self> {
        let name = original.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let looks_beside = looks_beside(bytes);
        if !looks_beside && let Some(path) = in_memory(name, bytes) {
            return Ok(Self { _folder: None, path });
        }
        let folder = tempfile::Builder::new().prefix("host-plugin-").tempdir()?;
        let (root, beside) = (deep_within(folder.path())?, parent(original)?);
        let mut inside = root.clone();
        if looks_beside {
            if ["$ORIGIN/..", "${ORIGIN}/.."].iter().any(|above| mentions(bytes, above)) {
                link_entries(&parent(&beside)?, &root, beside.file_name())?;
                inside = root.join(beside.file_name().unwrap_or_default());
                std::fs::create_dir_all(&inside)?;
            }
            link_entries(&beside, &inside, Some(name))?;
        }
        let path = inside.join(name);
        std::fs::write(&path, bytes)?;
        Ok(Self { _folder: Some(folder), path })
    }

    /// Copies `bytes` and, where the library at `original` looks beside itself, those of the libraries there that are listed:
    /// it finds these and no others.
    ///
    /// # Errors
    ///
    /// A listed library that is not there or is another one; those of the system.
    pub(super) fn with(original: &Path, bytes: &[u8], beside: &[Neighbor]) -> Result<Self, LoadError> {
        let failed = |source: io::Error| LoadError::NoCopy { path: original.to_owned(), source };
        let name = original.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        if beside.is_empty()
            && let Some(path) = in_memory(name, bytes)
        {
            return Ok(Self { _folder: None, path });
        }
        let folder = tempfile::Builder::new().prefix("host-plugin-").tempdir().map_err(failed)?;
        // As deep as `..` leads up, so that every copy is in the folder.
        let above = |neighbor: &Neighbor| {
            Path::new(&neighbor.file).components().take_while(|part| *part == Component::ParentDir).count()
        };
        let depth = beside.iter().map(above).max().unwrap_or_default();
        let origin = parent(original).map_err(failed)?;
        let names: Vec<&OsStr> = origin.iter().skip(1).collect();
        let mut inside = deep_within(folder.path()).map_err(failed)?;
        // The root is its own parent.
        inside.extend(&names[names.len().saturating_sub(depth)..]);
        for _ in names.len()..depth {
            inside.push("root");
        }
        std::fs::create_dir_all(&inside).map_err(failed)?;
        for neighbor in beside {
            copy_neighbor(&origin, &inside, neighbor)?;
        }
        let path = inside.join(name);
        std::fs::write(&path, bytes).map_err(failed)?;
        Ok(Self { _folder: Some(folder), path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// A folder so far within `folder` that a run path with `..` ends in folders that are empty and nobody else's, not in that of
/// all temporary files, where anybody may put a library.
fn deep_within(folder: &Path) -> io::Result<PathBuf> {
    let deep = folder.join("up/".repeat(32));
    std::fs::create_dir_all(&deep)?;
    Ok(deep)
}

fn copy_neighbor(origin: &Path, inside: &Path, neighbor: &Neighbor) -> Result<(), LoadError> {
    let from = origin.join(&neighbor.file);
    let failed = |source: io::Error| LoadError::NoCopy { path: from.clone(), source };
    let bytes = regular_file::read(&from, neighbor.size).map_err(|error| failed(error.into()))?;
    let found = Checksum::of(&bytes);
    if found != neighbor.sha256 {
        return Err(LoadError::Unexpected { path: from, expected: neighbor.sha256, found });
    }
    let mut to = inside.to_owned();
    for part in Path::new(&neighbor.file).components() {
        match part {
            Component::ParentDir => drop(to.pop()),
            part => to.push(part),
        }
    }
    std::fs::create_dir_all(to.parent().unwrap_or(inside)).map_err(failed)?;
    std::fs::write(&to, bytes).map_err(failed)
}

/// Copies `bytes` into memory that nobody can change any more, and gives a path to it; `None` where the system has no such
/// memory, or does not execute it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn in_memory(name: &OsStr, bytes: &[u8]) -> Option<PathBuf> {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag that says that it is executed, and execute it.
    let made = memfd_create(name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(name, flags));
    let mut file = std::fs::File::from(made.ok()?);
    file.write_all(bytes).ok()?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL).ok()?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    // A system may forbid to execute such memory.
    // SAFETY: the memory is sealed, so that nobody changes it while it is mapped.
    unsafe { memmap2::MmapOptions::new().len(1).map_exec(&file) }.ok()?;
    if !path.exists() {
        return None;
    }
    // It stays open, as the library stays loaded: the loader takes a second library of the same path for the first one, and
    // backtraces read its names there.
    std::mem::forget(file);
    Some(path)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn in_memory(_: &OsStr, _: &[u8]) -> Option<PathBuf> {
    None
}

/// The folder of a path, absolute.
fn parent(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    Ok(path.parent().unwrap_or(&path).to_owned())
}

/// Links everything in `from` but `except` into `to`.
fn link_entries(from: &Path, to: &Path, except: Option<&OsStr>) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let name = entry?.file_name();
        if Some(name.as_os_str()) != except {
            std::os::unix::fs::symlink(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}

/// Whether a library may look for others beside itself.
fn looks_beside(bytes: &[u8]) -> bool {
    ["$ORIGIN", "${ORIGIN}"].iter().any(|origin| mentions(bytes, origin))
}

/// Whether a file has this text anywhere, as the paths do in which the system looks for what a library needs.
fn mentions(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_neighbors_that_it_looks_for_and_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let plugins = folder.path().join("plugins");
        std::fs::create_dir(&plugins).unwrap();
        std::fs::write(plugins.join("libneighbor.so"), "neighbor").unwrap();
        std::fs::create_dir(folder.path().join("lib")).unwrap();
        let original = plugins.join("libmine.so");
        std::fs::write(&original, "changed since it was read").unwrap();
        let copy = PrivateCopy::of(&original, b"run path: $ORIGIN/../lib").unwrap();
        let beside = |path: &Path| copy.path().parent().unwrap().join(path);
        assert_eq!(std::fs::read(copy.path()).unwrap(), b"run path: $ORIGIN/../lib");
        assert_eq!(std::fs::read(beside(Path::new("libneighbor.so"))).unwrap(), b"neighbor");
        assert!(beside(Path::new("../lib")).is_dir());
        let path = copy.path().to_owned();
        drop(copy);
        assert!(!path.exists() && plugins.join("libneighbor.so").exists() && folder.path().join("lib").exists());
        let copy = PrivateCopy::of(&original, b"no run path").unwrap();
        assert_eq!(std::fs::read(copy.path()).unwrap(), b"no run path");
        #[cfg(target_os = "linux")]
        assert!(
            std::fs::File::options()
                .append(true)
                .open(copy.path())
                .and_then(|mut file| io::Write::write_all(&mut file, b"more"))
                .is_err()
        );
        // The loader would take one path for one library.
        assert_ne!(PrivateCopy::of(&original, b"another").unwrap().path(), copy.path());
    }

    #[test]
    fn only_listed_neighbors_are_copied_and_only_as_they_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let plugins = folder.path().join("plugins");
        for path in ["plugins/own", "lib"] {
            std::fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        std::fs::write(plugins.join("own/liba.so"), "a").unwrap();
        std::fs::write(folder.path().join("lib/libb.so"), "b").unwrap();
        std::fs::write(plugins.join("libother.so"), "other").unwrap();
        let neighbor = |file: &str, content: &str| Neighbor {
            file: file.to_owned(),
            size: content.len() as u64,
            sha256: Checksum::of(content.as_bytes()),
        };
        let original = plugins.join("libmine.so");
        let listed = [neighbor("own/liba.so", "a"), neighbor("../lib/libb.so", "b")];
        let copy = PrivateCopy::with(&original, b"mine", &listed).unwrap();
        let beside = |path: &str| std::fs::read(copy.path().parent().unwrap().join(path));
        assert_eq!(std::fs::read(copy.path()).unwrap(), b"mine");
        assert_eq!((beside("own/liba.so").unwrap(), beside("../lib/libb.so").unwrap()), (b"a".to_vec(), b"b".to_vec()));
        assert!(beside("libother.so").is_err());
        let refused = |listed: Neighbor| PrivateCopy::with(&original, b"mine", &[listed]).err().unwrap();
        assert!(matches!(refused(neighbor("own/liba.so", "c")), LoadError::Unexpected { .. }));
        assert!(matches!(refused(neighbor("own/libc.so", "c")), LoadError::NoCopy { .. }));
        // Above the root is the root.
        let far = "../".repeat(60) + folder.path().join("lib/libb.so").strip_prefix("/").unwrap().to_str().unwrap();
        let copy = PrivateCopy::with(&original, b"mine", &[neighbor(&far, "b")]).unwrap();
        assert_eq!(std::fs::read(copy.path().parent().unwrap().join(&far)).unwrap(), b"b");
    }
}
