//! Errors about a checkpoint.

use std::io;
use std::path::{Path, PathBuf};

use crate::report::Report;

/// Why a checkpoint was not written or cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system reported an error.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// The action: `write`, `rename`, …
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The path does not exist.
    #[error("there is no checkpoint at `{}`", .0.display())]
    NotFound(PathBuf),
    /// The folder has no manifest: it is not a checkpoint, or one that was never finished.
    #[error("`{}` has no `manifest.json`", .0.display())]
    MissingManifest(PathBuf),
    /// The manifest does not have this format.
    #[error("`{}` is not a checkpoint's manifest: {reason}", path.display())]
    MalformedManifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest has a later format than this host knows, or none.
    #[error("`{}` has format version {found}, but this host reads version {known}", path.display())]
    UnknownFormatVersion {
        /// The manifest.
        path: PathBuf,
        /// The version that it states.
        found: u64,
        /// The version that this host reads.
        known: u64,
    },
    /// The manifest was changed after it was written.
    #[error("`{}` has been changed since it was written", .0.display())]
    ManifestDigestDiffers(PathBuf),
    /// The manifest lists a path outside the checkpoint.
    #[error("`{}` lists `{entry}`, which is not a path inside the checkpoint", path.display())]
    PathEscape {
        /// The manifest.
        path: PathBuf,
        /// The path that it lists.
        entry: String,
    },
    /// A file of the manifest is missing.
    #[error("`{}` is missing from the checkpoint", .0.display())]
    MissingFile(PathBuf),
    /// A file does not have the size that the manifest states.
    #[error("`{}` has {found} bytes instead of {expected}", path.display())]
    SizeDiffers {
        /// The file.
        path: PathBuf,
        /// The size in the manifest.
        expected: u64,
        /// The size on the disk.
        found: u64,
    },
    /// A file was changed after it was written.
    #[error("`{}` has been changed since it was written: its SHA-256 is `{found}` instead of `{expected}`", path.display())]
    DigestDiffers {
        /// The file.
        path: PathBuf,
        /// The digest in the manifest, in hexadecimal.
        expected: String,
        /// The digest of the bytes that were read.
        found: String,
    },
    /// A tensor file has not changed, but is not a safetensors file.
    #[error("`{}` is not a safetensors file: {reason}", path.display())]
    MalformedTensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file has not changed, but this host cannot read its content.
    #[error("cannot read the content of `{}`", path.display())]
    MalformedContent {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The buffer for a tensor does not have the tensor's size.
    #[error("the tensor `{tensor}` has {expected} bytes, but the buffer for it has {found}")]
    BufferSizeDiffers {
        /// The tensor's name.
        tensor: String,
        /// Its bytes in the checkpoint.
        expected: usize,
        /// The bytes of the buffer.
        found: usize,
    },
    /// The bytes of a tensor to write do not match its dtype and shape.
    #[error("the tensor `{tensor}` has {found} bytes, which does not match its dtype and shape")]
    TensorSizeDiffers {
        /// The tensor's name.
        tensor: String,
        /// The number of given bytes.
        found: usize,
    },
    /// Two tensors of one file have the same name.
    #[error("two tensors of `{file}` have the name `{tensor}`")]
    DuplicateTensor {
        /// The file.
        file: &'static str,
        /// The name.
        tensor: String,
    },
    /// A plugin's state has a name that no instance can have, or that another one has.
    #[error("`{0}` cannot be the name of a plugin's state")]
    BadInstanceName(String),
    /// The path of the new checkpoint contains something that must not be lost.
    #[error("`{}` already exists and is not a checkpoint of the same position", .0.display())]
    Exists(PathBuf),
    /// A pointer's name or target is not a name in its folder.
    #[error("`{}` must point at something in its folder, not at `{target}`", path.display())]
    BadPointer {
        /// The pointer.
        path: PathBuf,
        /// What it points at.
        target: String,
    },
}

impl CheckpointError {
    /// For `map_err` on an operation on a path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
        let path = path.to_owned();
        move |source| CheckpointError::Io { action, path, source }
    }
}

impl Report for CheckpointError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            CheckpointError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some disk space; the unfinished checkpoint was removed"
            }
            CheckpointError::MissingManifest(_) => {
                "a checkpoint is a folder with a `manifest.json`, such as `checkpoints/epoch-0003-step-00000084`"
            }
            CheckpointError::UnknownFormatVersion { found, known, .. } if found > known => {
                "a later version of the host wrote it: use that version"
            }
            CheckpointError::ManifestDigestDiffers(_)
            | CheckpointError::MalformedManifest { .. }
            | CheckpointError::PathEscape { .. }
            | CheckpointError::MissingFile(_)
            | CheckpointError::SizeDiffers { .. }
            | CheckpointError::DigestDiffers { .. } => {
                "the checkpoint is damaged: use an earlier one, or copy it again from its source"
            }
            CheckpointError::Exists(_) => "move it away, or use another run folder",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
