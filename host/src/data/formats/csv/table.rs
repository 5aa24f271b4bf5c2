//! The rows of a file, parsed but not yet given their meaning.

use std::sync::Arc;

use csv::ByteRecord;

use super::columns::{Columns, Places};
use super::dialect::{Dialect, next};
use super::number::Notation;
use super::problem::{CellProblem, LabelsProblem, TableProblem, shown};
use super::text::{Text, line_breaks};
use super::texts::{Entry, Texts};
use crate::data::DataError;
use crate::data::options::{CategoricalAs, CsvOptions, Missing, MissingLabel, Task};

/// The rows that are looked at to tell a column of texts from a wrong cell.
const SURVEYED_ROWS: usize = 1000;

/// Examples of a column's texts in a message.
const EXAMPLES: usize = 3;

/// A file, and where its columns are.
pub(super) struct CsvFile<'a> {
    pub(super) options: &'a CsvOptions,
    pub(super) text: Arc<Text<'a>>,
    pub(super) dialect: Dialect,
    pub(super) places: Places,
    /// Whether the lines of the rows are kept, and rows without a target, too.
    pub(super) keeps_all: bool,
}

/// A file that has been parsed.
pub(super) struct CsvTable<'a> {
    pub(super) file: CsvFile<'a>,
    pub(super) columns: &'a Columns,
    /// The features that are numbers, one row after another; NaN where one is missing.
    pub(super) numbers: Vec<f64>,
    /// The features that are categories, a column each.
    pub(super) categories: Vec<Texts>,
    pub(super) targets: TargetColumns,
    /// Missing values, by the features that are numbers.
    pub(super) missing: Vec<usize>,
    pub(super) left_out: LeftOut,
    /// The rows that are kept.
    pub(super) rows: usize,
    /// Their lines, if [`CsvFile::keeps_all`].
    pub(super) lines: Vec<u64>,
}

/// The content of the target columns.
pub(super) enum TargetColumns {
    /// The one column of a classification.
    Classes(Texts),
    /// Those of a regression, one row after another.
    Values(Vec<f64>),
    /// The file has none.
    None,
}

/// How many rows were left out, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LeftOut {
    pub(super) without_target: usize,
    pub(super) without_features: usize,
}

/// A column that is read.
#[derive(Clone, Copy)]
struct Cell {
    /// In the training file.
    column: usize,
    /// In this file.
    index: usize,
}

/// The columns that are read, by what they hold.
struct Kinds {
    numbers: Vec<Cell>,
    categories: Vec<Cell>,
    targets: Vec<Cell>,
}

impl<'a> CsvFile<'a> {
    /// Reads the whole file: errors can name the line, and the values take less memory than their text.
    pub(super) fn parse(self, columns: &'a Columns) -> Result<CsvTable<'a>, DataError> {
        let at = |column: usize| Cell { column, index: self.places.of(column) };
        let of_kind = |categorical: bool| {
            let features = columns.features.iter().filter(move |feature| feature.categorical == categorical);
            features.map(|feature| at(feature.column)).collect::<Vec<_>>()
        };
        let kinds = Kinds {
            numbers: of_kind(false),
            categories: of_kind(true),
            targets: columns.targets.iter().map(|column| at(*column)).collect(),
        };
        let mut table = CsvTable {
            numbers: Vec::new(),
            categories: kinds.categories.iter().map(|_| Texts::default()).collect(),
            targets: match self.options.task {
                _ if columns.targets.is_empty() => TargetColumns::None,
                Task::Classification => TargetColumns::Classes(Texts::default()),
                Task::Regression => TargetColumns::Values(Vec::new()),
            },
            missing: vec![0; kinds.numbers.len()],
            left_out: LeftOut::default(),
            rows: 0,
            lines: Vec::new(),
            columns,
            file: self,
        };
        table.read(&kinds)?;
        Ok(table)
    }
}

impl CsvTable<'_> {
    fn read(&mut self, kinds: &Kinds) -> Result<(), DataError> {
        let notation = Notation::of(self.file.options);
        let text = Arc::clone(&self.file.text);
        let mut reader = self.file.dialect.reader(text.bytes());
        let unread = |source| DataError::Read { path: text.path.clone(), source };
        let mut record = ByteRecord::new();
        let mut width = None;
        let mut last = 0;
        let mut is_header = self.columns.has_header();
        while next(&mut reader, &mut record).map_err(unread)? {
            last = record.position().map_or(0, csv::Position::byte);
            let expected = *width.get_or_insert(record.len());
            if record.len() != expected {
                self.check_quotes(last)?;
                let (line, found) = (self.line(last), record.len());
                return Err(self.wrong(TableProblem::Ragged { line, expected, found }));
            }
            if std::mem::take(&mut is_header) {
                continue;
            }
            match self.add(kinds, &notation, &record, last)? {
                true => {
                    self.rows += 1;
                    if self.file.keeps_all {
                        self.lines.extend(record.position().map(csv::Position::line));
                    }
                }
                false => self.remove_rest(kinds),
            }
        }
        self.check_quotes(last)?;
        if self.left_out != LeftOut::default() {
            self.categories.iter_mut().for_each(Texts::mark_used);
            if let TargetColumns::Classes(labels) = &mut self.targets {
                labels.mark_used();
            }
        }
        if self.rows == 0 {
            return Err(DataError::Empty { path: text.path.clone() });
        }
        if u32::try_from(self.rows).is_err() {
            return Err(DataError::TooManySamples { limit: u32::MAX as usize });
        }
        Ok(())
    }

