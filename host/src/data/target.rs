//! What is predicted.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::DataError;
use super::options::ClassName;
use crate::torch::values::gather_rows;

/// The targets of a data set: what a loss needs to know before the first batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One of `count` classes, i64 in `0..count`.
    Classes {
        /// How many there are.
        count: usize,
        /// Their names, in order; empty if they are not known.
        names: Vec<String>,
        /// The shape of one sample's targets: `[]` is one class per sample, `[length]` one for each position of a
        /// sequence.
        shape: Vec<i64>,
    },
    /// Numbers, f32 `[size, names.len()]`.
    Values {
        /// Their names, in order.
        names: Vec<String>,
        /// Whether all of them are between 0 and 1, as probabilities are.
        within_unit: bool,
    },
}

impl Target {
    /// One class per sample, without names.
    pub fn classes(count: usize) -> Target {
        Target::Classes { count, names: Vec::new(), shape: Vec::new() }
    }

    /// The index of a class of two, by its name or number.
    ///
    /// # Errors
    ///
    /// Another number of classes, or a class that is not one of them.
    pub(super) fn one_of_two(&self, class: &ClassName) -> Result<u8, DataError> {
        let wrong = |expected| {
            Err(DataError::Option { option: "data.positive".to_owned(), value: class.to_string(), expected })
        };
        let Target::Classes { count: 2, names, .. } = self else {
            return wrong("omitted unless there are two classes");
        };
        let text = class.to_string();
        match [0, 1]
            .into_iter()
            .find(|index| names.get(usize::from(*index)).map_or(index.to_string(), String::clone) == text)
        {
            Some(index) => Ok(index),
            None => wrong("the name or the number of one of the two classes"),
        }
    }

    /// A class in messages: its name, or its number.
    pub(super) fn class_name(&self, class: usize) -> String {
        match self {
            Target::Classes { names, .. } => names.get(class).map_or(class.to_string(), |name| format!("`{name}`")),
            Target::Values { .. } => class.to_string(),
        }
    }
}

/// The class of a sample without a target, where there may be such.
pub(super) const NO_CLASS: i64 = -1;

/// The dtype of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleType {
    /// Measurements and images, f32.
    F32,
    /// Tokens, indices of categories, and other whole numbers, i64.
    I64,
    /// Truth values, as in masks.
    Bool,
}

impl SampleType {
    /// The dtype of tensors.
    pub fn kind(self) -> Kind {
        match self {
            SampleType::F32 => Kind::Float,
            SampleType::I64 => Kind::Int64,
            SampleType::Bool => Kind::Bool,
        }
    }

    /// PyTorch's name.
    pub fn name(self) -> &'static str {
        match self {
            SampleType::F32 => "float32",
            SampleType::I64 => "int64",
            SampleType::Bool => "bool",
        }
    }
}

/// The targets of samples, in their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Classes: `shape` of them for each sample.
    Classes {
        /// One row after another.
        values: Vec<i64>,
        /// The shape of one sample's classes; `[]` is one class per sample.
        shape: Vec<i64>,
    },
    /// Numbers: `width` of them for each sample.
    Values {
        /// One row after another.
        values: Vec<f32>,
        /// Numbers of a sample, at least one.
        width: usize,
    },
}

impl Targets {
    /// One class per sample.
    pub fn classes(values: Vec<i64>) -> Targets {
        Targets::Classes { values, shape: Vec::new() }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        let values = match self {
            Targets::Classes { values, .. } => values.len(),
            Targets::Values { values, .. } => values.len(),
        };
        values / self.width().max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of each sample; `None` if the targets are something else.
    pub(super) fn sample_classes(&self) -> Option<&[i64]> {
        match self {
            Targets::Classes { values, shape } if shape.is_empty() => Some(values),
            _ => None,
        }
    }

    /// The targets of the samples at `indices`, which exist.
    pub(super) fn select(&self, indices: &[u32]) -> Targets {
        fn rows<T: Copy>(values: &[T], width: usize, indices: &[u32]) -> Vec<T> {
            indices.iter().flat_map(|index| &values[*index as usize * width..][..width]).copied().collect()
        }
        let width = self.width();
        match self {
            Targets::Classes { values, shape } => {
                Targets::Classes { values: rows(values, width, indices), shape: shape.clone() }
            }
            Targets::Values { values, width } => {
                Targets::Values { values: rows(values, *width, indices), width: *width }
            }
        }
    }

    /// The targets of the samples at `indices`, as a batch.
    pub(super) fn gather(&self, indices: &[u32]) -> Result<Tensor, DataError> {
        let mut size = vec![i64::try_from(indices.len()).unwrap_or(i64::MAX)];
        let gathered = match self {
            Targets::Classes { values, shape } => {
                size.extend_from_slice(shape);
                gather_rows(values, self.width(), indices, &size)?
            }
            Targets::Values { values, width } => {
                size.push(*width as i64);
                gather_rows(values, *width, indices, &size)?
            }
        };
        gathered.ok_or_else(|| DataError::out_of_range(indices, self.len()))
    }

    fn width(&self) -> usize {
        match self {
            Targets::Classes { shape, .. } => {
                shape.iter().map(|length| usize::try_from(*length).unwrap_or(0)).product()
            }
            Targets::Values { width, .. } => *width,
        }
    }
}
