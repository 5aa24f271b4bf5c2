//! The values of every name, in chronological order.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::Position;
use super::stored::StoredHistory;
use crate::report::{Report, did_you_mean};

/// The id of a name of numbers in a [`History`], so that adding a value needs no lookup. It is valid only for the
/// history that returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesId(usize);

/// A number and the point of the training that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When.
    pub position: Position,
    /// The value; NaN and the infinities are values like others.
    pub value: f64,
}

/// An array and the point of the training that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// When.
    pub position: Position,
    /// Its shape; the product is the number of values.
    pub shape: Vec<usize>,
    /// The values, row by row.
    pub values: Vec<f32>,
}

/// Why a history does not have the requested values, or does not accept the given ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// There is no value of this name.
    #[error("there is no metric `{name}`")]
    UnknownName {
        /// The requested name.
        name: String,
        /// The nearest names, as a question.
        hint: Option<String>,
    },
    /// The run will give a value of this name, and has not given one yet.
    #[error("{}", plugin_api::services::no_value(name))]
    NoValue {
        /// The name that was asked for.
        name: String,
    },
    /// The name has arrays and a number was requested or given, or the other way round.
    #[error("`{name}` has {holds}")]
    OtherKind {
        /// The name.
        name: String,
        /// What it has: `numbers` or `arrays`.
        holds: &'static str,
    },
    /// The number of an array's values does not match its shape.
    #[error("`{name}` has the shape {shape:?} but {values} values")]
    ShapeMismatch {
        /// The name.
        name: String,
        /// The given shape.
        shape: Vec<usize>,
        /// The number of given values.
        values: usize,
    },
}

impl HistoryError {
    pub(super) fn unknown<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> HistoryError {
        HistoryError::UnknownName { name: name.to_owned(), hint: did_you_mean(name, names) }
    }
}

impl Report for HistoryError {
    fn hint(&self) -> Option<String> {
        match self {
            HistoryError::UnknownName { hint, .. } => hint.clone(),
            HistoryError::NoValue { .. } | HistoryError::OtherKind { .. } | HistoryError::ShapeMismatch { .. } => None,
        }
    }
}

/// Append-only series of numbers and arrays by name.
///
/// Every entry has a sequence number, counted over all names. The history *as of* `n` consists of the entries whose
/// numbers are below `n`. Entries at the same position share its storage, so that a number costs 24 bytes.
///
/// Its serde form keeps every bit; see `stored.rs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "StoredHistory", into = "StoredHistory")]
pub struct History {
    pub(super) names: HashMap<String, Slot>,
    pub(super) numbers: Vec<Series<f64>>,
    pub(super) arrays: Vec<ArraySeries>,
    pub(super) positions: Vec<Position>,
    /// The sequence number of the next entry.
    pub(super) next: u64,
}

/// The index of each name's entries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    Numbers(usize),
    Arrays(usize),
}

/// Shapes and values.
pub(super) type ArraySeries = Series<(Vec<usize>, Vec<f32>)>;

/// The entries of one name; the three lists have the same length.
#[derive(Clone, Debug)]
pub(super) struct Series<T> {
    pub(super) name: String,
    /// Sequence numbers, ascending.
    pub(super) sequence: Vec<u64>,
    /// Indices into the history's positions.
    pub(super) positions: Vec<usize>,
    pub(super) values: Vec<T>,
}

impl<T> Series<T> {
    fn new(name: &str) -> Series<T> {
        Series { name: name.to_owned(), sequence: Vec::new(), positions: Vec::new(), values: Vec::new() }
    }

    fn clear(&mut self) {
        self.sequence.clear();
        self.positions.clear();
        self.values.clear();
    }

    fn push(&mut self, sequence: u64, position: usize, value: T) {
        self.sequence.push(sequence);
        self.positions.push(position);
        self.values.push(value);
    }
}

impl<T: Clone> Series<T> {
    /// The entries whose sequence numbers are below `until`; `None` if there are none.
    fn until(&self, until: u64) -> Option<Series<T>> {
        let count = self.sequence.partition_point(|&sequence| sequence < until);
        (count > 0).then(|| Series {
            name: self.name.clone(),
            sequence: self.sequence[..count].to_vec(),
            positions: self.positions[..count].to_vec(),
            values: self.values[..count].to_vec(),
        })
    }

