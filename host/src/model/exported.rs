//! `[model] exported`: an exported program as a network.

use std::path::Path;

use tch::Device;

use super::{error::ModelError, execute::Mode, named_tensor::NamedTensor, network::Network};
use crate::exported::{Exported, ExportedError};
use crate::report::Report;

/// Why a file cannot be trained as an exported program.
#[derive(Debug, thiserror::Error)]
pub enum ExportedModelError {
    /// The program itself.
    #[error(transparent)]
    Program(#[from] ExportedError),
    /// It has nothing that can be trained.
    #[error("the exported program `{path}` cannot be trained")]
    Model {
        /// The file.
        path: String,
        /// Why.
        source: Box<ModelError>,
    },
}

impl ExportedModelError {
    /// The file that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Program(ExportedError::Read { path, .. } | ExportedError::Refused { path, .. }) => path,
            Self::Model { path, .. } => Path::new(path),
        }
    }
}

impl Report for ExportedModelError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Program(error) => error.hint(),
            Self::Model { source, .. } if **source == ModelError::NothingToTrain => {
                Some("export it with parameters that require gradients".to_owned())
            }
            Self::Model { .. } => None,
        }
    }
}

impl Network {
    /// The program of `torch.export.save` in a file, with its saved weights, on `device`. Its tensors have the names of
    /// PyTorch's state dict; those that require gradients are the parameters. `evaluation` is the file of the program that
    /// evaluates in its place, over the same tensors, if there is one; `output` names one of several outputs.
    ///
    /// # Errors
    ///
    /// See [`ExportedModelError`].
    pub fn exported(
        path: &Path,
        evaluation: Option<&Path>,
        output: Option<&str>,
        device: Device,
    ) -> Result<Network, ExportedModelError> {
        let mut program = Exported::open(path, evaluation, output, device)?;
        let tensors = std::mem::take(&mut program.tensors);
        let tensors = tensors.into_iter().map(|(name, tensor)| NamedTensor { name, tensor }).collect();
        let forward = move |input: &tch::Tensor, mode| Ok(program.forward(input, mode == Mode::Train)?);
        Network::custom(tensors, device, forward)
            .map_err(|source| ExportedModelError::Model { path: path.display().to_string(), source: Box::new(source) })
    }
}
