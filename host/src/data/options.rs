//! `[data]` of the run file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{normalise::Normalise, text::TextOptions};

/// `[data]`: what is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum DataOptions {
    /// A table of numbers, plain or compressed with gzip.
    Csv(CsvOptions),
    /// A text whose next token is predicted.
    Text(TextOptions),
}

impl DataOptions {
    /// Makes relative paths, which belong to a run file in `folder`, absolute: a copy of the options elsewhere then
    /// names the same data.
    ///
    /// # Errors
    ///
    /// When the working folder, to which a relative `folder` belongs, is not known.
    pub fn make_absolute(&mut self, folder: &Path) -> std::io::Result<()> {
        let path = match self {
            Self::Csv(options) => &mut options.path,
            Self::Text(options) => &mut options.path,
        };
        *path = std::path::absolute(folder.join(&*path))?;
        Ok(())
    }
}

/// A CSV file: one sample a line, its features and its class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvOptions {
    /// The file, relative to the run file; plain or compressed with gzip.
    pub path: PathBuf,
    /// Whether the first line names the columns.
    #[serde(default)]
    pub header: bool,
    /// The column of the class: its index, counted from 0, or its name when there is a header. The other columns are
    /// the features, in their order.
    pub target: Column,
    /// The shape of one sample, such as `[channels, height, width]`; a vector of all features where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u32>>,
    /// The number of classes; the target column holds `0` to `classes - 1`.
    pub classes: usize,
    /// How features are normalised, fitted on the training split.
    #[serde(default)]
    pub normalise: Normalise,
    /// What is held out, by name; what remains is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, SplitOptions>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a column's index or its name")]
pub enum Column {
    /// Counted from 0.
    Index(usize),
    /// By the header.
    Name(String),
}

impl std::fmt::Display for Column {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Column::Index(index) => write!(formatter, "{index}"),
            Column::Name(name) => formatter.write_str(name),
        }
    }
}

/// A split that is held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitOptions {
    /// The share of the samples, between 0 and 1.
    pub fraction: f64,
    /// Whether every class gives the same share.
    #[serde(default = "yes")]
    pub stratified: bool,
}

fn yes() -> bool {
    true
}
