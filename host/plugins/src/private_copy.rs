//! Private copies of library files: a file that is overwritten in place while its code runs would end the process.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A copy of a library's file, which is deleted when this is dropped: what is loaded stays.
pub(super) struct PrivateCopy {
    _folder: TempDir,
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
        let folder = tempfile::Builder::new().prefix("host-plugin-").tempdir()?;
        let (mut inside, beside) = (folder.path().to_owned(), parent(original)?);
        if ["$ORIGIN", "${ORIGIN}"].iter().any(|origin| mentions(bytes, origin)) {
            if ["$ORIGIN/..", "${ORIGIN}/.."].iter().any(|above| mentions(bytes, above)) {
                link_entries(&parent(&beside)?, folder.path(), beside.file_name())?;
                inside = folder.path().join(beside.file_name().unwrap_or_default());
                std::fs::create_dir_all(&inside)?;
            }
            link_entries(&beside, &inside, Some(name))?;
        }
        let path = inside.join(name);
        std::fs::write(&path, bytes)?;
        Ok(Self { _folder: folder, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The folder of a path, absolute.
fn parent(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    Ok(path.parent().unwrap_or(&path).to_owned())
}

/// Links everything in `from` but `except` into `to`.
fn link_entries(from: &Path, to: &Path, except: Option<&std::ffi::OsStr>) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let name = entry?.file_name();
        if Some(name.as_os_str()) != except {
            std::os::unix::fs::symlink(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
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
        assert_eq!(std::fs::read_dir(copy.path().parent().unwrap()).unwrap().count(), 1);
    }
}