    /// One more than the greatest index of a position.
    fn positions_used(&self) -> usize {
        self.positions.last().map_or(0, |last| last + 1)
    }
}

impl History {
    /// The history as of `until`, as if nothing had been put since.
    pub(super) fn until(&self, until: u64) -> History {
        let numbers: Vec<_> = self.numbers.iter().filter_map(|series| series.until(until)).collect();
        let arrays: Vec<_> = self.arrays.iter().filter_map(|series| series.until(until)).collect();
        let of_numbers = numbers.iter().enumerate().map(|(index, series)| (series.name.clone(), Slot::Numbers(index)));
        let of_arrays = arrays.iter().enumerate().map(|(index, series)| (series.name.clone(), Slot::Arrays(index)));
        let used = numbers.iter().map(Series::positions_used).chain(arrays.iter().map(Series::positions_used)).max();
        History {
            names: of_numbers.chain(of_arrays).collect(),
            positions: self.positions[..used.unwrap_or(0)].to_vec(),
            next: until.min(self.next),
            numbers,
            arrays,
        }
    }

    /// A history without entries.
    pub fn new() -> History {
        History::default()
    }

    /// The id of a name of numbers, for [`History::put_by_id`]. The name is listed from its first value on.
    ///
    /// # Errors
    /// The name is one of arrays.
    pub fn id(&mut self, name: &str) -> Result<SeriesId, HistoryError> {
        match self.names.get(name) {
            Some(Slot::Numbers(index)) => Ok(SeriesId(*index)),
            Some(Slot::Arrays(_)) => Err(HistoryError::OtherKind { name: name.to_owned(), holds: "arrays" }),
            None => {
                let index = self.numbers.len();
                self.numbers.push(Series::new(name));
                self.names.insert(name.to_owned(), Slot::Numbers(index));
                Ok(SeriesId(index))
            }
        }
    }

    /// Adds a number and returns its sequence number.
    ///
    /// # Errors
    /// The name is one of arrays.
    pub fn put(&mut self, name: &str, position: Position, value: f64) -> Result<u64, HistoryError> {
        let id = self.id(name)?;
        Ok(self.put_by_id(id, position, value))
    }

    /// Adds a number under an id of this history and returns its sequence number. Takes some ten nanoseconds.
    ///
    /// # Panics
    /// The id is not one of this history.
    pub fn put_by_id(&mut self, id: SeriesId, position: Position, value: f64) -> u64 {
        let position = self.position(position);
        let sequence = self.next;
        self.numbers[id.0].push(sequence, position, value);
        self.next += 1;
        sequence
    }

    /// Adds an array (row by row) and returns its sequence number.
    ///
    /// # Errors
    /// The name has numbers, or the number of values does not match the shape.
    pub fn put_array(
        &mut self,
        name: &str,
        position: Position,
        shape: Vec<usize>,
        values: Vec<f32>,
    ) -> Result<u64, HistoryError> {
        if !fits(&shape, values.len()) {
            return Err(HistoryError::ShapeMismatch { name: name.to_owned(), shape, values: values.len() });
        }
        let index = match self.names.get(name) {
            Some(Slot::Arrays(index)) => *index,
            Some(Slot::Numbers(_)) => {
                return Err(HistoryError::OtherKind { name: name.to_owned(), holds: "numbers" });
            }
            None => {
                self.names.insert(name.to_owned(), Slot::Arrays(self.arrays.len()));
                self.arrays.push(Series::new(name));
                self.arrays.len() - 1
            }
        };
        let position = self.position(position);
        let sequence = self.next;
        self.arrays[index].push(sequence, position, (shape, values));
        self.next += 1;
        Ok(sequence)
    }

    /// Forgets every entry of a name, for views of earlier moments as well. It may get new ones, of the same kind.
    pub fn remove(&mut self, name: &str) {
        match self.names.get(name) {
            Some(Slot::Numbers(index)) => self.numbers[*index].clear(),
            Some(Slot::Arrays(index)) => self.arrays[*index].clear(),
            None => {}
        }
    }

