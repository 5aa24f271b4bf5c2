//! The values of every name, in the order in which they came.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Exact, Position};
use crate::report::{Report, did_you_mean};

/// A name of a [`History`], so that a value is put without looking its name up. Of use only with the history that gave
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesId(usize);

/// A number with the point of the training that it is of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When.
    pub position: Position,
    /// The value; NaN and the infinities are values like others.
    pub value: f64,
}

/// An array with the point of the training that it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// When.
    pub position: Position,
    /// Its shape; the product is the number of values.
    pub shape: Vec<usize>,
    /// The values, row by row.
    pub values: Vec<f32>,
}

/// Why a history does not hold what was asked for, or does not take what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// There is no value of this name.
    #[error("there is no metric `{name}`")]
    UnknownName {
        /// The name that was asked for.
        name: String,
        /// The nearest names, as a question.
        hint: Option<String>,
    },
    /// The name is one of arrays and a number was asked for or given, or the other way round.
    #[error("`{name}` holds {holds}")]
    OtherKind {
        /// The name.
        name: String,
        /// What it holds: `numbers` or `arrays`.
        holds: &'static str,
    },
    /// An array's values are not as many as its shape says.
    #[error("`{name}` has the shape {shape:?} but {values} values")]
    ShapeMismatch {
        /// The name.
        name: String,
        /// The shape that was given.
        shape: Vec<usize>,
        /// The number of values that was given.
        values: usize,
    },
}

impl RecordError {
    pub(super) fn unknown<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> RecordError {
        RecordError::UnknownName { name: name.to_owned(), hint: did_you_mean(name, names) }
    }
}

impl Report for RecordError {
    fn hint(&self) -> Option<String> {
        match self {
            RecordError::UnknownName { hint, .. } => hint.clone(),
            RecordError::OtherKind { .. } | RecordError::ShapeMismatch { .. } => None,
        }
    }
}

/// Append-only series of numbers and arrays by name.
///
/// Every entry has a sequence number, the same count for all names: the history *as of* `n` are the entries whose
/// numbers are below `n`. Entries that share a position share its storage, so that a number costs twenty bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "StoredHistory", into = "StoredHistory")]
pub struct History {
    ids: HashMap<String, SeriesId>,
    /// By [`SeriesId`], in the order in which the names came.
    series: Vec<Series>,
    positions: Vec<Position>,
    /// The number that the next entry gets.
    next: u64,
}

#[derive(Clone, Debug)]
struct Series {
    name: String,
    /// Ascending.
    sequence: Vec<u64>,
    /// Indices into the history's positions.
    positions: Vec<usize>,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    /// None has come yet.
    Unused,
    Numbers(Vec<f64>),
    Arrays(Vec<(Vec<usize>, Vec<f32>)>),
}
