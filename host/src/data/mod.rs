//! Data: where it is read from, how it is split, normalized and augmented, and the batches for training.
//!
//! [`Data::load`] makes named splits, each a [`Dataset`]; a [`Loader`] gathers a split's batches on a thread of its
//! own. To add a format: a variant of [`DataOptions`] and a module in `formats` that makes a `Pool` of each file:
//! rows that can be read by index, and their targets.

mod assemble;
mod augment;
mod classes;
mod dataset;
mod description;
mod error;
mod fill;
mod fingerprint;
mod formats;
mod loader;
mod narrowing;
mod normalize;
mod options;
mod order;
mod other;
mod rows;
mod split;
mod target;
mod typed;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use plugin_api::protocol::DataInfo;

pub use augment::{Augment, Augmentation, Axis};
pub use dataset::{Batch, Dataset, MemoryDataset};
pub use description::{DataDescription, FeatureColumn, FeatureContent, Samples, TargetDescription};
pub use error::DataError;
pub use formats::{CellProblem, ColumnPlace, LabelsProblem, TableProblem};
pub(crate) use formats::{Element, npy_header};
pub use loader::{LoadedBatch, Loader, LoaderOptions};
pub use normalize::{GivenNormalization, Normalization, Normalize, NormalizeOptions};
pub use options::{
    ArchiveInputs, ArchiveOptions, CategoricalAs, ClassName, ClassOptions, Color, Column, Columns, CsvOptions,
    DataOptions, Decimal, FilesOptions, FilesSplitOptions, ImagesOptions, Missing, MissingLabel, Orientation, Quote,
    SplitOptions, Task, TextOptions, TextSplitOptions, Tokens, UnknownCategory,
};
pub use order::{Order, epoch_order};
pub use other::{OTHER, OtherData, Sources, Wanted};
pub use target::{SampleType, Target, Targets};
pub use typed::OtherInput;

/// The split for training: what the other splits leave.
pub const TRAIN: &str = "train";

/// The split that is evaluated once, after the training.
pub const TEST: &str = "test";

/// The name of the samples in a batch, unless the data names its inputs otherwise.
pub const INPUTS: &str = "inputs";

/// The name of the targets in a batch.
pub const TARGETS: &str = "targets";

