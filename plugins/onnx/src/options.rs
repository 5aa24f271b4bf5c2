//! Options of `onnx`.

use export::{Include, Template};
use plugin_api::{Error, Result, plugin};
use serde::{Deserialize, Serialize};
use verify::Policy;

/// Options of `onnx`.
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
    /// The version of the operators.
    pub opset: Opset,
    /// Whether batch norms become part of the convolutions before them.
    pub fold_batch_norm: bool,
    /// What is built in, in addition to the model: its data's normalization before it; probabilities, or the class,
    /// after it, as the loss defines them.
    pub include: Vec<Include>,
    /// How weights are stored.
    pub quantize: Quantize,
    /// With `quantize = "int8"`: how many batches of the training split are used to find the ranges of values.
    pub calibration_batches: u64,
    /// Where weights are stored.
    pub external_data: ExternalData,
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

impl Default for Options {
    fn default() -> Self {
        Self {
            log_dir: "exports".to_owned(),
            name: "model".to_owned(),
            overwrite: true,
            opset: Opset::V18,
            fold_batch_norm: false,
            include: Vec::new(),
            quantize: Quantize::None,
            calibration_batches: 8,
            external_data: ExternalData::Auto,
            verify: Policy::On,
            tolerance: None,
            allow_non_finite: false,
            sync: true,
        }
    }
}

impl Options {
    /// Rules that a JSON Schema cannot express.
    pub(crate) fn check(&self) -> Result<Template> {
        Include::check(&self.include)?;
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

/// A version of ONNX's operators.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, plugin_api::schemars::JsonSchema,
)]
#[schemars(crate = "plugin_api::schemars")]
#[serde(try_from = "i64", into = "i64")]
#[schemars(with = "i64", extend("enum" = [18, 20, 21, 23]))]
pub enum Opset {
    /// Of ONNX 1.13.
    V18,
    /// Of ONNX 1.15, the first with `Gelu`.
    V20,
    /// Of ONNX 1.16.
    V21,
    /// Of ONNX 1.18, the first with `RMSNormalization`.
    V23,
}

impl Opset {
    /// Its number, and the version of the file format that introduced it.
    pub fn versions(self) -> (i64, i64) {
        match self {
            Opset::V18 => (18, 8),
            Opset::V20 => (20, 9),
            Opset::V21 => (21, 10),
            Opset::V23 => (23, 11),
        }
    }
}

impl From<Opset> for i64 {
    fn from(opset: Opset) -> i64 {
        opset.versions().0
    }
}

impl TryFrom<i64> for Opset {
    type Error = String;

    fn try_from(version: i64) -> std::result::Result<Self, String> {
        [Opset::V18, Opset::V20, Opset::V21, Opset::V23]
            .into_iter()
            .find(|opset| opset.versions().0 == version)
            .ok_or_else(|| format!("opset `{version}` is not supported; use 18, 20, 21 or 23"))
    }
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, plugin_api::schemars::JsonSchema)]
#[schemars(crate = "plugin_api::schemars")]
#[serde(rename_all = "snake_case")]
pub enum Quantize {
    /// As 32-bit floats.
    None,
    /// As 16-bit floats, which runtimes convert to 32 bits when they load the model.
    Fp16,
    /// In 8 bits, including the values between operators; runtimes compute with integers where they can.
    Int8,
}

/// Where weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, plugin_api::schemars::JsonSchema)]
#[schemars(crate = "plugin_api::schemars")]
#[serde(rename_all = "snake_case")]
pub enum ExternalData {
    /// In a second file when they are larger than 1.5 GiB, since a file of the format is limited to 2 GiB.
    Auto,
    /// In a second file, `NAME.onnx.data`.
    Always,
    /// In the model's file.
    Never,
}
