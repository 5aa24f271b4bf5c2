//! Makes files survive a power failure, on each system.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CheckpointError, TEMPORARY_PREFIX};

/// Flushes a folder's entries to the disk.
pub(super) fn sync_folder(path: &Path) -> Result<(), CheckpointError> {
    // Other systems cannot open folders as files, and flush renames themselves.
    if cfg!(unix) {
        let synced = File::open(path).and_then(|folder| folder.sync_all());
        synced.map_err(CheckpointError::io("flush", path))?;
    }
    Ok(())
}

/// Makes a folder and its missing parents, each with a durable entry.
pub(super) fn create_folders(path: &Path) -> Result<(), CheckpointError> {
    let mut missing = Vec::new();
    let mut next = path;
    while !next.exists() {
        missing.push(next);
        match next.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => next = parent,
            _ => break,
        }
    }
    for folder in missing.into_iter().rev() {
        match fs::create_dir(folder) {
            // Another thread made it first.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(CheckpointError::io("create", folder))?,
        }
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// An unused path in the same folder; temporary names have a common prefix.
pub(super) fn temporary_path(folder: &Path, name: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("{TEMPORARY_PREFIX}{name}-{}-{count}", std::process::id()))
}

/// A temporary folder that is removed with its contents, unless it was renamed to its final name.
pub(super) struct TemporaryFolder {
    path: PathBuf,
}

impl TemporaryFolder {
    pub(super) fn create(parent: &Path, name: &str) -> Result<TemporaryFolder, CheckpointError> {
        let path = temporary_path(parent, name);
        fs::create_dir(&path).map_err(CheckpointError::io("create", &path))?;
        Ok(TemporaryFolder { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // After the rename, the path does not exist, or is the old folder. What remains is removed by
        // `remove_temporaries` at the next start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Replaces the folder `old` by the folder `new`. Afterward, `new` is gone or is the old folder.
///
/// On Linux, the two are swapped atomically if the file system can do that; otherwise `old` does not exist for a
/// moment.
pub(super) fn replace_folder(new: &Path, old: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        if renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
    }
    let aside = temporary_path(old.parent().unwrap_or(Path::new(".")), "replaced");
    fs::rename(old, &aside)?;
    if let Err(error) = fs::rename(new, old) {
        fs::rename(&aside, old)?;
        return Err(error);
    }
    // What cannot be removed now is removed with the other temporary entries at the next start.
    let _ = fs::remove_dir_all(&aside);
    Ok(())
}
