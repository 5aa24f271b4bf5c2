//! The stored form of a [`History`].
//!
//! Numbers are strings (see [`Exact`]) and the values of arrays are the bits of their 32-bit floats, since JSON cannot
//! store NaN and may lose the last bit. Reading checks every index, so that a loaded history is as consistent as any
//! other.

use serde::{Deserialize, Serialize};

use super::series::{History, Series, Slot, fits};
use super::{Exact, Position};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredHistory {
    /// The sequence number of the next entry.
    next: u64,
    /// Epoch, step, global step and samples of each position; the names of these fields would be most of the text.
    positions: Vec<[u64; 4]>,
    numbers: Vec<StoredSeries<Exact>>,
    arrays: Vec<StoredSeries<StoredArray>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSeries<T> {
    name: String,
    sequence: Vec<u64>,
    /// Indices into the positions.
    positions: Vec<usize>,
    values: Vec<T>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredArray {
    shape: Vec<usize>,
    /// IEEE 754 binary32.
    bits: Vec<u32>,
}

/// Why a stored history is not valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StoredHistoryError {
    #[error("the history has two series of the name `{0}`")]
    TwoOfOneName(String),
    #[error("the lists of the series `{0}` differ in length")]
    Lengths(String),
    #[error("the sequence numbers of the series `{0}` do not ascend, or are not below the next one")]
    Sequence(String),
    #[error("the series `{0}` refers to a position that does not exist")]
    Position(String),
    #[error("an array of the series `{0}` has a number of values that does not match its shape")]
    Shape(String),
}

fn position_to_numbers(position: Position) -> [u64; 4] {
    let Position { epoch, step, global_step, samples } = position;
    [epoch, step, global_step, samples]
}

fn position_from_numbers([epoch, step, global_step, samples]: [u64; 4]) -> Position {
    Position { epoch, step, global_step, samples }
}

impl From<History> for StoredHistory {
    fn from(history: History) -> StoredHistory {
        let array = |(shape, values): (Vec<usize>, Vec<f32>)| StoredArray {
            shape,
            bits: values.into_iter().map(f32::to_bits).collect(),
        };
        StoredHistory {
            next: history.next,
            positions: history.positions.into_iter().map(position_to_numbers).collect(),
            numbers: history.numbers.into_iter().map(|series| series.stored(Exact)).collect(),
            arrays: history.arrays.into_iter().map(|series| series.stored(array)).collect(),
        }
    }
}

impl TryFrom<StoredHistory> for History {
    type Error = StoredHistoryError;

    fn try_from(stored: StoredHistory) -> Result<History, StoredHistoryError> {
        let StoredHistory { next, positions, numbers, arrays } = stored;
        let positions = positions.into_iter().map(position_from_numbers).collect();
        let mut history = History { next, positions, ..History::default() };
        for series in numbers {
            series.check(&history)?;
            history.names.insert(series.name.clone(), Slot::Numbers(history.numbers.len()));
            history.numbers.push(series.restored(|Exact(value)| value));
        }
        for series in arrays {
            series.check(&history)?;
            if !series.values.iter().all(|array| fits(&array.shape, array.bits.len())) {
                return Err(StoredHistoryError::Shape(series.name));
            }
            history.names.insert(series.name.clone(), Slot::Arrays(history.arrays.len()));
            let array = |array: StoredArray| (array.shape, array.bits.into_iter().map(f32::from_bits).collect());
            history.arrays.push(series.restored(array));
        }
        Ok(history)
    }
}

impl<T> StoredSeries<T> {
    fn check(&self, history: &History) -> Result<(), StoredHistoryError> {
        let name = || self.name.clone();
        if history.names.contains_key(&self.name) {
            return Err(StoredHistoryError::TwoOfOneName(name()));
        }
        if self.sequence.len() != self.values.len() || self.positions.len() != self.values.len() {
            return Err(StoredHistoryError::Lengths(name()));
        }
        let ascending = self.sequence.is_sorted_by(|earlier, later| earlier < later);
        if !ascending || self.sequence.last().is_some_and(|&last| last >= history.next) {
            return Err(StoredHistoryError::Sequence(name()));
        }
        if self.positions.iter().any(|&index| index >= history.positions.len()) {
            return Err(StoredHistoryError::Position(name()));
        }
        Ok(())
    }

    fn restored<U>(self, value: impl FnMut(T) -> U) -> Series<U> {
        Series {
            name: self.name,
            sequence: self.sequence,
            positions: self.positions,
            values: self.values.into_iter().map(value).collect(),
        }
    }
}

impl<T> Series<T> {
    fn stored<U>(self, value: impl FnMut(T) -> U) -> StoredSeries<U> {
        StoredSeries {
            name: self.name,
            sequence: self.sequence,
            positions: self.positions,
            values: self.values.into_iter().map(value).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// Entries that differ in any bit differ here, since the text has every bit.
    fn text(history: &History) -> String {
        serde_json::to_string(history).unwrap()
    }

    fn example() -> History {
        let mut history = History::new();
        let position = |step| Position { epoch: 1, step, global_step: step, samples: step };
        for (step, value) in [(1, 0.1), (2, f64::NAN), (3, f64::NEG_INFINITY), (3, -0.0)] {
            history.put("loss", position(step), value).unwrap();
        }
        history.put_array("curve", position(3), vec![2], vec![f32::INFINITY, f32::from_bits(0x7fc0_0001)]).unwrap();
        history
    }

    proptest! {
        #[test]
        fn a_history_comes_back(entries in proptest::collection::vec((0..3_u8, 0..9_u64, any::<u64>()), 0..40)) {
            let mut history = History::new();
            for (name, step, bits) in entries {
                let position = Position { epoch: 1, step, global_step: step, samples: step };
                history.put(&format!("metric {name}"), position, f64::from_bits(bits)).unwrap();
            }
            let read: History = serde_json::from_str(&text(&history)).unwrap();
            prop_assert_eq!(text(&read), text(&history));
            prop_assert_eq!(read.names(), history.names());
        }

        #[test]
        fn a_changed_byte_is_refused_or_harmless(index in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = text(&example()).into_bytes();
            let index = index.index(bytes.len());
            bytes[index] = byte;
            if let Ok(history) = serde_json::from_slice::<History>(&bytes) {
                for name in history.names() {
                    if let Ok(series) = history.series(name) {
                        prop_assert!(series.count() > 0);
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_have_grown_is_refused() {
        let refusal = |pointer: &str, value: Value| {
            let mut stored = serde_json::to_value(example()).unwrap();
            *stored.pointer_mut(pointer).unwrap() = value;
            serde_json::from_value::<History>(stored).unwrap_err().to_string()
        };
        assert!(refusal("/arrays/0/name", json!("loss")).contains("two series"));
        assert!(refusal("/numbers/0/values", json!(["1.0"])).contains("differ in length"));
        assert!(refusal("/numbers/0/sequence", json!([0, 1, 1, 3])).contains("do not ascend"));
        assert!(refusal("/next", json!(3)).contains("do not ascend"));
        assert!(refusal("/numbers/0/positions", json!([0, 1, 2, 9])).contains("does not exist"));
        assert!(refusal("/arrays/0/values/0/shape", json!([3])).contains("shape"));
    }
}
