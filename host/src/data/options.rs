//! `[data]` of the run file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::augment::Augment;
use super::normalize::NormalizeOptions;
use super::{DataError, INPUTS, TARGETS};
use crate::config::{Delimiter, Encoding};

/// `[data]`: the training data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum DataOptions {
    /// A table of numbers, plain or compressed with gzip.
    Csv(CsvOptions),
    /// A file of samples and one of targets in the format of MNIST and its family, plain or compressed with gzip.
    Idx(FilesOptions),
    /// A NumPy array of samples and one of targets, each in a `.npy` file.
    Npy(FilesOptions),
    /// NumPy arrays of one `.npz` file.
    Npz(ArchiveOptions),
    /// Tensors of one safetensors file.
    Safetensors(ArchiveOptions),
    /// Images, one folder for each class: PNG, JPEG, WebP, BMP, TIFF, and the first frame of GIF.
    Images(ImagesOptions),
    /// A text whose next token is predicted.
    Text(TextOptions),
}

impl DataOptions {
    /// Makes relative paths absolute, as seen from the `folder` of the run file: a copy of the options in another
    /// folder then names the same data.
    ///
    /// # Errors
    ///
    /// When `folder` is relative and the working folder is not known.
    pub fn make_absolute(&mut self, folder: &Path) -> std::io::Result<()> {
        for path in self.paths() {
            *path = std::path::absolute(folder.join(&*path))?;
        }
        Ok(())
    }

    /// Makes all paths empty: what remains is how the data is read, wherever it lies.
    pub fn forget_paths(&mut self) {
        self.paths().into_iter().for_each(|path| *path = PathBuf::new());
    }

    /// The class of two that metrics are about, if it is given.
    pub(super) fn positive(&self) -> Option<&ClassName> {
        match self {
            Self::Csv(options) => options.positive.as_ref(),
            Self::Idx(options) | Self::Npy(options) => options.positive.as_ref(),
            Self::Npz(options) | Self::Safetensors(options) => options.positive.as_ref(),
            Self::Images(options) => options.positive.as_ref(),
            Self::Text(_) => None,
        }
    }

    /// Whether the samples of `train` are shuffled in each epoch.
    pub fn shuffle(&self) -> bool {
        match self {
            Self::Csv(options) => options.shuffle,
            Self::Idx(options) | Self::Npy(options) => options.shuffle,
            Self::Npz(options) | Self::Safetensors(options) => options.shuffle,
            Self::Images(options) => options.shuffle,
            Self::Text(options) => options.shuffle,
        }
    }

    /// Whether an epoch ends without a last batch that is smaller than the others.
    pub fn drop_last(&self) -> bool {
        match self {
            Self::Csv(options) => options.drop_last,
            Self::Idx(options) | Self::Npy(options) => options.drop_last,
            Self::Npz(options) | Self::Safetensors(options) => options.drop_last,
            Self::Images(options) => options.drop_last,
            Self::Text(options) => options.drop_last,
        }
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Csv(options) => with_splits(&mut options.path, &mut options.splits),
            Self::Npz(options) | Self::Safetensors(options) => with_splits(&mut options.path, &mut options.splits),
            Self::Images(options) => with_splits(&mut options.path, &mut options.splits),
            Self::Idx(options) | Self::Npy(options) => {
                let splits = options.splits.values_mut();
                let given = splits.flat_map(|split| split.inputs.iter_mut().chain(&mut split.targets));
                [&mut options.inputs, &mut options.targets].into_iter().chain(given).collect()
            }
            Self::Text(options) => vec![&mut options.path],
        }
    }
}

fn with_splits<'a>(path: &'a mut PathBuf, splits: &'a mut BTreeMap<String, SplitOptions>) -> Vec<&'a mut PathBuf> {
    std::iter::once(path).chain(splits.values_mut().filter_map(|split| split.path.as_mut())).collect()
}

