//! Inputs that keep their own dtypes: those beside the samples' numbers, such as masks, and samples of whole numbers. They
//! are neither normalized nor augmented, and stay where their files are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dataset::{batch_shape, row_length};
use super::rows::TypedRows;
use super::{Batch, DataError, Dataset, SampleType, Targets};

/// An input of a batch beside its samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherInput {
    /// Its name in a batch.
    pub name: String,
    /// The shape of one sample of it.
    pub shape: Vec<i64>,
    /// Its dtype.
    pub dtype: SampleType,
}

/// The inputs of their own dtypes of a pool.
#[derive(Clone, Default)]
pub(super) struct Typed {
    /// The samples themselves, if they keep their dtype.
    pub(super) samples: Option<Arc<dyn TypedRows>>,
    /// The inputs beside them.
    pub(super) others: Vec<TypedInput>,
}

/// An input beside the samples, and where it lies.
#[derive(Clone)]
pub(super) struct TypedInput {
    pub(super) input: OtherInput,
    /// The file, for messages.
    pub(super) path: PathBuf,
    pub(super) rows: Arc<dyn TypedRows>,
}

impl Typed {
    /// The dtype of the samples; `None` where they are numbers that are normalized.
    pub(super) fn sample_type(&self) -> Option<SampleType> {
        Some(self.samples.as_ref()?.sample_type())
    }

    /// The inputs beside the samples.
    pub(super) fn inputs(&self) -> Vec<OtherInput> {
        self.others.iter().map(|other| other.input.clone()).collect()
    }

    /// Whether the inputs of the file at `path` are those of the training data: the dtype of its samples, if they keep it, and
    /// its other inputs.
    ///
    /// # Errors
    ///
    /// The first input that is not.
    pub(super) fn check(
        &self,
        path: &Path,
        samples: Option<SampleType>,
        others: &[OtherInput],
    ) -> Result<(), DataError> {
        for (TypedInput { input, path, .. }, expected) in self.others.iter().zip(others) {
            if input != expected {
                let OtherInput { name, shape, dtype } = input;
                let problem = format!(
                    "has `{name}` of the shape {shape:?} and {}, but that of the training data has {:?} and {}",
                    dtype.name(),
                    expected.shape,
                    expected.dtype.name()
                );
                return Err(DataError::malformed(path, &problem));
            }
        }
        match samples {
            // Any numbers become f32.
            Some(expected) if self.sample_type() != samples => {
                let found = self.sample_type().unwrap_or(SampleType::F32).name();
                let problem = format!("has samples of {found}, but the training data has {}", expected.name());
                Err(DataError::malformed(path, &problem))
            }
            _ => Ok(()),
        }
    }

    /// `samples`, the samples of a pool at `indices`, with the inputs beside them.
    pub(super) fn beside(&self, samples: Arc<dyn Dataset>, indices: Vec<u32>) -> Arc<dyn Dataset> {
        match self.others.is_empty() {
            true => samples,
            false => Arc::new(WithOthers { samples, others: self.others.clone(), indices }),
        }
    }
}

/// Samples that keep their dtype.
pub(super) struct TypedDataset {
    rows: Arc<dyn TypedRows>,
    /// The rows of the data set, in its order.
    indices: Vec<u32>,
    /// In the data set's order.
    targets: Targets,
    sample_shape: Vec<i64>,
}

impl TypedDataset {
    /// The samples at `indices` of `rows`, which has samples of `sample_shape`, and their `targets` in the same order.
    pub(super) fn new(
        rows: Arc<dyn TypedRows>,
        indices: Vec<u32>,
        targets: Targets,
        sample_shape: Vec<i64>,
    ) -> TypedDataset {
        TypedDataset { rows, indices, targets, sample_shape }
    }
}

impl Dataset for TypedDataset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn sample_shape(&self) -> &[i64] {
        &self.sample_shape
    }

    fn sample_bytes(&self) -> usize {
        bytes(&self.sample_shape, self.rows.sample_type())
    }

    fn gather(&self, indices: &[u32]) -> Result<Batch, DataError> {
        let wanted = chosen(&self.indices, indices)?;
        let inputs = self.rows.gather(&wanted, &batch_shape(indices.len(), &self.sample_shape))?;
        Ok(Batch { inputs, others: Vec::new(), targets: self.targets.gather(indices)?, size: indices.len() })
    }
}

/// Samples with inputs beside them.
struct WithOthers {
    samples: Arc<dyn Dataset>,
    others: Vec<TypedInput>,
    /// The rows of the data set, in its order.
    indices: Vec<u32>,
}

impl Dataset for WithOthers {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn sample_shape(&self) -> &[i64] {
        self.samples.sample_shape()
    }

    fn sample_bytes(&self) -> usize {
        let others = self.others.iter().map(|other| bytes(&other.input.shape, other.input.dtype));
        others.fold(self.samples.sample_bytes(), usize::saturating_add)
    }

    fn are_files(&self) -> bool {
        self.samples.are_files()
    }

    fn gather(&self, indices: &[u32]) -> Result<Batch, DataError> {
        let mut batch = self.samples.gather(indices)?;
        let wanted = chosen(&self.indices, indices)?;
        for TypedInput { input, rows, .. } in &self.others {
            batch.others.push(rows.gather(&wanted, &batch_shape(wanted.len(), &input.shape))?);
        }
        Ok(batch)
    }
}

/// The rows at `indices` of a data set of the rows `all`.
fn chosen(all: &[u32], indices: &[u32]) -> Result<Vec<u32>, DataError> {
    let wanted: Option<Vec<u32>> = indices.iter().map(|index| all.get(*index as usize).copied()).collect();
    wanted.ok_or_else(|| DataError::out_of_range(indices, all.len()))
}

/// The bytes of a sample.
fn bytes(shape: &[i64], dtype: SampleType) -> usize {
    row_length(shape).saturating_mul(dtype.kind().elt_size_in_bytes())
}
