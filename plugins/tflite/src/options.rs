//! Options of `tflite`.

use export::Template;
use plugin_api::{Result, plugin};

/// Options of `tflite`.
#[plugin]
pub struct Options {
    /// Where to write, relative to the run folder.
    pub log_dir: String,
    /// What the file is called, without its extension; `{epoch}` and `{step}` stand for the position. Without them each
    /// export takes the place of the one before.
    pub name: String,
    /// Whether an export may take the place of a file that is there.
    pub overwrite: bool,
    /// How weights are stored.
    pub quantize: Quantize,
    /// How images lie that the model takes and gives.
    pub layout: ImageLayout,
    /// Whether weights that are NaN or infinite are exported all the same.
    pub allow_non_finite: bool,
    /// Whether the file is on the disk before it is published.
    pub sync: bool,
}

/// How weights are stored.
#[plugin]
#[derive(Copy, Default, PartialEq, Eq)]
pub enum Quantize {
    /// As they are trained.
    #[default]
    None,
    /// In 16 bits; the runtime computes with 32.
    Fp16,
}

/// How images lie.
#[plugin]
#[derive(Copy, Default, PartialEq, Eq)]
pub enum ImageLayout {
    /// `[batch, channels, height, width]`, as the model is trained.
    #[default]
    Nchw,
    /// `[batch, height, width, channels]`, as the runtime computes: nothing is transposed.
    Nhwc,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_dir: "exports".to_owned(),
            name: "model".to_owned(),
            overwrite: true,
            quantize: Quantize::None,
            layout: ImageLayout::Nchw,
            allow_non_finite: false,
            sync: true,
        }
    }
}

impl Options {
    /// Refuses what cannot be.
    pub(crate) fn check(&self) -> Result<Template> {
        Template::new(&self.name)
    }
}
