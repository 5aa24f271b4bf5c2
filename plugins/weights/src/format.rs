//! The formats, and the names of their files.

use plugin_api::plugin;

use crate::peft;

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
    /// The adapters of `[model] lora` alone: a folder with `adapter_model.safetensors` and `adapter_config.json`, which
    /// `PeftModel.from_pretrained` loads. In the other formats they are merged into the weights.
    Peft,
}

impl Format {
    /// Its name in options, which is also the extension of a format of one file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Pt => "pt",
            Self::Npz => "npz",
            Self::Peft => "peft",
        }
    }

    /// The names of its files.
    pub(crate) fn files(self, stem: &str) -> Vec<String> {
        match self {
            Self::Peft => peft::FILES.iter().map(|file| format!("{stem}-peft/{file}")).collect(),
            _ => vec![format!("{stem}.{}", self.name())],
        }
    }
}
