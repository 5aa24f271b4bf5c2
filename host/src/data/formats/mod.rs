//! The formats of data. Each makes a [`Pool`] of every file, and [`Pools`] of them all; a text makes its splits itself.

mod array;
mod arrays;
mod csv;
mod file;
mod idx;
mod images;
mod npy;
mod safetensors;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use self::array::Element;
pub(super) use self::csv::read as csv;
pub(super) use self::csv::read_like as csv_like;
pub use self::csv::{CellProblem, ColumnPlace, LabelsProblem, TableProblem};
pub(super) use self::images::read as images;
pub(super) use self::images::read_like as images_like;
pub(crate) use self::npy::header as npy_header;
pub(super) use self::text::load as load_text;
pub(super) use self::text::load_like as text_like;
use super::fill::Gaps;
use super::options::{ArchiveOptions, FilesOptions};
use super::other::{Known, OtherPool};
use super::rows::Rows;
use super::split::HeldOut;
use super::typed::Typed;
use super::{DataError, Samples, Source, Target, Targets};

/// Samples of one file, or of one folder, and their targets.
pub(super) struct Pool {
    /// The file, for messages.
    pub(super) path: PathBuf,
    /// Of at least one sample, and at most `u32::MAX`.
    pub(super) rows: Arc<dyn Rows>,
    /// Of one sample; no length is 0.
    pub(super) sample_shape: Vec<i64>,
    /// As many as there are rows.
    pub(super) targets: Targets,
    /// Inputs of their own dtypes, as many as there are rows of each.
    pub(super) typed: Typed,
}

/// All pools of the options.
pub(super) struct Pools {
    /// The training data, and the source of splits that are held out.
    pub(super) main: Pool,
    /// Splits with their own files, and whether they may lack classes.
    pub(super) given: BTreeMap<String, (Pool, bool)>,
    /// Splits that are held out.
    pub(super) held_out: BTreeMap<String, HeldOut>,
    /// What is predicted, the same in all.
    pub(super) target: Target,
    /// What samples are made from.
    pub(super) samples: Samples,
    /// The name of the samples in a batch.
    pub(super) input_name: String,
    /// Whether the options give the classes: then some may have no samples.
    pub(super) classes_given: bool,
    /// The features that some rows may lack.
    pub(super) gaps: Option<Gaps>,
    /// What somebody should know before the training.
    pub(super) notes: Vec<String>,
}

/// Arrays of IDX files.
pub(super) fn idx(options: &FilesOptions, source: Source<'_>) -> Result<Pools, DataError> {
    arrays::read_files(options, source, idx::open)
}

/// Other arrays of IDX files.
pub(super) fn idx_like(options: &FilesOptions, known: Known<'_>) -> Result<OtherPool, DataError> {
    arrays::read_other_files(options, known, idx::open)
}

/// Other arrays of `.npy` files.
pub(super) fn npy_like(options: &FilesOptions, known: Known<'_>) -> Result<OtherPool, DataError> {
    arrays::read_other_files(options, known, npy::open)
}

/// Other arrays of `.npz` files.
pub(super) fn npz_like(options: &ArchiveOptions, known: Known<'_>) -> Result<OtherPool, DataError> {
    arrays::read_other_archive(options, known, npy::open_archive)
}

/// Other tensors of safetensors files.
pub(super) fn safetensors_like(options: &ArchiveOptions, known: Known<'_>) -> Result<OtherPool, DataError> {
    arrays::read_other_archive(options, known, safetensors::open)
}

/// Arrays of `.npy` files.
pub(super) fn npy(options: &FilesOptions, source: Source<'_>) -> Result<Pools, DataError> {
    arrays::read_files(options, source, npy::open)
}

/// Arrays of `.npz` files.
pub(super) fn npz(options: &ArchiveOptions, source: Source<'_>) -> Result<Pools, DataError> {
    arrays::read_archives(options, source, npy::open_archive)
}

/// Tensors of safetensors files.
pub(super) fn safetensors(options: &ArchiveOptions, source: Source<'_>) -> Result<Pools, DataError> {
    arrays::read_archives(options, source, safetensors::open)
}