/// A CSV file: one sample per line, its features and its target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvOptions {
    /// The file, relative to the run file; plain or compressed with gzip.
    pub path: PathBuf,
    /// Whether the first line names the columns. The files of other splits then have a header, too, and their columns
    /// are found by its names, in any order.
    #[serde(default)]
    pub header: bool,
    /// What is predicted: a column, by its index counted from 0, or by its name if there is a header. Several columns
    /// for a regression of several numbers.
    pub target: Columns,
    /// The columns of the features, in this order; all but the targets and those of `drop` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<Column>>,
    /// The columns that are left out, such as numbers of rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<Column>,
    /// The features that are texts. Their categories are those of `path`, in alphabetical order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categorical: Vec<Column>,
    /// How the samples contain categories.
    #[serde(default)]
    pub categorical_as: CategoricalAs,
    /// What becomes of a category that `path` lacks and the file of another split has.
    #[serde(default)]
    pub unknown_category: UnknownCategory,
    /// What becomes of missing features. Values that replace them are those of the training split.
    #[serde(default)]
    pub missing: Missing,
    /// What becomes of a row without a target.
    #[serde(default)]
    pub missing_label: MissingLabel,
    /// The texts that mean a missing value, beside a blank one; if not given, those of pandas, such as `NA`, `NaN`,
    /// `null` and `None`. A class that `classes` names is not missing, whatever it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_values: Option<Vec<String>>,
    /// The character between columns; the one of `,`, `;`, `|` and tab that fits the first lines if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<Delimiter>,
    /// The character around a text that contains delimiters or line breaks.
    #[serde(default)]
    pub quote: Quote,
    /// The character before the decimals of a number.
    #[serde(default)]
    pub decimal: Decimal,
    /// The encoding of the text.
    #[serde(default)]
    pub encoding: Encoding,
    /// The shape of one sample, such as `[channels, height, width]`; a vector of all features if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u32>>,
    /// Whether the target is a class or numbers.
    #[serde(default)]
    pub task: Task,
    /// The number of classes, or their names in order. A name matches the same text, or a number that is written in
    /// another way: `1.0` is the class `1`. If not given: the numbers from `first_class` to the largest one or, where
    /// the targets are not numbers, the names in alphabetical order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassOptions>,
    /// The number of the first class where targets are numbers; 0 if not given. With it, names in `classes` are those
    /// of the numbers that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_class: Option<i64>,
    /// The class of two that `precision`, `recall` and `f1` are about, by its name or number; the second one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive: Option<ClassName>,
    /// How features are normalized, fitted on the training split.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// Random changes to images of the training split, in this order, new in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
    /// Whether the samples of `train` come in another order in each epoch; if not, as they are stored.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Whether an epoch ends without its last batch if that one is smaller than the others.
    #[serde(default)]
    pub drop_last: bool,
    /// The splits that are held out or have their own files, by name; the rest of `path` is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, SplitOptions>,
}

/// How samples contain categories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CategoricalAs {
    /// A feature for each category, which is 1 for the row's own and 0 for the others.
    #[default]
    OneHot,
    /// A number for each category, for the layer `embedding`. All features must be categorical; the numbers of a column
    /// follow those of the one before it.
    Index,
}

/// What becomes of a category that is not in the training file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownCategory {
    /// An error.
    #[default]
    Error,
    /// All features of the column are 0.
    Zeros,
}

/// What becomes of missing features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// They are an error.
    #[default]
    Error,
    /// The mean of the column in the training split replaces them. All features of a missing category are 0.
    Mean,
    /// The median of the column in the training split replaces them. All features of a missing category are 0.
    Median,
    /// A zero replaces them, before normalization. All features of a missing category are 0.
    Zero,
    /// Rows with missing features are left out.
    Drop,
}

/// What becomes of a row without a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissingLabel {
    /// It is an error.
    #[default]
    Error,
    /// The row is left out.
    Drop,
}

/// The character around a text that contains delimiters or line breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quote {
    /// `"`.
    #[default]
    Double,
    /// `'`.
    Single,
    /// There is none.
    None,
}

/// The character before the decimals of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decimal {
    /// As in `3.14`.
    #[default]
    #[serde(rename = ".")]
    Point,
    /// As in `3,14`.
    #[serde(rename = ",")]
    Comma,
}

/// Samples and targets in two files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesOptions {
    /// The samples, one after the other along the first dimension; relative to the run file.
    pub inputs: PathBuf,
    /// The targets, in the samples' order.
    pub targets: PathBuf,
    /// The shape of one sample; the array's own if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u32>>,
    /// Whether the targets are classes or numbers; if not given, whole numbers are classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// The number of classes, or their names in order, beginning with the name of `first_class`. Those of them that
    /// have no samples are allowed. If not given: the numbers from `first_class` to the largest target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassOptions>,
    /// The number of the first class; 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_class: Option<i64>,
    /// The class of two that `precision`, `recall` and `f1` are about, by its name or number; the second one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive: Option<ClassName>,
    /// How samples are normalized, fitted on the training split.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// Random changes to images of the training split, in this order, new in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
    /// Whether the samples of `train` come in another order in each epoch; if not, as they are stored.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Whether an epoch ends without its last batch if that one is smaller than the others.
    #[serde(default)]
    pub drop_last: bool,
    /// The splits that are held out or have their own files, by name; the rest of the files above is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, FilesSplitOptions>,
}