    /// The sequence number of the next entry: as of this number, the history is complete.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// The entries whose sequence numbers are below `until`.
    pub fn as_of(&self, until: u64) -> AsOf<'_> {
        AsOf { history: self, until }
    }

    /// Every name that has a value, numbers first, each kind in the order of their first values.
    pub fn names(&self) -> Vec<&str> {
        self.as_of(self.next).names()
    }

    /// Every number of a name, the oldest first.
    ///
    /// # Errors
    /// No value of that name, or one of arrays.
    pub fn series(&self, name: &str) -> Result<impl ExactSizeIterator<Item = Point>, HistoryError> {
        self.as_of(self.next).series(name)
    }

    /// The last number of a name.
    ///
    /// # Errors
    /// No value of that name, or one of arrays.
    pub fn latest(&self, name: &str) -> Result<Point, HistoryError> {
        self.as_of(self.next).latest(name)
    }

    fn position(&mut self, position: Position) -> usize {
        if self.positions.last() != Some(&position) {
            self.positions.push(position);
        }
        self.positions.len() - 1
    }
}

/// Whether a shape has this number of values; a shape whose product overflows does not.
pub(super) fn fits(shape: &[usize], values: usize) -> bool {
    shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size)) == Some(values)
}

/// A [`History`] as of a sequence number.
#[derive(Clone, Copy, Debug)]
pub struct AsOf<'a> {
    history: &'a History,
    until: u64,
}

