//! `[data]` of the run file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::augment::Augment;
use super::formats::TextOptions;
use super::normalize::NormalizeOptions;

/// `[data]`: what is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum DataOptions {
    /// A table of numbers, plain or compressed with gzip.
    Csv(CsvOptions),
    /// A file of samples and one of targets as MNIST and its family are written, plain or compressed with gzip.
    Idx(FilesOptions),
    /// A NumPy array of samples and one of targets, each in a `.npy` file.
    Npy(FilesOptions),
    /// NumPy arrays of one `.npz` file.
    Npz(ArchiveOptions),
    /// Tensors of one safetensors file.
    Safetensors(ArchiveOptions),
    /// PNG and JPEG images, one folder a class.
    Images(ImagesOptions),
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
        let paths: Vec<&mut PathBuf> = match self {
            Self::Csv(options) => with_splits(&mut options.path, &mut options.splits),
            Self::Npz(options) | Self::Safetensors(options) => with_splits(&mut options.path, &mut options.splits),
            Self::Images(options) => with_splits(&mut options.path, &mut options.splits),
            Self::Idx(options) | Self::Npy(options) => {
                let splits = options.splits.values_mut();
                let given = splits.flat_map(|split| split.inputs.iter_mut().chain(&mut split.targets));
                [&mut options.inputs, &mut options.targets].into_iter().chain(given).collect()
            }
            Self::Text(options) => vec![&mut options.path],
        };
        for path in paths {
            *path = std::path::absolute(folder.join(&*path))?;
        }
        Ok(())
    }
}

fn with_splits<'a>(path: &'a mut PathBuf, splits: &'a mut BTreeMap<String, SplitOptions>) -> Vec<&'a mut PathBuf> {
    std::iter::once(path).chain(splits.values_mut().filter_map(|split| split.path.as_mut())).collect()
}

/// A CSV file: one sample a line, its features and its target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvOptions {
    /// The file, relative to the run file; plain or compressed with gzip.
    pub path: PathBuf,
    /// Whether the first line names the columns.
    #[serde(default)]
    pub header: bool,
    /// What is predicted: a column, by its index, counted from 0, or by its name when there is a header. Several
    /// columns for a regression of several numbers.
    pub target: Columns,
    /// The columns of the features, in this order; all but the targets where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<Column>>,
    /// The shape of one sample, such as `[channels, height, width]`; a vector of all features where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u32>>,
    /// Whether the target is a class or numbers.
    #[serde(default)]
    pub task: Task,
    /// How many classes there are, numbered from 0, or what they are called, in their order. Where not given: as many
    /// as the largest number says or, where they are not numbers, the names in alphabetical order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassOptions>,
    /// How features are normalized, fitted on the training split.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// What is done to images of the training split, in this order, anew in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
    /// What is held out or lies in files of its own, by name; what remains of `path` is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, SplitOptions>,
}

/// Samples and targets in a file each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesOptions {
    /// The samples, one behind the other along the first dimension; relative to the run file.
    pub inputs: PathBuf,
    /// The targets, in the samples' order.
    pub targets: PathBuf,
    /// The shape of one sample; as the array has it where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u32>>,
    /// Whether the targets are classes or numbers; where not given, whole numbers are classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// How many classes there are, or what they are called, in their order; as many as the largest target says where
    /// not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassOptions>,
    /// How samples are normalized, fitted on the training split.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// What is done to images of the training split, in this order, anew in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
    /// What is held out or lies in files of its own, by name; what remains of the files above is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, FilesSplitOptions>,
}

/// Samples and targets as two arrays of one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveOptions {
    /// The file, relative to the run file.
    pub path: PathBuf,
    /// The name of the samples in it, one behind the other along the first dimension.
    pub inputs: String,
    /// The name of the targets in it, in the samples' order.
    pub targets: String,
    /// The shape of one sample; as the array has it where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u32>>,
    /// Whether the targets are classes or numbers; where not given, whole numbers are classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// How many classes there are, or what they are called, in their order; as many as the largest target says where
    /// not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassOptions>,
    /// How samples are normalized, fitted on the training split.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// What is done to images of the training split, in this order, anew in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
    /// What is held out or lies in files of its own, by name; what remains of `path` is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, SplitOptions>,
}

/// A folder of images: each folder in it is a class, called by its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagesOptions {
    /// The folder, relative to the run file.
    pub path: PathBuf,
    /// What a pixel is made of; every image is converted to it.
    #[serde(default)]
    pub color: Color,
    /// Height and width that every image is resized to. Where not given, all images have one size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<[u32; 2]>,
    /// How channels are normalized, fitted on the training split. Without it a channel goes from 0 to 255.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// What is done to images of the training split, in this order, anew in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
    /// What is held out or lies in folders of its own, by name; what remains of `path` is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, SplitOptions>,
}

/// What a pixel is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Color {
    /// Three channels: red, green, blue.
    #[default]
    Rgb,
    /// One channel.
    Gray,
}

/// What is predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One of some classes.
    #[default]
    Classification,
    /// Numbers.
    Regression,
}

/// The classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected the number of classes or their names")]
pub enum ClassOptions {
    /// So many, numbered from 0.
    Count(usize),
    /// Those of these names.
    Names(Vec<String>),
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

/// One column or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a column's index or its name, or a list of them")]
pub enum Columns {
    /// One.
    One(Column),
    /// Several.
    Several(Vec<Column>),
}

impl Columns {
    /// All of them.
    pub fn as_slice(&self) -> &[Column] {
        match self {
            Columns::One(column) => std::slice::from_ref(column),
            Columns::Several(columns) => columns,
        }
    }
}

/// A split that is held out, by `fraction`, or that lies in a file or folder of its own, by `path`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitOptions {
    /// The share of the samples, between 0 and 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// Whether every class gives the same share to a fraction, and every class must occur.
    #[serde(default = "yes")]
    pub stratified: bool,
    /// Where the split lies, relative to the run file; it is written as the training data is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// A split that is held out, by `fraction`, or that lies in files of its own, by `inputs` and `targets`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesSplitOptions {
    /// The share of the samples, between 0 and 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// Whether every class gives the same share to a fraction, and every class must occur.
    #[serde(default = "yes")]
    pub stratified: bool,
    /// Its samples, relative to the run file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<PathBuf>,
    /// Its targets, relative to the run file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<PathBuf>,
}

fn yes() -> bool {
    true
}
