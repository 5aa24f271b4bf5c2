//! Files of weights that others wrote: which tensors they hold, and the copying of one into a tensor of libtorch.
//!
//! ```text
//! open.rs         a path: a file, shards with their index, or a folder; the format by its first bytes
//! safetensors.rs  safetensors, and the index of shards
//! archive.rs      a zip file as a list of its parts
//! torch_zip.rs    what `torch.save` writes
//! pickle/         the machine that reads the pickle in it
//! npz.rs          what `numpy.savez` writes
//! checkpoint.rs   a checkpoint of the host
//! stored.rs       a tensor where it lies
//! tensor.rs       its copying; the only file here that knows libtorch
//! ```
//!
//! A file is a stranger's. It is data: nothing in it is executed, no class is looked up, and no module is imported.
//! What it says of itself is checked against its own length before it is believed, and what is kept in memory is a list
//! of names and places: the values stay in the file, which is mapped, until they are copied into the model, one tensor
//! at a time.

mod archive;
mod checkpoint;
mod dtype;
mod error;
mod npz;
mod open;
mod pickle;
mod safetensors;
mod stored;
mod tensor;
#[cfg(test)]
mod tests;
mod torch_zip;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::checkpoint::InUse;

pub use error::WeightsFileError;
pub use stored::StoredTensor;
pub use tensor::{CopyError, dtype_name};

/// The tensors of a file, of several shards, or of a checkpoint.
#[derive(Debug)]
pub struct WeightsFile {
    /// What was opened.
    pub path: PathBuf,
    /// By name.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// The key of the file's dictionary that they are taken from, if they are not at its top.
    pub within: Option<String>,
    /// Keeps a checkpoint from being removed.
    _in_use: Option<InUse>,
}