impl<'a> AsOf<'a> {
    /// Every name that had a value, numbers first, each kind in the order of their first values.
    pub fn names(self) -> Vec<&'a str> {
        let numbers = self.history.numbers.iter().map(|series| (&series.name, &series.sequence));
        let arrays = self.history.arrays.iter().map(|series| (&series.name, &series.sequence));
        let begun = |sequence: &Vec<u64>| sequence.first().is_some_and(|&first| first < self.until);
        numbers.chain(arrays).filter(|(_, sequence)| begun(sequence)).map(|(name, _)| name.as_str()).collect()
    }

    /// Every number of a name, the oldest first.
    ///
    /// # Errors
    /// No value of that name, or one of arrays.
    pub fn series(self, name: &str) -> Result<impl ExactSizeIterator<Item = Point> + use<'a>, HistoryError> {
        let (series, length) = self.numbers(name)?;
        Ok((0..length).map(move |index| self.point(series, index)))
    }

    /// The last number of a name.
    ///
    /// # Errors
    /// No value of that name, or one of arrays.
    pub fn latest(self, name: &str) -> Result<Point, HistoryError> {
        let (series, length) = self.numbers(name)?;
        // A name without entries is an error above.
        Ok(self.point(series, length - 1))
    }

    /// The values of [`AsOf::series`].
    ///
    /// # Errors
    /// No value of that name, or one of arrays.
    pub fn values(self, name: &str) -> Result<&'a [f64], HistoryError> {
        let (series, length) = self.numbers(name)?;
        Ok(&series.values[..length])
    }

    /// Every array of a name, the oldest first, copied.
    ///
    /// # Errors
    /// No value of that name, or one of numbers.
    pub fn arrays(self, name: &str) -> Result<impl ExactSizeIterator<Item = Array> + use<'a>, HistoryError> {
        let (series, length) = self.array_series(name)?;
        Ok((0..length).map(move |index| self.array(series, index)))
    }

    /// The last array of a name, copied.
    ///
    /// # Errors
    /// No value of that name, or one of numbers.
    pub fn latest_array(self, name: &str) -> Result<Array, HistoryError> {
        let (series, length) = self.array_series(name)?;
        Ok(self.array(series, length - 1))
    }

    /// See [`HistoryView::of_weights`](super::HistoryView::of_weights).
    pub(super) fn of_weights(self, global_step: u64, since: Option<u64>) -> BTreeMap<String, f64> {
        let of_name = |series: &Series<f64>| {
            let length = series.sequence.partition_point(|&sequence| sequence < self.until);
            let last = length.checked_sub(1)?;
            if since.is_some_and(|since| series.sequence[last] >= since) {
                return Some(series.values[last]);
            }
            // The newest are the likeliest: the positions ascend.
            let entries = (0..length).rev().map(|index| self.point(series, index));
            let mut entries = entries.skip_while(|point| point.position.global_step > global_step);
            entries.next().filter(|point| point.position.global_step == global_step).map(|point| point.value)
        };
        let named = self.history.numbers.iter().filter_map(|series| Some((series.name.clone(), of_name(series)?)));
        named.collect()
    }

    fn numbers(self, name: &str) -> Result<(&'a Series<f64>, usize), HistoryError> {
        match self.history.names.get(name) {
            Some(Slot::Numbers(index)) => self.begun(&self.history.numbers[*index]),
            Some(Slot::Arrays(_)) => Err(HistoryError::OtherKind { name: name.to_owned(), holds: "arrays" }),
            None => Err(HistoryError::unknown(name, self.names())),
        }
    }

    fn array_series(self, name: &str) -> Result<(&'a ArraySeries, usize), HistoryError> {
        match self.history.names.get(name) {
            Some(Slot::Arrays(index)) => self.begun(&self.history.arrays[*index]),
            Some(Slot::Numbers(_)) => Err(HistoryError::OtherKind { name: name.to_owned(), holds: "numbers" }),
            None => Err(HistoryError::unknown(name, self.names())),
        }
    }

    /// A series with the number of its entries so far, which is not zero.
    fn begun<T>(self, series: &'a Series<T>) -> Result<(&'a Series<T>, usize), HistoryError> {
        match series.sequence.partition_point(|&sequence| sequence < self.until) {
            0 => Err(HistoryError::unknown(&series.name, self.names())),
            length => Ok((series, length)),
        }
    }

    fn point(self, series: &Series<f64>, index: usize) -> Point {
        Point { position: self.history.positions[series.positions[index]], value: series.values[index] }
    }

    fn array(self, series: &ArraySeries, index: usize) -> Array {
        let (shape, values) = series.values[index].clone();
        Array { position: self.history.positions[series.positions[index]], shape, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(global_step: u64) -> Position {
        Position { epoch: 1, step: global_step, global_step, samples: global_step * 64 }
    }

    #[test]
    fn series_latest_and_names() {
        let mut history = History::new();
        let loss = history.id("train_loss").unwrap();
        assert!(history.names().is_empty(), "a name without values is not listed");
        assert_eq!(history.put_by_id(loss, at(1), 2.0), 0);
        assert_eq!(history.put("accuracy", at(1), 0.5), Ok(1));
        assert_eq!(history.put("train_loss", at(2), f64::NAN), Ok(2));
        assert_eq!(history.put_array("histogram", at(2), vec![2, 1], vec![1.0, 2.0]), Ok(3));
        assert_eq!(history.names(), ["train_loss", "accuracy", "histogram"]);
        let steps: Vec<u64> = history.series("train_loss").unwrap().map(|point| point.position.global_step).collect();
        assert_eq!(steps, [1, 2]);
        assert!(history.latest("train_loss").unwrap().value.is_nan());
        let array = history.as_of(history.next_sequence()).latest_array("histogram").unwrap();
        assert_eq!(array, Array { position: at(2), shape: vec![2, 1], values: vec![1.0, 2.0] });
    }

    #[test]
    fn what_came_later_is_not_there_yet() {
        let mut history = History::new();
        history.put("a", at(1), 1.0).unwrap();
        let until = history.next_sequence();
        history.put("a", at(2), 2.0).unwrap();
        history.put("b", at(2), 3.0).unwrap();
        let then = history.as_of(until);
        assert_eq!(then.names(), ["a"]);
        assert_eq!(then.latest("a").unwrap().value, 1.0);
        assert_eq!(then.series("a").unwrap().len(), 1);
        assert!(matches!(then.latest("b"), Err(HistoryError::UnknownName { .. })));
    }

    #[test]
    fn errors_name_the_name_and_the_nearest() {
        let mut history = History::new();
        history.put("val_loss", at(1), 1.0).unwrap();
        history.put_array("curve", at(1), vec![1], vec![1.0]).unwrap();
        let error = history.latest("val_los").unwrap_err();
        assert_eq!(error.to_string(), "there is no metric `val_los`");
        assert_eq!(error.hint().as_deref(), Some("did you mean `val_loss`?"));
        assert_eq!(history.latest("curve").unwrap_err().to_string(), "`curve` has arrays");
        assert_eq!(history.put("curve", at(1), 1.0).unwrap_err().to_string(), "`curve` has arrays");
        let error = history.put_array("val_loss", at(1), vec![], vec![1.0]).unwrap_err();
        assert_eq!(error.to_string(), "`val_loss` has numbers");
        let error = history.put_array("x", at(1), vec![usize::MAX, 2], vec![1.0]).unwrap_err();
        assert!(matches!(error, HistoryError::ShapeMismatch { values: 1, .. }));
    }
}
