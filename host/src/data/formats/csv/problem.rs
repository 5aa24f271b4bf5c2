//! What can be wrong with a table; `hint` says what cures it.

use std::fmt;
use std::path::PathBuf;

use crate::data::options::Column;
use crate::report::list;

/// A longer text is shortened in messages.
const SHOWN_CHARACTERS: usize = 40;

/// A list names at most this many.
const SHOWN_NAMES: usize = 12;

/// What is wrong with a table. Each reads as the end of a sentence about the file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TableProblem {
    /// The bytes are not text in the encoding.
    #[error("line {line} is not {encoding}")]
    Encoding {
        /// The line, counted from 1.
        line: u64,
        /// The encoding of the options.
        encoding: String,
    },
    /// The file begins with the byte order mark of UTF-16, or has the null characters of it.
    #[error("seems to be UTF-16: {evidence}")]
    Utf16 {
        /// Why it seems to be UTF-16.
        evidence: String,
        /// The key that reads it.
        key: &'static str,
    },
    /// A quoted text does not end.
    #[error("line {line} begins a quoted text that does not end")]
    UnclosedQuote {
        /// The line of the quote, counted from 1.
        line: u64,
    },
    /// Several delimiters fit the first lines.
    #[error("may have its columns separated by {}", list(.candidates.iter().map(String::as_str), "or"))]
    Delimiters {
        /// The delimiters, as they are written in the run file.
        candidates: Vec<String>,
    },
    /// There is only one column.
    #[error("has one column where columns are separated by `{delimiter}`, but a feature and a target need two")]
    OneColumn {
        /// The delimiter, as it is written in the run file.
        delimiter: String,
        /// A delimiter that fits better.
        better: Option<String>,
    },
    /// A line and the first line have different numbers of columns.
    #[error("line {line} has {found} columns, but the lines before it have {expected}")]
    Ragged {
        /// The line, counted from 1.
        line: u64,
        /// Columns of the first line.
        expected: usize,
        /// Columns of this one.
        found: usize,
    },
    /// The header has a name twice.
    #[error("names two columns {}: columns {} and {}", shown_name(.name), .first + 1, .second + 1)]
    DuplicateColumn {
        /// The name.
        name: String,
        /// The columns, counted from 0.
        first: usize,
        /// The later one.
        second: usize,
    },
    /// There is no header although the options say so.
    #[error("has no header: line {line} {}", no_header(.training))]
    NoHeader {
        /// The first line, counted from 1.
        line: u64,
        /// The training file, if this is another and none of its names is here.
        training: Option<PathBuf>,
    },
    /// The columns of a split are not those of the training file.
    #[error("has other columns than `{}`: {}", .training.display(), differences(.missing, .extra))]
    OtherColumns {
        /// The training file.
        training: PathBuf,
        /// Names that this file lacks.
        missing: Vec<String>,
        /// Names that only this file has.
        extra: Vec<String>,
    },
    /// A split has another number of columns than the training file, and there are no names.
    #[error("has {found} columns, but `{}` has {expected}", .training.display())]
    OtherWidth {
        /// The training file.
        training: PathBuf,
        /// Its columns.
        expected: usize,
        /// The columns of this file.
        found: usize,
    },
    /// A column of the options is not in the file.
    #[error("has no column `{column}`; it has {available}")]
    UnknownColumn {
        /// The requested column.
        column: Column,
        /// The columns that exist.
        available: String,
        /// The name that was meant, perhaps.
        near: Option<String>,
    },
    /// A column is given by name, and the file has no header.
    #[error("is read without a header, but the column `{name}` is given by its name")]
    NameWithoutHeader {
        /// The name.
        name: String,
    },
    /// The shape of a sample does not match the number of features per line.
    #[error("has {found} features per line, but shape {shape:?} needs {expected}")]
    Shape {
        /// The shape of the options.
        shape: Vec<u32>,
        /// Its number of values.
        expected: u64,
        /// The features of a line.
        found: usize,
    },
    /// Columns of features hold texts or dates.
    #[error("{}", not_numbers(.columns, *.dates))]
    NotNumbers {
        /// The columns, and examples of their values.
        columns: Vec<(ColumnPlace, Vec<String>)>,
        /// Whether they hold dates.
        dates: bool,
        /// Whether the first line is one of the examples.
        first_line: bool,
    },
    /// A column of categories has none.
    #[error("{column}: no row has a category")]
    NoCategory {
        /// The column.
        column: ColumnPlace,
    },
    /// One cell is wrong.
    #[error("line {line}, {column}: {} {problem}", shown_cell(.text))]
    Cell {
        /// The line, counted from 1.
        line: u64,
        /// The column.
        column: ColumnPlace,
        /// The text there.
        text: String,
        /// What is wrong with it.
        problem: CellProblem,
    },
    /// The labels are not classes that can be counted.
    #[error("{column}: {problem}")]
    Labels {
        /// The column of the target.
        column: ColumnPlace,
        /// What is wrong with them.
        problem: LabelsProblem,
    },
}

