//! Checkpoints that somebody reads: whoever removes old ones leaves them.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::{CheckpointError, MANIFEST};
use crate::regular_file;

/// Marks a checkpoint as in use until it is dropped, with a shared lock of its manifest.
#[derive(Debug)]
pub struct InUse {
    /// Locked; the system releases it however the process ends.
    _manifest: File,
}

impl InUse {
    /// Marks the checkpoint at `path`.
    ///
    /// # Errors
    /// There is no checkpoint, or it is being removed.
    pub fn of(path: &Path) -> Result<InUse, CheckpointError> {
        let manifest = path.join(MANIFEST);
        let file = regular_file::open(&manifest).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => CheckpointError::MissingManifest(path.to_owned()),
            _ => CheckpointError::io("open", &manifest)(error),
        })?;
        match file.try_lock_shared() {
            Ok(()) => Ok(InUse { _manifest: file }),
            Err(TryLockError::WouldBlock) => Err(CheckpointError::NotFound(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(CheckpointError::io("lock", &manifest)(error)),
        }
    }
}