/// Samples and targets as two arrays in one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveOptions {
    /// The file, relative to the run file.
    pub path: PathBuf,
    /// The name of the samples in it; they are stored one after the other along the first dimension. Several inputs are a
    /// table, as in `{ inputs = "ids", mask = "attention_mask" }`.
    pub inputs: ArchiveInputs,
    /// The name of the targets in it, in the samples' order.
    pub targets: String,
    /// The shape of one sample; the array's own if not given. Of several inputs, that of the one called `inputs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u32>>,
    /// Whether the targets are classes or numbers; if not given, whole numbers are classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// The number of classes, or their names in order, beginning with the name of `first_class`. Those of them that
    /// have no samples are allowed. If not given: the numbers from `first_class` to the largest target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassOptions>,
    /// The number of the first class; 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_class: Option<i64>,
    /// The class of two that `precision`, `recall` and `f1` are about, by its name or number; the second one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive: Option<ClassName>,
    /// How samples are normalized, fitted on the training split. Of several inputs, only the one called `inputs` is.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// Random changes to images of the training split, in this order, new in each epoch. Of several inputs, only the one
    /// called `inputs` is changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
    /// Whether the samples of `train` come in another order in each epoch; if not, as they are stored.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Whether an epoch ends without its last batch if that one is smaller than the others.
    #[serde(default)]
    pub drop_last: bool,
    /// The splits that are held out or have their own files, by name; the rest of `path` is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, SplitOptions>,
}

/// The samples in a file of arrays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected the name of an array, or a table of inputs, each with the name of its array")]
pub enum ArchiveInputs {
    /// One array. Whatever its numbers are, those of a batch are f32.
    One(String),
    /// The inputs of a batch, by their names, each with the name of its array: floating-point numbers become f32, whole
    /// numbers i64, and truth values stay so. `inputs` is f32 where `normalize` or `augment` computes with it.
    Named(BTreeMap<String, String>),
}

impl ArchiveInputs {
    /// The name in a batch and the array of the samples: of the input `inputs` or, if none is called so, of the first one in
    /// alphabetical order.
    ///
    /// # Errors
    ///
    /// A table without inputs, or with a name that an input cannot have.
    pub(super) fn samples(&self) -> Result<(&str, &str), DataError> {
        let table = match self {
            Self::One(array) => return Ok((INPUTS, array)),
            Self::Named(table) => table,
        };
        let wrong = |value: &str, expected| {
            Err(DataError::Option { option: "data.inputs".to_owned(), value: value.to_owned(), expected })
        };
        let is_name = |name: &str| {
            let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
            starts && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
        };
        if let Some(name) = table.keys().find(|name| !is_name(name) || [TARGETS, "outputs"].contains(&name.as_str())) {
            return wrong(name, "a name of letters, digits and `_`, other than `targets` and `outputs`");
        }
        match table.get_key_value(INPUTS).or_else(|| table.first_key_value()) {
            Some((name, array)) => Ok((name, array)),
            None => wrong("{}", "the name of an array, or a table with an entry for each input"),
        }
    }

    /// The names and arrays of the others, in alphabetical order.
    pub(super) fn others(&self) -> Vec<(&str, &str)> {
        let Self::Named(table) = self else { return Vec::new() };
        let samples = table.get_key_value(INPUTS).or_else(|| table.first_key_value()).map(|(name, _)| name);
        let others = table.iter().filter(|(name, _)| Some(*name) != samples);
        others.map(|(name, array)| (name.as_str(), array.as_str())).collect()
    }
}

impl ArchiveOptions {
    /// Whether samples that are no floating-point numbers keep their dtype, since nothing computes with them.
    ///
    /// # Errors
    ///
    /// A table without `inputs`, with an option that is about those.
    pub(super) fn keeps_dtype(&self) -> Result<bool, DataError> {
        let ArchiveInputs::Named(table) = &self.inputs else { return Ok(false) };
        let normalizes = self.normalize != NormalizeOptions::default();
        let about_inputs =
            [("normalize", normalizes), ("augment", !self.augment.is_empty()), ("shape", self.shape.is_some())];
        if let Some((key, _)) = about_inputs.iter().find(|(_, given)| *given && !table.contains_key(INPUTS)) {
            return Err(DataError::Option {
                option: format!("data.{key}"),
                value: "given".to_owned(),
                expected: "omitted: it is about the input that is called `inputs`, and none is",
            });
        }
        Ok(!normalizes && self.augment.is_empty())
    }
}

