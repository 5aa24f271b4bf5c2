//! Options of `tflite`.

use export::{Include, Template};
use plugin_api::{Error, Result, plugin};
use verify::Policy;

/// Options of `tflite`.
#[plugin]
pub struct Options {
    /// The folder of the files, relative to the run folder.
    pub log_dir: String,
    /// The file name, without its extension; `{epoch}` and `{step}` stand for the position. Without them, each export
    /// replaces the one before.
    #[schemars(extend("format" = "output-name"))]
    pub name: String,
    /// Whether an export may replace an existing file.
    pub overwrite: bool,
    /// What is built in, in addition to the model: its data's normalization before it; probabilities, or the class,
    /// after it, as the loss defines them.
    pub include: Vec<Include>,
    /// How weights are stored.
    pub quantize: Quantize,
    /// With `quantize = "int8"`: how many batches of the training split are used to find the ranges of values.
    pub calibration_batches: u64,
    /// With `quantize = "int8"`: whether inputs and outputs are integers too, with the scales in the file.
    pub integer_boundary: bool,
    /// The layout of the model's input and output images.
    pub layout: ImageLayout,
    /// Whether the file is run on samples of the validation split, by a runtime in pure Rust, and compared with the
    /// model before it is published: `true`, `false`, or `"required"`, which rejects what that runtime cannot run.
    pub verify: Policy,
    /// The largest difference between its outputs and the model's, as `max |a - b| / max(1, max |b|)`; by default 1e-4,
    /// with weights of 16 bits 1e-2, with integers 0.3.
    pub tolerance: Option<f64>,
    /// Whether weights that are NaN or infinite are exported anyway.
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
    /// In 8 bits, as integers; the runtime computes with integers too.
    Int8,
}

/// The layout of images.
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
            include: Vec::new(),
            quantize: Quantize::None,
            calibration_batches: 8,
            integer_boundary: false,
            layout: ImageLayout::Nchw,
            verify: Policy::On,
            tolerance: None,
            allow_non_finite: false,
            sync: true,
        }
    }
}

impl Options {
    /// Rejects impossible options.
    pub(crate) fn check(&self) -> Result<Template> {
        Include::check(&self.include)?;
        if self.integer_boundary && !self.include.is_empty() {
            return Err(Error::new(
                "`include` computes with floats, but `integer_boundary = true` makes inputs and outputs integers; remove one \
                 of them",
            ));
        }
        if self.tolerance.is_some_and(|tolerance| tolerance.is_nan() || tolerance < 0.0) {
            return Err(Error::new("`tolerance` must be 0 or more"));
        }
        if self.calibration_batches == 0 {
            return Err(Error::new("`calibration_batches` must be 1 or more"));
        }
        Template::new(&self.name)
    }

    /// The largest difference between outputs and the model's.
    pub(crate) fn tolerance(&self) -> f64 {
        self.tolerance.unwrap_or(match self.quantize {
            Quantize::None => 1e-4,
            Quantize::Fp16 => 1e-2,
            Quantize::Int8 => 0.3,
        })
    }
}
