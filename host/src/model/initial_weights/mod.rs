//! `[model] init_from`: the weights that a run starts from, in place of drawn ones.
//!
//! `options.rs` is the key of the run file, `matching.rs` finds a tensor of the file for each of the model's, and
//! `report.rs` says what was found. What a file may be, and how it is read, is in `weights_file`.

mod error;
mod matching;
mod options;
mod report;
#[cfg(test)]
mod tests;

use tch::Kind;

use super::{Dtype, NamedTensor, Network, TensorSpec};
use crate::weights_file::{CopyError, WeightsFile};

pub use error::{Mismatch, WeightsError};
pub use options::{InitFrom, InitFromTable};

/// A parameter or buffer of a model.
#[derive(Clone, Debug)]
pub struct ModelTensor<'m> {
    /// Its name.
    pub name: &'m str,
    /// Its shape.
    pub shape: Vec<i64>,
    /// The type of its elements.
    pub kind: Kind,
    /// Whether it belongs to an adapter, which a file need not have.
    pub is_adapter: bool,
}

impl<'m> From<&'m TensorSpec> for ModelTensor<'m> {
    fn from(tensor: &'m TensorSpec) -> Self {
        let kind = match tensor.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::I64 => Kind::Int64,
        };
        Self { name: &tensor.name, shape: tensor.shape.clone(), kind, is_adapter: false }
    }
}

impl<'m> From<&'m NamedTensor> for ModelTensor<'m> {
    fn from(named: &'m NamedTensor) -> Self {
        Self { name: &named.name, shape: named.tensor.size(), kind: named.tensor.kind(), is_adapter: false }
    }
}

/// A file whose tensors were compared with a model's.
#[derive(Debug)]
pub struct InitialWeights {
    file: WeightsFile,
    /// The name in the model, and the one in the file, of each tensor that is copied.
    matched: Vec<(String, String)>,
    /// Names of the model that the file does not have; without the counters that nothing depends on.
    missing: Vec<String>,
    /// Names of the file, as they were renamed, that the model does not have.
    unused: Vec<String>,
    /// What keeps its initial value because the run file says so.
    skipped: Vec<Skipped>,
    /// The prefix that names must have, and how many do not.
    without_prefix: (String, usize),
}

/// A tensor of the model that keeps its initial value.
#[derive(Debug)]
struct Skipped {
    name: String,
    /// Its shapes in the file and in the model, if they differ.
    shapes: Option<(Vec<usize>, Vec<i64>)>,
}

impl InitialWeights {
    /// Copies the matching tensors into `network`, which must have the model that was read for: one by one, from the
    /// file into the network's own.
    ///
    /// # Errors
    ///
    /// The file has changed since it was read; those of libtorch.
    pub fn write_into(&self, network: &mut Network) -> Result<(), WeightsError> {
        for (name, own) in &self.matched {
            let Some(stored) = self.file.tensors.get(own) else { continue };
            let mut target = network.tensor(name)?.shallow_clone();
            stored.copy_into(&mut target).map_err(|error| match error {
                CopyError::File(error) => WeightsError::File(error),
                CopyError::Torch(error) => WeightsError::Model(error.into()),
            })?;
        }
        Ok(())
    }
}