/// What is wrong with a cell. Each reads as the end of a sentence about its text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CellProblem {
    /// No number.
    #[error("is not a number")]
    NotANumber,
    /// An infinity, or a number that is too large for 32 bits.
    #[error("is not a finite 32-bit number")]
    NotFinite,
    /// A comma where a point is expected.
    #[error("has a comma, but numbers are read with a decimal point")]
    DecimalComma,
    /// A point where a comma is expected.
    #[error("has a point, but numbers are read with a decimal comma")]
    DecimalPoint,
    /// Separated thousands.
    #[error("has a separator of thousands")]
    Thousands,
    /// A currency.
    #[error("has a currency sign")]
    Currency,
    /// A percentage.
    #[error("has a percent sign")]
    Percent,
    /// A date or a time.
    #[error("is a date or a time, not a number")]
    Date,
    /// Another delimiter.
    #[error("is not a number; it contains `{0}`, which separates columns in other files")]
    Delimiter(char),
    /// A missing feature.
    #[error("is a missing value")]
    Missing,
    /// A missing category where each has an index.
    #[error("is a missing value, which has no index")]
    MissingIndex,
    /// A missing label.
    #[error("is a missing target")]
    MissingLabel,
    /// A label that is no number among numbers.
    #[error("is not a whole number, which a class must be")]
    NotWhole,
    /// A number that is not among the classes.
    #[error("is not a class; the classes are {first} to {last}")]
    NotAClass {
        /// The first class.
        first: i64,
        /// The last class.
        last: i64,
        /// The value of `first_class` that makes all labels classes.
        first_class: Option<i64>,
    },
    /// A name that is not among the classes.
    #[error("is not one of the {count} classes")]
    UnknownName {
        /// How many there are.
        count: usize,
        /// The name that was meant, perhaps.
        near: Option<String>,
        /// The value of `first_class` that makes all labels classes.
        first_class: Option<i64>,
    },
    /// A class that the training file lacks.
    #[error("is a class that the training file lacks")]
    NewClass {
        /// The name that was meant, perhaps.
        near: Option<String>,
    },
    /// A category that the training file lacks.
    #[error("is a category that the training file lacks")]
    NewCategory {
        /// The name that was meant, perhaps.
        near: Option<String>,
        /// Whether it could be left to zeros.
        zeros: bool,
    },
}

