//! Other data than a run's own: read as the run's was, with what was learned from that (normalization, classes, categories, what
//! replaces missing values), which the description in a checkpoint has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dataset::{IndexDataset, StoredDataset};
use super::formats::{self, Pool};
use super::options::{ClassOptions, CsvOptions, DataOptions, Task};
use super::typed::TypedDataset;
use super::{Data, DataDescription, DataError, Dataset, INPUTS, Samples, Target, TargetDescription};

/// The name of the one split of other data.
pub const OTHER: &str = "data";

/// Whether other data needs targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It has to have one for each sample.
    Required,
    /// It may lack them.
    IfPresent,
}

/// Other data: one split, [`OTHER`].
#[derive(Debug)]
pub struct OtherData {
    /// The data; without targets, those of its batches mean nothing.
    pub data: Data,
    /// Whether it has targets. A sample without one, among others that have one, has the class -1 or NaN.
    pub has_targets: bool,
    /// Where each sample comes from.
    pub sources: Sources,
}

/// Where samples come from.
#[derive(Clone, Debug)]
pub enum Sources {
    /// All from one file, in its order.
    File(PathBuf),
    /// Each from a line of a file, counted from 1.
    Lines {
        /// The file.
        path: PathBuf,
        /// The line of each sample.
        lines: Vec<u64>,
    },
    /// Each is a file.
    Files(Arc<[PathBuf]>),
}

impl Sources {
    /// Where the sample at `index` comes from: `table.csv:17`, `photos/1.png`.
    pub fn of(&self, index: usize) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Lines { path, lines } => match lines.get(index) {
                Some(line) => format!("{}:{line}", path.display()),
                None => path.display().to_string(),
            },
            Self::Files(paths) => paths.get(index).map_or_else(String::new, |path| path.display().to_string()),
        }
    }

    /// The file of the sample at `index`, if it is one of its own.
    pub fn file(&self, index: usize) -> Option<&Path> {
        match self {
            Self::Files(paths) => paths.get(index).map(PathBuf::as_path),
            _ => None,
        }
    }
}

/// The samples of other data, before they are normalized.
pub(super) struct OtherPool {
    pub(super) pool: Pool,
    pub(super) has_targets: bool,
    pub(super) sources: Sources,
    pub(super) notes: Vec<String>,
}

/// What a format reads other data with.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) description: &'a DataDescription,
    pub(super) path: &'a Path,
    pub(super) wanted: Wanted,
}

impl Known<'_> {
    /// The error of data that has no targets and needs them.
    pub(super) fn no_targets(&self, problem: &str) -> DataError {
        DataError::Malformed {
            path: self.path.to_owned(),
            problem: problem.to_owned(),
            hint: Some("`host predict` needs no targets"),
        }
    }

    /// Whether classes or numbers are predicted.
    pub(super) fn task(&self) -> Task {
        match self.description.target {
            TargetDescription::Classes { .. } => Task::Classification,
            TargetDescription::Values { .. } => Task::Regression,
        }
    }

    /// The classes of the description, as options give them.
    pub(super) fn classes(&self) -> Option<ClassOptions> {
        match &self.description.target {
            TargetDescription::Classes { count, names, .. } if names.is_empty() => {
                Some(ClassOptions::Count(usize::try_from(*count).unwrap_or(usize::MAX)))
            }
            TargetDescription::Classes { names, .. } => Some(ClassOptions::Names(names.clone())),
            TargetDescription::Values { .. } => None,
        }
    }
}

