//! The key `init_from` of the run file.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The weights to start from: the path of a file, or a table that also says how its names become the model's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a path, or a table with a `path`")]
pub enum InitFrom {
    /// The path of a file, whose names are the model's.
    Path(PathBuf),
    /// The same, with how its names become the model's.
    Table(InitFromTable),
}

/// The weights to start from, and how their names become the model's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InitFromTable {
    /// A file of safetensors, of `torch.save` or of `numpy.savez`; the index of shards, `model.safetensors.index.json`;
    /// a folder with one of them; or a checkpoint of the host. Relative to the run file.
    pub path: PathBuf,
    /// What the names of the file begin with, such as `module.` or `backbone.`; it is cut off. Tensors whose names
    /// begin otherwise are left aside.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Regular expressions, and what takes the place of what they find in the names of the file, in this order, after
    /// `prefix`: `{ "^backbone\\." = "", "(\\d+)$" = "layer${1}" }`.
    #[serde(default, with = "renames", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub rename: Vec<(String, String)>,
    /// Tensors of the model that keep their initial values: patterns of their names, in which `*` stands for any text,
    /// such as `fc.*`. Only these may have another shape in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<String>,
    /// Whether each tensor of the model that is not skipped must be in the file, and each one of the file in the model.
    #[serde(default)]
    pub strict: bool,
}

impl InitFrom {
    /// The path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Table(table) => &table.path,
        }
    }

    /// The path, to change it.
    pub(crate) fn path_mut(&mut self) -> &mut PathBuf {
        match self {
            Self::Path(path) => path,
            Self::Table(table) => &mut table.path,
        }
    }

    /// The table, which a path alone is short for.
    pub(super) fn table(&self) -> InitFromTable {
        match self {
            Self::Path(path) => InitFromTable { path: path.clone(), ..InitFromTable::default() },
            Self::Table(table) => table.clone(),
        }
    }
}

/// A table of texts, whose order counts.
mod renames {
    use serde::Deserializer;

    pub use crate::config::pairs::serialize;

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
        crate::config::pairs::deserialize(deserializer, "a table of regular expressions, each with a text")
    }
}
