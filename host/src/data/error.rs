//! Errors about data.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::formats::TableProblem;
use crate::torch::TorchError;

/// Data that cannot be read or does not fit its options.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// There is no split of this name.
    #[error("there is no split `{name}`; the splits are {available}")]
    UnknownSplit {
        /// The requested name.
        name: String,
        /// The splits that exist.
        available: String,
    },
    /// The file cannot be opened, read or decompressed.
    #[error("failed to read `{path}`: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is empty.
    #[error("`{path}` has no samples", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A table cannot be read.
    #[error("`{path}` {problem}", path = path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Box<TableProblem>,
    },
    /// A feature that is missing in all rows of the training split.
    #[error("`{path}`: no sample of `train` has the feature {feature}", path = path.display())]
    NothingToFill {
        /// The file.
        path: PathBuf,
        /// The feature, as messages name it.
        feature: String,
    },
    /// A file does not have its format.
    #[error("`{path}` {problem}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// The hint, if there is one.
        hint: Option<&'static str>,
    },
    /// A sample or its target is not a number, or not a class.
    #[error("`{path}` sample {sample} {problem}", path = path.display())]
    Sample {
        /// The file.
        path: PathBuf,
        /// The sample, counted from 0.
        sample: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A normalized number is too large for f32.
    #[error(
        "`data.normalize` makes the number at position {position} of sample {sample} too large for f32, which the model takes"
    )]
    Overflow {
        /// The sample, counted from 0.
        sample: usize,
        /// The position in the sample, counted from 0.
        position: usize,
    },
    /// The samples of a split and of the training data have different shapes.
    #[error("`{path}` has samples of shape {found:?}, but the training data has shape {expected:?}", path = path.display())]
    OtherShape {
        /// The file of the split.
        path: PathBuf,
        /// Its samples' shape.
        found: Vec<i64>,
        /// The training data's.
        expected: Vec<i64>,
    },
    /// A number is not the number of a class.
    #[error("`{path}` sample {sample} has the target `{label}`, but the classes are {first} to {last}", path = path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// The sample, counted from 0.
        sample: usize,
        /// The number.
        label: i64,
        /// The first class.
        first: i64,
        /// The last class.
        last: i64,
        /// The smallest and the largest number in the data.
        range: [i64; 2],
    },
    /// The training split has no sample of a class, which the options do not name.
    #[error("split `train` has no sample of {}", classes(.class, *.others))]
    UntrainedClass {
        /// The first such class, by its name or number.
        class: String,
        /// How many others there are.
        others: usize,
    },
    /// A split with its own files has no sample of a class.
    #[error("split `{split}`, `{path}`, has no sample of class {class}", path = path.display())]
    MissingClass {
        /// The split.
        split: String,
        /// Its file.
        path: PathBuf,
        /// The class, by its name or number.
        class: String,
    },
    /// An option of `[data]` is out of range.
    #[error("`{option}` = `{value}` must be {expected}")]
    Option {
        /// The option's key in the run file.
        option: String,
        /// Its value.
        value: String,
        /// The values that it may have.
        expected: &'static str,
    },
    /// A split has no samples, or none of a class.
    #[error("split `{split}` has {what} ({available} in the data)")]
    TooFewSamples {
        /// The split.
        split: String,
        /// What is missing.
        what: String,
        /// The samples in the data, of the class or in all.
        available: usize,
    },
    /// A part of a text is shorter than a sample and the token after it.
    #[error("split `{split}` of the text has {available} tokens, too few for a context of {context}")]
    ShortText {
        /// The split.
        split: String,
        /// Its tokens.
        available: usize,
        /// The tokens of a sample.
        context: usize,
    },
    /// A text of characters is not UTF-8.
    #[error("`{path}` is not UTF-8 from byte {offset} on", path = path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first byte that is not UTF-8, counted from 0.
        offset: usize,
    },
    /// More samples than an index can count.
    #[error("the data has more than {limit} samples")]
    TooManySamples {
        /// The limit.
        limit: usize,
    },
    /// The requested sample does not exist.
    #[error("sample {index} was requested, but the data set has {length}")]
    OutOfRange {
        /// The index.
        index: u32,
        /// The number of samples.
        length: usize,
    },
    /// The thread that gathers batches panicked.
    #[error("gathering batches panicked: {message}")]
    WorkerPanicked {
        /// The panic's message.
        message: String,
    },
    /// The thread that gathers batches could not be started.
    #[error("failed to start the thread that gathers batches: {source}")]
    WorkerNotStarted {
        /// The system's error.
        source: std::io::Error,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

fn classes(class: &str, others: usize) -> String {
    match others {
        0 => format!("class {class}"),
        1 => format!("class {class}, nor of another one"),
        others => format!("class {class}, nor of {others} others"),
    }
}

impl DataError {
    /// A file that does not have its format.
    pub(super) fn malformed(path: &Path, problem: &str) -> DataError {
        DataError::Malformed { path: path.to_owned(), problem: problem.to_owned(), hint: None }
    }

    /// A table that cannot be read.
    pub(super) fn table(path: &Path, problem: TableProblem) -> DataError {
        DataError::Table { path: path.to_owned(), problem: Box::new(problem) }
    }

    /// For requested samples, at least one of which does not exist.
    pub(super) fn out_of_range(indices: &[u32], length: usize) -> DataError {
        DataError::OutOfRange { index: indices.iter().copied().max().unwrap_or(0), length }
    }

    /// The file with the error, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            DataError::Read { path, .. }
            | DataError::Empty { path }
            | DataError::Table { path, .. }
            | DataError::NothingToFill { path, .. }
            | DataError::NotUtf8 { path, .. }
            | DataError::Malformed { path, .. }
            | DataError::Sample { path, .. }
            | DataError::Label { path, .. }
            | DataError::OtherShape { path, .. }
            | DataError::MissingClass { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The key of the run file with the error, such as `data.splits.val.fraction`, if there is one.
    pub fn option(&self) -> Option<&str> {
        match self {
            DataError::Option { option, .. } => Some(option),
            DataError::Overflow { .. } => Some("data.normalize"),
            _ => None,
        }
    }

    /// The hint, if there is one.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            DataError::Table { problem, .. } => return problem.hint().map(Cow::Owned),
            DataError::Malformed { hint, .. } => return hint.map(Cow::Borrowed),
            DataError::NothingToFill { .. } => "leave the column out with `drop`, or set `missing = \"zero\"`",
            DataError::Label { first, last, range: [smallest, largest], .. } => {
                if smallest != first && largest - smallest <= last - first {
                    return Some(Cow::Owned(format!(
                        "set `first_class = {smallest}` in `[data]`, since the targets are {smallest} to {largest}"
                    )));
                }
                "correct the target, or `classes` and `first_class` in `[data]`"
            }
            DataError::UntrainedClass { .. } => {
                "if the numbers of the classes do not begin at 0, set `first_class` to the first one; if some classes \
                 have no samples, set `classes` to the number of all, or to their names"
            }
            DataError::MissingClass { .. } => {
                "metrics over classes ignore absent classes: if that is acceptable, set `stratified = false` for the split"
            }
            DataError::TooFewSamples { .. } => {
                "change the split's `fraction`, set `stratified = false`, or check `classes`"
            }
            DataError::ShortText { .. } => "make `context` or the other splits smaller",
            DataError::Overflow { .. } => "make `scale` larger, or let `standard` or `range` fit the normalization",
            DataError::NotUtf8 { .. } => "`tokens = \"bytes\"` takes any file",
            _ => return None,
        };
        Some(Cow::Borrowed(hint))
    }
}
