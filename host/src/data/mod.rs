//! Data: where it is read from, how it is split and normalised, and the batches that training takes.
//!
//! [`Data::load`] makes named splits, each a [`Dataset`]; a [`Loader`] gathers a split's batches on a thread of its
//! own. To add a format: a variant of [`DataOptions`] and a module that turns its files into a `Table`, or into a
//! [`Dataset`] of its own where the data does not fit into memory.

mod csv;
mod dataset;
mod error;
mod loader;
mod normalise;
mod options;
mod order;
mod split;

use std::{collections::BTreeMap, path::Path, sync::Arc};

pub use dataset::{Batch, Dataset, MemoryDataset};
pub use error::DataError;
pub use loader::{LoadedBatch, Loader, LoaderOptions};
pub use normalise::{Normalisation, Normalise};
pub use options::{Column, CsvOptions, DataOptions, SplitOptions};
pub use order::{Order, epoch_order};
use split::split;

/// The split that is trained on: what the named splits leave.
pub const TRAIN: &str = "train";

/// Where the bytes of a data file come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The options' path, relative to this folder.
    Folder(&'a Path),
    /// These bytes, in place of the file that the options name: data that is built into the program.
    Bytes(&'a [u8]),
}

/// The data of a run: its splits, and what a model and an exporter need to know of them.
#[derive(Clone)]
pub struct Data {
    /// `train` and the splits that the run file names.
    pub splits: BTreeMap<String, Arc<dyn Dataset>>,
    /// The number of classes; targets are `0..classes`.
    pub classes: usize,
    /// The shape of one sample.
    pub sample_shape: Vec<i64>,
    /// What was done to every sample, fitted on the training split.
    pub normalisation: Normalisation,
}

impl Data {
    /// Reads, checks, splits and normalises. The split is a function of the data, the options and `seed`.
    pub fn load(options: &DataOptions, source: Source<'_>, seed: u64) -> Result<Data, DataError> {
        let DataOptions::Csv(options) = options;
        let mut table = csv::read(options, source)?;
        let indices = split(&table.targets, options.classes, &options.splits, seed)?;
        let train = indices.get(TRAIN).map(Vec::as_slice).unwrap_or_default();
        let normalisation = Normalisation::fit(options.normalise, &table, train);
        normalisation.apply(&mut table.features, &table.sample_shape);
        let splits = indices
            .into_iter()
            .map(|(name, indices)| {
                let dataset: Arc<dyn Dataset> = Arc::new(table.select(&indices));
                (name, dataset)
            })
            .collect();
        Ok(Data { splits, classes: options.classes, sample_shape: table.sample_shape, normalisation })
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lengths: BTreeMap<_, _> = self.splits.iter().map(|(name, data)| (name, data.len())).collect();
        formatter
            .debug_struct("Data")
            .field("splits", &lengths)
            .field("classes", &self.classes)
            .field("sample_shape", &self.sample_shape)
            .field("normalisation", &self.normalisation)
            .finish()
    }
}

/// Samples of one shape in rows, and their classes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    features: Vec<f32>,
    targets: Vec<i64>,
    sample_shape: Vec<i64>,
    row_length: usize,
}

impl Table {
    fn select(&self, indices: &[u32]) -> MemoryDataset {
        let mut features = Vec::with_capacity(indices.len() * self.row_length);
        let mut targets = Vec::with_capacity(indices.len());
        for index in indices {
            let index = *index as usize;
            features.extend_from_slice(&self.features[index * self.row_length..][..self.row_length]);
            targets.push(self.targets[index]);
        }
        MemoryDataset::new(features, targets, self.sample_shape.clone())
    }
}
