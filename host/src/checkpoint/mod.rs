//! The checkpoint format: atomic writing and verification. It does not depend on a tensor library: tensors are bytes
//! with a dtype and a shape.
//!
//! # The format, version 1
//!
//! A checkpoint is a folder, named `epoch-0003-step-00000084` after the epoch and the global step:
//!
//! | file | content |
//! |---|---|
//! | `model.safetensors` | parameters and buffers by name |
//! | `optimizer.safetensors` | the optimizer's state by name |
//! | `copies.safetensors` | named copies of the weights, `<copy>/<tensor>` |
//! | `rng.safetensors` | the states of the random number generators, `U8`, by name |
//! | `state.json` | [`State`]: position, history, hyper-parameters and their owners, threads, … |
//! | `graph.json` | the model's graph; `null` if there is none |
//! | `model.pt`, `model.pt2`, `model_eval.pt2` | the TorchScript module or the exported programs, of a model that is one |
//! | `model.json` | what the model was trained on: classes, normalization, …; checkpoints of older hosts have none |
//! | `run.toml` | the resolved run file |
//! | `plugins/<instance>.bin` | the plugin instance's state, byte for byte |
//! | `manifest.json` | format version, host version, position, and each other file with its size and SHA-256 |
//!
//! Tensor files are safetensors (little-endian, <https://github.com/huggingface/safetensors#format>), so any reader of
//! that format opens them. The manifest ends with a digest of itself: the SHA-256 of its compact JSON text
//! (no white space, keys in the file's order) with that last `sha256` empty. Files that the manifest does not list are
//! not part of the checkpoint.
//!
//! # Guarantees
//!
//! [`write()`] builds the folder under a temporary name next to its final one. Every file is flushed to the disk, the
//! manifest last; then the folder is flushed, renamed, and its parent flushed. So a folder with a checkpoint's name is
//! complete, whenever the power fails, and an error (a full disk) leaves nothing. [`Checkpoint::open`] verifies every
//! byte before anything is used, and each read verifies the bytes again.
//!
//! A run folder has one owner: two processes must not write checkpoints into the same folder at once.

mod durable;
mod error;
mod folder;
mod hashing;
mod in_use;
mod manifest;
mod pointer;
mod read;
mod state;
mod tensors;
#[cfg(test)]
mod tests;
mod write;

pub use error::CheckpointError;
pub use folder::{Latest, Skipped, find_latest, folder_name, is_misnamed, remove_temporaries};
pub use in_use::InUse;
pub use manifest::EarlierWeights;
pub use pointer::{read_pointer, set_pointer};
pub use read::Checkpoint;
pub use safetensors::Dtype;
pub use state::{HyperParameter, State};
pub use tensors::{OwnedTensor, TensorEntry, TensorFile, TensorRef, TensorSink};
pub use write::{CheckpointContents, PluginState, Written, write};

/// The folder of a run's checkpoints in its run folder.
pub const FOLDER: &str = "checkpoints";

/// The prefix of temporary folders and links.
const TEMPORARY_PREFIX: &str = ".tmp-";

/// The manifest in a checkpoint's folder: where it is, a checkpoint is.
pub(crate) const MANIFEST: &str = "manifest.json";
const STATE: &str = "state.json";
const GRAPH: &str = "graph.json";
const DATA: &str = "model.json";

/// Its name until now.
const OLD_DATA: &str = "data.json";
const RUN_FILE: &str = "run.toml";
const PLUGINS: &str = "plugins";

/// The path of a plugin instance's state inside a checkpoint.
fn plugin_path(instance: &str) -> String {
    format!("{PLUGINS}/{instance}.bin")
}
