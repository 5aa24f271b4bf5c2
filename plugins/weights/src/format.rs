//! The formats, and what they have in common.

use std::io::{Seek, Write};

use export::{Origin, Weights, write_safetensors};
use plugin_api::{Result, plugin};

use crate::{npz, state_dict};

/// A format of files of weights.
#[plugin]
#[derive(Copy, PartialEq, Eq)]
pub enum Format {
    /// Hugging Face's safetensors, with what is known of the run as metadata.
    Safetensors,
    /// A state dict as `torch.save` writes it; `torch.load(weights_only=True)` reads it. What is known of the run is
    /// the archive's entry `archive/extra/run.json`.
    Pt,
    /// NumPy's archive of arrays, not compressed. What is known of the run is the archive's comment.
    Npz,
}

impl Format {
    /// Its file extension, which is also its name in options.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Pt => "pt",
            Self::Npz => "npz",
        }
    }

    /// Writes a whole file.
    ///
    /// # Errors
    ///
    /// Errors of `writer`, and names that the format does not allow.
    pub(crate) fn write(self, writer: &mut (impl Write + Seek), weights: &Weights<'_>, origin: &Origin) -> Result<()> {
        match self {
            Self::Safetensors => write_safetensors(writer, weights, origin),
            Self::Pt => state_dict::write(writer, weights, origin),
            Self::Npz => npz::write(writer, weights, origin),
        }
    }
}
