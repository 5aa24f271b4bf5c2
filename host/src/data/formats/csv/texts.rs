//! Columns of texts: labels and categories.

use std::collections::HashMap;

/// A column of texts, each stored once.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) distinct: Vec<Entry>,
    /// The text of each row, as an index of `distinct`.
    pub(super) rows: Vec<u32>,
    known: HashMap<Box<[u8]>, u32>,
}

/// A text, and where it occurs first.
pub(super) struct Entry {
    pub(super) text: String,
    /// The first byte of its record.
    pub(super) start: u64,
    /// Whether it says that there is no value.
    missing: bool,
    /// Whether a row has it.
    used: bool,
}

impl Entry {
    pub(super) fn is_value(&self) -> bool {
        self.used && !self.missing
    }
}

impl Texts {
    /// The index of a text, which is UTF-8.
    pub(super) fn index(&mut self, field: &[u8], start: u64, is_missing: impl Fn(&[u8]) -> bool) -> u32 {
        if let Some(index) = self.known.get(field) {
            return *index;
        }
        let index = self.distinct.len() as u32;
        let text = String::from_utf8_lossy(field).into_owned();
        self.distinct.push(Entry { text, start, missing: is_missing(field), used: true });
        self.known.insert(field.into(), index);
        index
    }

    pub(super) fn is_missing(&self, index: u32) -> bool {
        self.distinct[index as usize].missing
    }

    /// The texts that are values.
    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.distinct.iter().filter(|entry| entry.is_value())
    }

    /// Marks the texts of rows: those that were left out may have had others.
    pub(super) fn mark_used(&mut self) {
        for entry in &mut self.distinct {
            entry.used = false;
        }
        for index in &self.rows {
            self.distinct[*index as usize].used = true;
        }
    }
}