    /// Refuses a quoted text that takes the rest of the file, from the record at `start` on.
    fn check_quotes(&self, start: u64) -> Result<(), DataError> {
        let bytes = self.file.text.bytes();
        match self.file.dialect.unclosed_quote(bytes, usize::try_from(start).unwrap_or(bytes.len())) {
            None => Ok(()),
            Some(quote) => Err(self.wrong(TableProblem::UnclosedQuote { line: line_breaks(&bytes[..quote]) + 1 })),
        }
    }
}

impl CsvTable<'_> {
    /// Adds a row; false if it is left out, and then a part of it may be in the table.
    fn add(
        &mut self,
        kinds: &Kinds,
        notation: &Notation<'_>,
        record: &ByteRecord,
        start: u64,
    ) -> Result<bool, DataError> {
        let options = self.file.options;
        let is_missing = |field: &[u8]| {
            notation.is_missing(field) && !options.classes.as_ref().is_some_and(|classes| classes.names(field))
        };
        // Once for all fields: numbers are read from texts.
        let whole = text_of(record.as_slice());
        let text = |cell: &Cell| record.range(cell.index).and_then(|range| whole.get(range)).unwrap_or_default();
        match &mut self.targets {
            TargetColumns::Classes(labels) => {
                let cell = kinds.targets[0];
                let label = labels.index(&record[cell.index], start, is_missing);
                if labels.is_missing(label) && !self.file.keeps_all {
                    return self.without_target(cell, record, start);
                }
                labels.rows.push(label);
            }
            TargetColumns::Values(values) => {
                for cell in &kinds.targets {
                    let text = text(cell);
                    match notation.number(text) {
                        Some(value) => values.push(value),
                        None if notation.is_missing(text.as_bytes()) && self.file.keeps_all => values.push(f64::NAN),
                        None if notation.is_missing(text.as_bytes()) => {
                            return self.without_target(*cell, record, start);
                        }
                        None => return Err(self.wrong_cell(*cell, record, start, notation.problem(text))),
                    }
                }
            }
            TargetColumns::None => {}
        }
        for (position, cell) in kinds.numbers.iter().enumerate() {
            let text = text(cell);
            match notation.number(text) {
                Some(value) => self.numbers.push(value),
                None if !notation.is_missing(text.as_bytes()) => {
                    return Err(self.not_a_number(kinds, notation, *cell, record, start));
                }
                None if self.lacks(*cell, record, start)? => {
                    self.numbers.push(f64::NAN);
                    self.missing[position] += 1;
                }
                None => return Ok(false),
            }
        }
        for (position, cell) in kinds.categories.iter().enumerate() {
            let texts = &mut self.categories[position];
            let category = texts.index(&record[cell.index], start, |field| notation.is_missing(field));
            if texts.is_missing(category) && !self.lacks(*cell, record, start)? {
                return Ok(false);
            }
            self.categories[position].rows.push(category);
        }
        Ok(true)
    }

    /// For a row without a target: whether it stays, which it does not.
    #[cold]
    fn without_target(&mut self, cell: Cell, record: &ByteRecord, start: u64) -> Result<bool, DataError> {
        match self.file.options.missing_label {
            MissingLabel::Error => Err(self.wrong_cell(cell, record, start, CellProblem::MissingLabel)),
            MissingLabel::Drop => {
                self.left_out.without_target += 1;
                Ok(false)
            }
        }
    }

    /// For a row that lacks a feature: whether it stays.
    #[cold]
    fn lacks(&mut self, cell: Cell, record: &ByteRecord, start: u64) -> Result<bool, DataError> {
        let options = self.file.options;
        match options.missing {
            Missing::Error => Err(self.wrong_cell(cell, record, start, CellProblem::Missing)),
            Missing::Drop => {
                self.left_out.without_features += 1;
                Ok(false)
            }
            _ if options.categorical_as == CategoricalAs::Index => {
                Err(self.wrong_cell(cell, record, start, CellProblem::MissingIndex))
            }
            Missing::Mean | Missing::Median | Missing::Zero => Ok(true),
        }
    }

    /// Removes what has been added of a row that is left out.
    fn remove_rest(&mut self, kinds: &Kinds) {
        self.numbers.truncate(self.rows * kinds.numbers.len());
        for texts in &mut self.categories {
            texts.rows.truncate(self.rows);
        }
        match &mut self.targets {
            TargetColumns::Classes(labels) => labels.rows.truncate(self.rows),
            TargetColumns::Values(values) => values.truncate(self.rows * kinds.targets.len()),
            TargetColumns::None => {}
        }
    }

    /// The labels of a classification, each once.
    pub(super) fn labels(&self) -> impl Iterator<Item = &Entry> {
        let labels = match &self.targets {
            TargetColumns::Classes(labels) => Some(labels),
            TargetColumns::Values(_) | TargetColumns::None => None,
        };
        labels.into_iter().flat_map(Texts::values)
    }

    /// The line, counted from 1, of the record at a byte.
    pub(super) fn line(&self, start: u64) -> u64 {
        self.file.text.line(start)
    }

    pub(super) fn wrong(&self, problem: TableProblem) -> DataError {
        DataError::table(&self.file.text.path, problem)
    }

    /// Something is wrong with the column of the labels.
    pub(super) fn wrong_labels(&self, problem: LabelsProblem) -> DataError {
        let column = self.columns.targets[0];
        let column = self.columns.place(column, self.file.places.of(column));
        self.wrong(TableProblem::Labels { column, problem })
    }

    /// Something is wrong with a text in a column of the training file, which occurs first at `entry`.
    pub(super) fn wrong_entry(&self, column: usize, entry: &Entry, problem: CellProblem) -> DataError {
        let place = self.columns.place(column, self.file.places.of(column));
        self.wrong(TableProblem::Cell {
            line: self.line(entry.start),
            column: place,
            text: shown(&entry.text),
            problem,
        })
    }

    fn wrong_cell(&self, cell: Cell, record: &ByteRecord, start: u64, problem: CellProblem) -> DataError {
        let column = self.columns.place(cell.column, cell.index);
        let text = shown(text_of(&record[cell.index]));
        self.wrong(TableProblem::Cell { line: self.line(start), column, text, problem })
    }

    /// For a feature that is not a number: whether its whole column holds texts or dates, as others may, too.
    #[cold]
    fn not_a_number(
        &self,
        kinds: &Kinds,
        notation: &Notation<'_>,
        cell: Cell,
        record: &ByteRecord,
        start: u64,
    ) -> DataError {
        let problem = notation.problem(text_of(&record[cell.index]));
        let dates = problem == CellProblem::Date;
        if dates || problem == CellProblem::NotANumber {
            let all: Vec<(Cell, Vec<String>)> = self.other_columns(kinds, notation, &problem);
            if all.iter().any(|(column, _)| column.column == cell.column) {
                let place = |cell: Cell| self.columns.place(cell.column, cell.index);
                let columns = all.into_iter().map(|(cell, examples)| (place(cell), examples)).collect();
                let first_line = !self.columns.has_header() && self.line(start) == 1;
                return self.wrong(TableProblem::NotNumbers { columns, dates, first_line });
            }
        }
        self.wrong_cell(cell, record, start, problem)
    }

    /// The columns most of whose first values have this problem, with examples.
    fn other_columns(&self, kinds: &Kinds, notation: &Notation<'_>, problem: &CellProblem) -> Vec<(Cell, Vec<String>)> {
        let skipped = usize::from(self.columns.has_header());
        let mut surveyed: Vec<Surveyed> = kinds.numbers.iter().map(|_| Surveyed::default()).collect();
        let records = self.file.dialect.reader(self.file.text.bytes()).into_byte_records();
        for record in records.skip(skipped).take(SURVEYED_ROWS).map_while(Result::ok) {
            for (cell, surveyed) in kinds.numbers.iter().zip(&mut surveyed) {
                let field = record.get(cell.index).unwrap_or_default();
                if !notation.is_missing(field) {
                    surveyed.add(text_of(field), notation, problem);
                }
            }
        }
        let most = kinds.numbers.iter().zip(surveyed).filter(|(_, surveyed)| surveyed.with * 2 > surveyed.values);
        most.map(|(cell, surveyed)| (*cell, surveyed.examples)).collect()
    }
}

/// What a column holds.
#[derive(Default)]
struct Surveyed {
    values: usize,
    /// Values with the problem.
    with: usize,
    examples: Vec<String>,
}

impl Surveyed {
    fn add(&mut self, text: &str, notation: &Notation<'_>, problem: &CellProblem) {
        self.values += 1;
        if notation.number(text).is_some() || notation.problem(text) != *problem {
            return;
        }
        self.with += 1;
        let text = shown(text);
        if self.examples.len() < EXAMPLES && !self.examples.contains(&text) {
            self.examples.push(text);
        }
    }
}

/// The text of a field, which is UTF-8: the file is, and fields end at characters of ASCII.
fn text_of(field: &[u8]) -> &str {
    std::str::from_utf8(field).unwrap_or_default()
}