/// A folder of images: each folder in it is a class, with the folder's name. The images of a class are those in its
/// folder and in the folders within, in the order of their paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagesOptions {
    /// The folder, relative to the run file.
    pub path: PathBuf,
    /// The classes in their order: the names of their folders. Those of them that have no images are allowed, and a
    /// folder that is not among them is an error. If not given: all folders, in alphabetical order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// The channels of a pixel; every image is converted to them. An alpha channel is left out.
    #[serde(default)]
    pub color: Color,
    /// What is done with the orientation that cameras and telephones write beside the pixels (EXIF).
    #[serde(default)]
    pub orientation: Orientation,
    /// Height and width that every image is resized to. If not given, all images must have the same size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<[u32; 2]>,
    /// The class of two that `precision`, `recall` and `f1` are about, by its name or number; the second one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive: Option<ClassName>,
    /// How channels are normalized, fitted on the training split. Without it, the values of a channel are 0 to 255;
    /// images of 16 bits keep all of them, as 257ths.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// Random changes to images of the training split, in this order, new in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
    /// Whether the samples of `train` come in another order in each epoch; if not, as they are stored.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Whether an epoch ends without its last batch if that one is smaller than the others.
    #[serde(default)]
    pub drop_last: bool,
    /// The splits that are held out or have their own folders, by name; the rest of `path` is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, SplitOptions>,
}

/// The channels of a pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Color {
    /// Three channels: red, green, blue.
    #[default]
    Rgb,
    /// One channel: 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601), as Pillow and OpenCV compute it.
    Gray,
}

/// What is done with the orientation of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Orientation {
    /// The image is turned and mirrored as its file says, as people see it.
    #[default]
    Apply,
    /// The pixels stay as they are stored.
    Ignore,
}

/// What is predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One class of several.
    #[default]
    Classification,
    /// Numbers.
    Regression,
}

/// The classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected the number of classes or their names")]
pub enum ClassOptions {
    /// The number of classes, numbered from 0.
    Count(usize),
    /// Their names.
    Names(Vec<String>),
}

impl ClassOptions {
    /// Whether a class has this name.
    pub(super) fn names(&self, name: &[u8]) -> bool {
        matches!(self, ClassOptions::Names(names) if names.iter().any(|known| known.as_bytes() == name))
    }
}

/// A class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected the name or the number of a class")]
pub enum ClassName {
    /// Its number, as it is in the data.
    Number(i64),
    /// Its name.
    Name(String),
}

impl std::fmt::Display for ClassName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClassName::Number(number) => write!(formatter, "{number}"),
            ClassName::Name(name) => formatter.write_str(name),
        }
    }
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

/// A split that is held out, by `fraction`, or that has its own file or folder, by `path`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitOptions {
    /// The share of the samples, between 0 and 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// Whether a fraction takes the same share of every class, and every class must occur.
    #[serde(default = "yes")]
    pub stratified: bool,
    /// The file or folder of the split, relative to the run file, in the format of the training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// A split that is held out, by `fraction`, or that has its own files, by `inputs` and `targets`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesSplitOptions {
    /// The share of the samples, between 0 and 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// Whether a fraction takes the same share of every class, and every class must occur.
    #[serde(default = "yes")]
    pub stratified: bool,
    /// The file of its samples, relative to the run file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<PathBuf>,
    /// The file of its targets, relative to the run file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<PathBuf>,
}

fn yes() -> bool {
    true
}

/// A text file, plain or compressed with gzip; each next token is predicted from those before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextOptions {
    /// The file, relative to the run file.
    pub path: PathBuf,
    /// What a token is.
    #[serde(default)]
    pub tokens: Tokens,
    /// The number of tokens in a sample.
    #[schemars(range(min = 1))]
    pub context: u32,
    /// The distance in tokens between the starts of two samples; `context` if not given, so that they do not
    /// overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub stride: Option<u32>,
    /// Whether the samples of `train` come in another order in each epoch; if not, as they are stored.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Whether an epoch ends without its last batch if that one is smaller than the others.
    #[serde(default)]
    pub drop_last: bool,
    /// The parts held out from the end of the text, by name, the last name last; the rest before them is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, TextSplitOptions>,
}

/// What a token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tokens {
    /// A character; the tokens are the different characters of the text, in the order of their code points.
    #[default]
    Characters,
    /// A byte; there are 256 tokens.
    Bytes,
}

/// A part of a text that is held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextSplitOptions {
    /// The share of the text, between 0 and 1.
    pub fraction: f64,
}
