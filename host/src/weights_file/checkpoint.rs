//! A checkpoint of the host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::WeightsFileError;
use super::safetensors;
use super::stored::{Part, StoredTensor};
use crate::checkpoint::{self, Checkpoint, CheckpointError, InUse, TensorFile};
use crate::mapped_file::MappedFile;

/// Whether a folder is a checkpoint.
pub(super) fn is_checkpoint(folder: &Path) -> bool {
    folder.join(checkpoint::MANIFEST).is_file()
}

/// The checkpoints of a run folder, whose name somebody may have given in their place.
pub(super) fn checkpoints_of(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(checkpoint::FOLDER)).filter(|path| path.is_dir())
}

/// The weights of a checkpoint, all of which was verified, and what keeps it from being removed.
pub(super) fn read(folder: &Path) -> Result<(BTreeMap<String, StoredTensor>, InUse), WeightsFileError> {
    // A pointer such as `last` may lead elsewhere by the time the weights are copied.
    let read = |source| WeightsFileError::Read { path: folder.to_owned(), source };
    let folder = folder.canonicalize().map_err(read)?;
    let in_use = InUse::of(&folder)?;
    let checkpoint = Checkpoint::open(&folder)?;
    let path = checkpoint.path().join(TensorFile::Model.path());
    let bytes = MappedFile::open(&path).map_err(|source| WeightsFileError::Read { path: path.clone(), source })?;
    let part = Arc::new(Part { path: path.clone(), bytes });
    let malformed =
        |error: crate::refusal::Refusal| CheckpointError::MalformedTensors { path, reason: error.to_string() };
    Ok((safetensors::read(&part).map_err(malformed)?, in_use))
}