/// The source of a data file's bytes.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The options' path, relative to this folder.
    Folder(&'a Path),
    /// These bytes, in place of the file that the options name: data that is built into the program.
    Bytes(&'a [u8]),
}

/// The data of a run: its splits, and what a model and an exporter need to know about them.
#[derive(Clone)]
pub struct Data {
    /// `train` and the splits that the run file names.
    pub splits: BTreeMap<String, Arc<dyn Dataset>>,
    /// What is predicted.
    pub target: Target,
    /// The class of two that metrics such as `f1` are about.
    pub positive: u8,
    /// What samples are made from.
    pub samples: Samples,
    /// The shape of one sample.
    pub sample_shape: Vec<i64>,
    /// The dtype of samples.
    pub sample_type: SampleType,
    /// The name of the samples in a batch, [`INPUTS`] unless the data names it otherwise.
    pub input_name: String,
    /// The inputs beside the samples, in the order of those of a [`Batch`].
    pub others: Vec<OtherInput>,
    /// The normalization of every sample, fitted on the training split.
    pub normalization: Normalization,
    /// The random changes to the samples of the training split.
    pub augmentation: Option<Arc<Augmentation>>,
    /// What somebody should know before the training, a sentence each: what was left out or changed, what f32 cannot hold.
    pub notes: Vec<String>,
}

impl Data {
    /// Reads, checks, splits and normalizes. The split is a function of the data, the options and `seed`.
    pub fn load(options: &DataOptions, source: Source<'_>, seed: u64) -> Result<Data, DataError> {
        let (pools, normalize, augment) = match options {
            DataOptions::Text(options) => return formats::load_text(options, source),
            DataOptions::Csv(options) => (formats::csv(options, source)?, &options.normalize, &options.augment),
            DataOptions::Images(options) => (formats::images(options, source)?, &options.normalize, &options.augment),
            DataOptions::Idx(options) => (formats::idx(options, source)?, &options.normalize, &options.augment),
            DataOptions::Npy(options) => (formats::npy(options, source)?, &options.normalize, &options.augment),
            DataOptions::Npz(options) => (formats::npz(options, source)?, &options.normalize, &options.augment),
            DataOptions::Safetensors(options) => {
                (formats::safetensors(options, source)?, &options.normalize, &options.augment)
            }
        };
        let data = assemble::assemble(pools, normalize, augment, seed)?;
        data.about(options)
    }

    /// With the class of two that the options say metrics are about.
    ///
    /// # Errors
    ///
    /// A class that is not one of two.
    pub fn about(self, options: &DataOptions) -> Result<Data, DataError> {
        match options.positive() {
            None => Ok(self),
            Some(class) => Ok(Data { positive: self.target.one_of_two(class)?, ..self }),
        }
    }

    /// The names of the inputs of a batch, that of the samples first.
    pub fn input_names(&self) -> Vec<String> {
        std::iter::once(&self.input_name).chain(self.others.iter().map(|other| &other.name)).cloned().collect()
    }

    /// The inputs of a batch for people: their names, dtypes, and shapes for a sample.
    pub fn inputs_text(&self) -> String {
        let samples = (&self.input_name, self.sample_type, &self.sample_shape);
        let others = self.others.iter().map(|other| (&other.name, other.dtype, &other.shape));
        let all = std::iter::once(samples).chain(others);
        let texts: Vec<String> =
            all.map(|(name, dtype, shape)| format!("`{name}` of {} {shape:?}", dtype.name())).collect();
        texts.join(", ")
    }

    /// The description for callbacks, which get numbers as f32.
    pub fn info(&self) -> DataInfo {
        let (classes, target_names) = match &self.target {
            Target::Classes { count, names, .. } => (*count as u64, names.clone()),
            Target::Values { names, .. } => (0, names.clone()),
        };
        let tokens = match &self.samples {
            Samples::Characters { tokens } => tokens.clone(),
            Samples::Numbers | Samples::Table { .. } | Samples::Images { .. } | Samples::Bytes => Vec::new(),
        };
        DataInfo {
            splits: self.splits.iter().map(|(name, split)| (name.clone(), split.len() as u64)).collect(),
            classes,
            target_names,
            offset: self.normalization.offset.iter().map(|number| *number as f32).collect(),
            scale: self.normalization.scale.iter().map(|number| *number as f32).collect(),
            tokens,
            feature_names: self.samples.number_names(),
        }
    }

    /// The split of this name.
    ///
    /// # Errors
    /// No such split.
    pub fn split(&self, name: &str) -> Result<&Arc<dyn Dataset>, DataError> {
        self.splits.get(name).ok_or_else(|| DataError::UnknownSplit {
            name: name.to_owned(),
            available: self.splits.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        })
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lengths: BTreeMap<_, _> = self.splits.iter().map(|(name, data)| (name, data.len())).collect();
        formatter
            .debug_struct("Data")
            .field("splits", &lengths)
            .field("target", &self.target)
            .field("sample_shape", &self.sample_shape)
            .field("normalization", &self.normalization)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &[u8] = include_bytes!("../../../examples/digits/digits.csv.gz");

    fn digits(normalize: &str) -> DataOptions {
        toml::from_str(&format!(
            r#"
            format = "csv"
            path = "digits.csv.gz"
            target = 64
            shape = [1, 8, 8]
            classes = 10
            normalize = "{normalize}"
            splits = {{ val = {{ fraction = 0.2 }} }}
            "#
        ))
        .unwrap()
    }

    fn all(dataset: &dyn Dataset) -> Batch {
        dataset.gather(&epoch_order(Order::Sequential, 1, dataset.len() as u32)).unwrap()
    }

    /// Checks that a batch of no samples differs from one of several only by its size.
    pub(super) fn check_empty_batches(data: &Data) {
        let described = |batch: &Batch| {
            let all = [&batch.inputs, &batch.targets].into_iter().chain(&batch.others);
            all.map(|tensor| (tensor.size()[0], tensor.size()[1..].to_vec(), tensor.kind())).collect::<Vec<_>>()
        };
        for (name, split) in &data.splits {
            let (several, none) = (all(&**split), split.gather(&[]).unwrap());
            let expected: Vec<_> = described(&several).into_iter().map(|(_, shape, kind)| (0, shape, kind)).collect();
            assert_eq!((none.size, described(&none)), (0, expected), "{name} of {data:?}");
        }
    }

    #[test]
    fn a_batch_may_have_no_samples() {
        check_empty_batches(&Data::load(&digits("standard"), Source::Bytes(DIGITS), 42).unwrap());
        let table =
            toml::from_str("format = \"csv\"\npath = \"a.csv\"\ntarget = [0, 2]\ntask = \"regression\"").unwrap();
        check_empty_batches(&Data::load(&table, Source::Bytes(b"1,2,3\n4,5,6\n7,8,10\n"), 42).unwrap());

        let folder = tempfile::tempdir().unwrap();
        for class in ["cat", "dog"] {
            std::fs::create_dir(folder.path().join(class)).unwrap();
            image::GrayImage::new(3, 2).save(folder.path().join(class).join("1.png")).unwrap();
        }
        let images = toml::from_str("format = \"images\"\npath = \".\"").unwrap();
        check_empty_batches(&Data::load(&images, Source::Folder(folder.path()), 42).unwrap());

        let npy = |descr: &str, shape: &str, values: &[u8]| {
            let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
            let length = (header.len() as u16).to_le_bytes();
            [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), values].concat()
        };
        std::fs::write(folder.path().join("x.npy"), npy("|u1", "(2, 3)", &[1, 2, 3, 4, 5, 7])).unwrap();
        std::fs::write(folder.path().join("y.npy"), npy("|u1", "(2,)", &[0, 1])).unwrap();
        let arrays = toml::from_str("format = \"npy\"\ninputs = \"x.npy\"\ntargets = \"y.npy\"").unwrap();
        check_empty_batches(&Data::load(&arrays, Source::Folder(folder.path()), 42).unwrap());
    }

    #[test]
    fn the_digits_are_split_and_normalized_on_the_training_split() {
        let data = Data::load(&digits("standard"), Source::Bytes(DIGITS), 42).unwrap();
        assert_eq!((data.target.clone(), data.sample_shape.as_slice()), (Target::classes(10), [1, 8, 8].as_slice()));
        let (train, val) = (all(&*data.splits[TRAIN]), all(&*data.splits["val"]));
        assert_eq!((train.size, val.size), (1438, 359));
        let moments = |batch: &Batch| {
            let values = batch.inputs.to_kind(tch::Kind::Double);
            (values.mean(None).double_value(&[]), values.std(false).double_value(&[]))
        };
        let (mean, deviation) = moments(&train);
        assert!(mean.abs() < 1e-6 && (deviation - 1.0).abs() < 1e-6, "{mean} {deviation}");
        assert!(moments(&val).0.abs() > 1e-6, "the held-out split is normalized by the training split");
    }

    #[test]
    fn a_seed_gives_the_same_split_from_a_file_and_from_memory() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("digits.csv.gz"), DIGITS).unwrap();
        let read = |source, seed| all(&*Data::load(&digits("none"), source, seed).unwrap().splits["val"]);
        let first = read(Source::Bytes(DIGITS), 1);
        let second = read(Source::Folder(folder.path()), 1);
        assert_eq!((&first.inputs, &first.targets), (&second.inputs, &second.targets));
        assert_ne!(first.inputs, read(Source::Bytes(DIGITS), 2).inputs);
    }

    #[test]
    fn unknown_options_are_errors_and_the_schema_forbids_them() {
        let text = "format = \"csv\"\npath = \"a\"\ntarget = 0\nclasses = 2\n";
        assert!(toml::from_str::<DataOptions>(text).is_ok());
        let error = toml::from_str::<DataOptions>(&format!("{text}headr = true")).unwrap_err();
        assert!(error.to_string().contains("headr"), "{error}");

        let schema = serde_json::to_value(schemars::schema_for!(DataOptions)).unwrap();
        let valid = |value| jsonschema::is_valid(&schema, &value);
        let with = |key: &str| serde_json::json!({"format": "csv", "path": "a", "target": 0, "classes": 2, key: true});
        assert!(valid(with("header")));
        assert!(!valid(with("headr")));
    }
}
