//! `last` and `best`: names that point at a checkpoint in the same folder.
//!
//! A relative symbolic link; on systems without them, a text file with the name of the checkpoint. Reading accepts
//! both, so that a folder can be copied between systems.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::CheckpointError;
use super::durable::{sync_folder, temporary_path};

/// The longest name of a file.
const MAX_TARGET: u64 = 4096;

/// Makes `pointer` (a name such as `last`) in `folder` point at `target` in the same folder, atomically: a reader
/// sees the old target or the new one.
///
/// # Errors
/// `target` is not in `folder`, or the system reports an error; the pointer then still has its old target.
pub fn set_pointer(folder: &Path, pointer: &str, target: &Path) -> Result<(), CheckpointError> {
    let path = folder.join(pointer);
    let bad = || CheckpointError::BadPointer { path: path.clone(), target: target.display().to_string() };
    let name = target.file_name().and_then(|name| name.to_str()).ok_or_else(bad)?;
    let beside = target.parent().is_some_and(|parent| parent == folder || parent.as_os_str().is_empty());
    if !is_name(pointer) || !beside || !folder.join(name).exists() {
        return Err(bad());
    }
    let temporary = temporary_path(folder, pointer);
    let moved = make(name, &temporary).and_then(|()| fs::rename(&temporary, &path));
    if let Err(error) = moved {
        // What cannot be removed now is removed with the other temporary entries at the next start.
        let _ = fs::remove_file(&temporary);
        return Err(CheckpointError::io("set the pointer", &path)(error));
    }
    sync_folder(folder)
}

#[cfg(unix)]
fn make(target: &str, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn make(target: &str, path: &Path) -> io::Result<()> {
    use std::io::Write;
    let mut file = fs::File::create_new(path)?;
    file.write_all(target.as_bytes())?;
    file.sync_all()
}

/// The target of a pointer in `folder`; `None` if there is no such pointer. The target may not exist.
///
/// # Errors
/// The pointer cannot be read, or points outside its folder.
pub fn read_pointer(folder: &Path, pointer: &str) -> Result<Option<PathBuf>, CheckpointError> {
    let path = folder.join(pointer);
    let target = match read(&path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CheckpointError::io("read", &path)(error)),
    };
    if !is_name(&target) {
        return Err(CheckpointError::BadPointer { path, target });
    }
    Ok(Some(folder.join(target)))
}

fn read(path: &Path) -> io::Result<String> {
    if fs::symlink_metadata(path)?.is_symlink() {
        return Ok(fs::read_link(path)?.to_string_lossy().into_owned());
    }
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_TARGET).read_to_string(&mut text)?;
    Ok(text.trim_end().to_owned())
}

/// Whether a text is exactly one part of a path.
fn is_name(text: &str) -> bool {
    let mut parts = Path::new(text).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_moves_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for name in ["a", "b"] {
            fs::create_dir(folder.join(name)).unwrap();
            set_pointer(folder, "last", &folder.join(name)).unwrap();
            assert_eq!(read_pointer(folder, "last").unwrap(), Some(folder.join(name)));
        }
        set_pointer(folder, "last", Path::new("a")).unwrap();
        assert_eq!(read_pointer(folder, "last").unwrap(), Some(folder.join("a")));
        assert_eq!(fs::read_dir(folder).unwrap().count(), 3);
        assert_eq!(read_pointer(folder, "best").unwrap(), None);
    }

    #[test]
    fn a_text_file_is_a_pointer_too() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("last"), "a\n").unwrap();
        assert_eq!(read_pointer(folder.path(), "last").unwrap(), Some(folder.path().join("a")));
    }

    #[test]
    fn pointers_stay_in_their_folder() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("checkpoints");
        fs::create_dir(&folder).unwrap();
        fs::create_dir(outer.path().join("other")).unwrap();
        for target in [outer.path().join("other"), "..".into(), "missing".into()] {
            let error = set_pointer(&folder, "last", &target).unwrap_err();
            assert!(matches!(error, CheckpointError::BadPointer { .. }), "{error}");
        }
        assert!(set_pointer(&folder, "../last", Path::new("..")).is_err());
        for target in ["../other", "/", "", "a/b"] {
            fs::write(folder.join("last"), target).unwrap();
            let error = read_pointer(&folder, "last").unwrap_err();
            assert!(matches!(error, CheckpointError::BadPointer { .. }), "{error}");
        }
    }
}