impl OtherData {
    /// Reads `path`, which has the format of `options`, as the data that `description` describes was read. Of two files,
    /// `path` is the folder with both under the names that the options have, or the file of the samples alone.
    ///
    /// # Errors
    ///
    /// Data that is not of this kind: another shape, a column that is missing, a class that is not known, no targets where
    /// they are wanted, no samples.
    pub fn read(
        options: &DataOptions,
        description: &DataDescription,
        path: &Path,
        wanted: Wanted,
    ) -> Result<OtherData, DataError> {
        let known = Known { description, path, wanted };
        let other = match options {
            DataOptions::Csv(options) => formats::csv_like(&with_classes(options, &known), known)?,
            DataOptions::Images(options) => formats::images_like(options, known)?,
            DataOptions::Idx(options) => formats::idx_like(options, known)?,
            DataOptions::Npy(options) => formats::npy_like(options, known)?,
            DataOptions::Npz(options) => formats::npz_like(options, known)?,
            DataOptions::Safetensors(options) => formats::safetensors_like(options, known)?,
            DataOptions::Text(options) => {
                let dataset = formats::text_like(options, known)?;
                let data = data(description, BTreeMap::from([(OTHER.to_owned(), dataset)]), Vec::new());
                return Ok(OtherData { data, has_targets: true, sources: Sources::File(path.to_owned()) });
            }
        };
        let OtherPool { pool, has_targets, sources, notes } = other;
        if pool.sample_shape != description.sample_shape {
            return Err(DataError::OtherShape {
                path: pool.path,
                found: pool.sample_shape,
                expected: description.sample_shape.clone(),
            });
        }
        let Pool { path, rows, sample_shape, targets, typed } = pool;
        typed.check(&path, description.sample_type, &description.others)?;
        let indices: Vec<u32> = (0..).take(targets.len()).collect();
        let dataset: Arc<dyn Dataset> = match &typed.samples {
            Some(rows) if description.sample_type.is_some() => {
                Arc::new(TypedDataset::new(Arc::clone(rows), indices.clone(), targets, sample_shape))
            }
            _ => {
                let normalization = description.normalization.clone();
                Arc::new(StoredDataset::new(rows, indices.clone(), targets, sample_shape, normalization))
            }
        };
        let dataset = match description.samples.vocabulary() {
            Some(_) => Arc::new(IndexDataset(dataset)),
            None => dataset,
        };
        let dataset = typed.beside(dataset, indices);
        let data = data(description, BTreeMap::from([(OTHER.to_owned(), dataset)]), notes);
        Ok(OtherData { data, has_targets, sources })
    }
}

impl Data {
    /// What `description` says of data, without any sample.
    pub fn described(description: &DataDescription) -> Data {
        data(description, BTreeMap::new(), Vec::new())
    }
}

fn data(description: &DataDescription, splits: BTreeMap<String, Arc<dyn Dataset>>, notes: Vec<String>) -> Data {
    let tokens = matches!(description.samples, Samples::Characters { .. } | Samples::Bytes);
    let target = match &description.target {
        TargetDescription::Classes { count, names, shape } => Target::Classes {
            count: usize::try_from(*count).unwrap_or(usize::MAX),
            names: names.clone(),
            // The next token at each position.
            shape: if tokens { description.sample_shape.clone() } else { shape.clone() },
        },
        TargetDescription::Values { names } => Target::Values { names: names.clone(), within_unit: true },
    };
    Data {
        splits,
        target,
        positive: 1,
        samples: description.samples.clone(),
        sample_shape: description.sample_shape.clone(),
        sample_type: description.sample_type.unwrap_or_else(|| description.samples.sample_type()),
        input_name: description.input_name.clone().unwrap_or_else(|| INPUTS.to_owned()),
        others: description.others.clone(),
        normalization: description.normalization.clone(),
        augmentation: None,
        notes,
    }
}

/// The options with the classes that were found: another file may lack some. Names that were found are those of labels that
/// are numbers, too.
fn with_classes(options: &CsvOptions, known: &Known<'_>) -> CsvOptions {
    let mut options = options.clone();
    if options.classes.is_none()
        && let Some(classes) = known.classes()
    {
        if matches!(classes, ClassOptions::Names(_)) {
            options.first_class = None;
        }
        options.classes = Some(classes);
    }
    options
}
