//! What makes files outlive a power failure, for the systems that differ.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CheckpointError, TEMPORARY_PREFIX};

/// Flushes a folder's entries to the disk.
pub(super) fn sync_folder(path: &Path) -> Result<(), CheckpointError> {
    // Elsewhere folders cannot be opened as files, and renames are flushed by the system.
    if cfg!(unix) {
        let synced = File::open(path).and_then(|folder| folder.sync_all());
        synced.map_err(CheckpointError::io("flush", path))?;
    }
    Ok(())
}

/// Makes a folder and those above it that are missing, each with a durable entry.
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
            // Another thread was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(CheckpointError::io("create", folder))?,
        }
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// A path beside others that nothing has: temporary names are known by their prefix.
pub(super) fn temporary_path(folder: &Path, name: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("{TEMPORARY_PREFIX}{name}-{}-{count}", std::process::id()))
}

/// A temporary folder that is removed with all that is in it, unless it got its name.
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
        // After the rename there is nothing to remove, or what the rename put here; what stays is removed by
        // `remove_temporaries` at the next start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Puts the folder `new` in the place of the folder `old`. Afterwards `new` is gone or holds what `old` was.
///
/// On Linux the two change places at once where the file system can do that; else there is an instant in which nothing
/// is at `old`.
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
    // What cannot be removed now goes with the other temporary entries at the next start.
    let _ = fs::remove_dir_all(&aside);
    Ok(())
}