/// What is wrong with a column of labels, as the end of a sentence about it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelsProblem {
    /// Numbers with a fraction.
    #[error("a class is a whole number or a text, but line {line} has `{text}`")]
    Fractions {
        /// The first such number.
        text: String,
        /// Its line, counted from 1.
        line: u64,
        /// All labels, if they are few.
        all: Option<Vec<String>>,
    },
    /// Most rows have a number of their own.
    #[error("{rows} rows have {distinct} different numbers, too many to be classes")]
    Many {
        /// The rows.
        rows: usize,
        /// The different numbers.
        distinct: usize,
        /// One more than the largest number.
        count: i64,
    },
    /// Numbers below the first class.
    #[error("line {line} has `{text}`, but the first class is {first}")]
    BelowFirst {
        /// The first such number.
        text: String,
        /// Its line, counted from 1.
        line: u64,
        /// The first class.
        first: i64,
        /// The smallest number, if no class from it to the largest lacks rows.
        first_class: Option<i64>,
        /// All labels, if they are few.
        all: Option<Vec<String>>,
    },
    /// Classes without rows.
    #[error("the classes are {first} to {last}, but no row has {}", classes_without_rows(*.lacking, *.example))]
    Gaps {
        /// The first class.
        first: i64,
        /// The last class, which has a row.
        last: i64,
        /// How many of them have no row.
        lacking: i64,
        /// The first of these.
        example: i64,
        /// The smallest number, if no class from it to the largest lacks rows.
        first_class: Option<i64>,
        /// All labels, if they are few.
        all: Option<Vec<String>>,
    },
    /// Numbers and texts.
    #[error("some labels are numbers (line {number_line}: `{number}`) and some are not (line {text_line}: `{text}`)")]
    Mixed {
        /// The first number.
        number: String,
        /// Its line, counted from 1.
        number_line: u64,
        /// The first text.
        text: String,
        /// Its line, counted from 1.
        text_line: u64,
    },
}

/// A column in a message: counted from 1, as spreadsheets do, with its name or the index that a run file gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnPlace {
    /// Counted from 0.
    pub index: usize,
    /// By the header.
    pub name: Option<String>,
}

impl fmt::Display for ColumnPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(formatter, "column {} (`{}`)", self.index + 1, shown(name)),
            None => write!(formatter, "column {} (index {})", self.index + 1, self.index),
        }
    }
}

impl ColumnPlace {
    /// The column as it is written in a run file.
    pub(super) fn key(&self) -> String {
        self.name.as_ref().map_or_else(|| self.index.to_string(), |name| format!("{name:?}"))
    }
}

fn shown_name(name: &str) -> String {
    if name.is_empty() { "with no name".to_owned() } else { format!("`{}`", shown(name)) }
}

fn shown_cell(text: &str) -> String {
    if text.is_empty() { "a blank cell".to_owned() } else { format!("`{text}`") }
}

fn no_header(training: &Option<PathBuf>) -> String {
    match training {
        None => "holds only numbers".to_owned(),
        Some(training) => format!("has none of the names of `{}`", training.display()),
    }
}

fn differences(missing: &[String], extra: &[String]) -> String {
    let named = |what: &str, names: &[String]| (!names.is_empty()).then(|| format!("{what} {}", names_of(names)));
    [named("it lacks", missing), named("only it has", extra)].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn not_numbers(columns: &[(ColumnPlace, Vec<String>)], dates: bool) -> String {
    let what = if dates { "dates or times" } else { "texts" };
    let one = |(column, examples): &(ColumnPlace, Vec<String>)| {
        format!("{column} holds {what}, such as {}", list(examples.iter().map(String::as_str), "and"))
    };
    columns.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn classes_without_rows(count: i64, example: i64) -> String {
    if count == 1 { format!("the class {example}") } else { format!("{count} of them, such as {example}") }
}

/// Names in a sentence, the first ones of many.
pub(super) fn names_of(names: &[String]) -> String {
    let mut all: Vec<String> = names.iter().take(SHOWN_NAMES).map(|name| format!("`{}`", shown(name))).collect();
    if names.len() > SHOWN_NAMES {
        all.push(format!("… ({} in all)", names.len()));
    }
    all.join(", ")
}

/// A text, shortened and on one line.
pub(super) fn shown(text: &str) -> String {
    let text = text.replace(['\n', '\r', '\t'], " ");
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
