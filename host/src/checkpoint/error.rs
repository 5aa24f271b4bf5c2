//! What can be wrong with a checkpoint.

use std::io;
use std::path::{Path, PathBuf};

use crate::report::Report;

/// Why a checkpoint was not written or is not believed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `write`, `rename`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing at the path.
    #[error("there is no checkpoint at `{}`", .0.display())]
    NotFound(PathBuf),
    /// The folder has no manifest: it is no checkpoint, or one that was never finished.
    #[error("`{}` has no `manifest.json`", .0.display())]
    MissingManifest(PathBuf),
    /// The manifest is not what this format's manifests are.
    #[error("`{}` is not a checkpoint's manifest: {reason}", path.display())]
    MalformedManifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest is of a later format than this host knows, or of none.
    #[error("`{}` is of format version {found}, and this host reads version {known}", path.display())]
    UnknownFormatVersion {
        /// The manifest.
        path: PathBuf,
        /// The version that it states.
        found: u64,
        /// The version that this host reads.
        known: u64,
    },
    /// The manifest is not the one that was written.
    #[error("`{}` has been changed since it was written", .0.display())]
    ManifestDigestDiffers(PathBuf),
    /// The manifest lists a path that leaves the checkpoint.
    #[error("`{}` lists `{entry}`, which is not a path inside the checkpoint", path.display())]
    PathEscape {
        /// The manifest.
        path: PathBuf,
        /// The path that it lists.
        entry: String,
    },
    /// A file that the manifest lists is not there.
    #[error("`{}` is missing from the checkpoint", .0.display())]
    MissingFile(PathBuf),
    /// A file does not have the size that the manifest states.
    #[error("`{}` has {found} bytes instead of {expected}", path.display())]
    SizeDiffers {
        /// The file.
        path: PathBuf,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes on the disk.
        found: u64,
    },
    /// A file's bytes are not the ones that were written.
    #[error("`{}` has been changed since it was written: its SHA-256 is `{found}` instead of `{expected}`", path.display())]
    DigestDiffers {
        /// The file.
        path: PathBuf,
        /// The digest by the manifest, in hexadecimal.
        expected: String,
        /// The digest of the bytes that were read.
        found: String,
    },
    /// A tensor file is as it was written but is no safetensors file.
    #[error("`{}` is not a safetensors file: {reason}", path.display())]
    MalformedTensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is as it was written but this host cannot read its content.
    #[error("cannot read the content of `{}`", path.display())]
    MalformedContent {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The buffer that is to take a tensor does not have the tensor's size.
    #[error("the tensor `{tensor}` has {expected} bytes, and the buffer for it {found}")]
    BufferSizeDiffers {
        /// The tensor's name.
        tensor: String,
        /// Its bytes in the checkpoint.
        expected: usize,
        /// The bytes of the buffer.
        found: usize,
    },
    /// A tensor that is to be written does not have the bytes that its dtype and shape say.
    #[error("the tensor `{tensor}` has {found} bytes, which is not what its dtype and shape say")]
    TensorSizeDiffers {
        /// The tensor's name.
        tensor: String,
        /// The bytes that were given.
        found: usize,
    },
    /// Two tensors of one name are to be written into one file.
    #[error("two tensors of `{file}` have the name `{tensor}`")]
    DuplicateTensor {
        /// The file.
        file: &'static str,
        /// The name.
        tensor: String,
    },
    /// A plugin's bytes are to be written under a name that no instance can have, or that another one has.
    #[error("`{0}` cannot name a plugin's state")]
    BadInstanceName(String),
    /// The place of the new checkpoint is taken by something that is not to be lost.
    #[error("`{}` is there already and is not a checkpoint of the same position", .0.display())]
    Exists(PathBuf),
    /// A pointer's name or target is not the name of something in its folder.
    #[error("`{}` does not point at something beside it: `{target}`", path.display())]
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
                "make room on the disk; nothing of the unfinished checkpoint was left behind"
            }
            CheckpointError::MissingManifest(_) => {
                "a checkpoint is a folder with a `manifest.json`, such as `checkpoints/epoch-0003-step-00000084`"
            }
            CheckpointError::UnknownFormatVersion { found, known, .. } if found > known => {
                "a later version of the host wrote it: use that one"
            }
            CheckpointError::ManifestDigestDiffers(_)
            | CheckpointError::MalformedManifest { .. }
            | CheckpointError::PathEscape { .. }
            | CheckpointError::MissingFile(_)
            | CheckpointError::SizeDiffers { .. }
            | CheckpointError::DigestDiffers { .. } => {
                "the checkpoint is damaged: take an earlier one, or copy it again from where it came from"
            }
            CheckpointError::Exists(_) => "move it away, or give the run another folder",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
