//! `[data]` of the run file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::augment::Augment;
use super::normalize::NormalizeOptions;

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
    /// Whether the first line names the columns.
    #[serde(default)]
    pub header: bool,
    /// What is predicted: a column, by its index counted from 0, or by its name if there is a header. Several columns
    /// for a regression of several numbers.
    pub target: Columns,
    /// The columns of the features, in this order; all but the targets if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<Column>>,
    /// The shape of one sample, such as `[channels, height, width]`; a vector of all features if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u32>>,
    /// Whether the target is a class or numbers.
    #[serde(default)]
    pub task: Task,
    /// The number of classes, numbered from 0, or their names in order. If not given: one more than the largest
    /// number or, where the targets are not numbers, the names in alphabetical order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassOptions>,
    /// How features are normalized, fitted on the training split.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// Random changes to images of the training split, in this order, new in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
    /// The splits that are held out or have their own files, by name; the rest of `path` is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, SplitOptions>,
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
    /// How samples are normalized, fitted on the training split.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// Random changes to images of the training split, in this order, new in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
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
    /// The name of the samples in it; they are stored one after the other along the first dimension.
    pub inputs: String,
    /// The name of the targets in it, in the samples' order.
    pub targets: String,
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
    /// How samples are normalized, fitted on the training split.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// Random changes to images of the training split, in this order, new in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
    /// The splits that are held out or have their own files, by name; the rest of `path` is `train`.
    #[serde(default)]
    pub splits: BTreeMap<String, SplitOptions>,
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
    /// How channels are normalized, fitted on the training split. Without it, the values of a channel are 0 to 255;
    /// images of 16 bits keep all of them, as 257ths.
    #[serde(default)]
    pub normalize: NormalizeOptions,
    /// Random changes to images of the training split, in this order, new in each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augment>,
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
