//! The formats, and what they have in common.

use std::io::{Seek, Write};

use export::{Values, Weight, Weights};
use plugin_api::{Result, plugin};

use crate::metadata::Metadata;
use crate::{npz, safetensors, state_dict};

/// A format of files of weights.
#[plugin]
#[derive(Copy, PartialEq, Eq)]
pub enum Format {
    /// Hugging Face's safetensors, with the run, the position and the metrics as metadata.
    Safetensors,
    /// A state dict as `torch.save` writes it; `torch.load(weights_only=True)` reads it.
    Pt,
    /// NumPy's archive of arrays, not compressed.
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
    pub(crate) fn write(
        self,
        writer: &mut (impl Write + Seek),
        weights: &Weights<'_>,
        metadata: &Metadata,
    ) -> Result<()> {
        match self {
            Self::Safetensors => safetensors::write(writer, weights, metadata),
            Self::Pt => state_dict::write(writer, weights),
            Self::Npz => npz::write(writer, weights),
        }
    }
}

/// The elements of a weight as they are in memory: in row-major order, little-endian.
pub(crate) fn bytes<'a>(weight: &Weight<'a>) -> &'a [u8] {
    match weight.values {
        Values::F32(values) => bytemuck::cast_slice(values),
        Values::I64(values) => bytemuck::cast_slice(values),
    }
}
