//! The labels of a classification.

use std::collections::{BTreeMap, HashMap};

use super::number::Notation;
use super::problem::{CellProblem, LabelsProblem};
use super::table::CsvTable;
use super::texts::Entry;
use crate::data::DataError;
use crate::data::classes::{ClassTable, LARGEST_CLASS};
use crate::data::options::{ClassOptions, CsvOptions};
use crate::report::did_you_mean;

/// More numbers than this, most of them in one row only, are measurements rather than classes.
const MANY_NUMBERS: usize = 20;

/// More classes than this get no names made for them.
const MOST_NAMES: usize = 1 << 20;

/// At most this many labels are listed in a hint.
const FEW_LABELS: usize = 12;

/// Which labels are which classes.
pub(super) struct Classes {
    pub(super) table: ClassTable,
    by: By,
    /// Whether the options say which they are.
    declared: bool,
}

enum By {
    /// The first class has this number.
    Number { first: i64, first_class: Option<i64> },
    /// Names, as texts and as the numbers that some of them are.
    Name { texts: HashMap<String, i64>, numbers: HashMap<u64, Option<i64>>, first_class: Option<i64> },
}

impl Classes {
    /// The classes of the options, or those of the labels in `main`.
    pub(super) fn of(options: &CsvOptions, main: &CsvTable<'_>, given: &[&CsvTable<'_>]) -> Result<Classes, DataError> {
        let all = || std::iter::once(main).chain(given.iter().copied());
        let notation = Notation::of(options);
        match &options.classes {
            None => Classes::found(options, main, all()),
            Some(classes) => {
                let table = ClassTable::new(classes)?;
                let table =
                    ClassTable { names: names(table.names, table.count, options.first_class.unwrap_or(0)), ..table };
                // A value of `first_class` that makes every label a class.
                let first_class = whole_range(&notation, all())
                    .filter(|(low, high)| options.first_class != Some(*low) && high - low < table.count as i64)
                    .map(|(low, _)| low);
                let by = match (classes, options.first_class) {
                    (ClassOptions::Names(names), None) => By::named(names, &notation, first_class),
                    (_, first) => By::Number { first: first.unwrap_or(0), first_class },
                };
                Ok(Classes { table, by, declared: true })
            }
        }
    }

    /// The classes that the labels are.
    fn found<'a>(
        options: &CsvOptions,
        main: &CsvTable<'_>,
        all: impl Iterator<Item = &'a CsvTable<'a>> + Clone,
    ) -> Result<Classes, DataError> {
        let notation = Notation::of(options);
        for table in all.clone() {
            check_kinds(&notation, table)?;
        }
        let Some((low, _)) = whole_range(&notation, std::iter::once(main)) else {
            let mut names: Vec<String> = main.labels().map(|entry| entry.text.clone()).collect();
            names.sort_unstable();
            let by = By::named(&names, &notation, None);
            return Ok(Classes { table: ClassTable { count: names.len(), names }, by, declared: false });
        };
        let numbers: BTreeMap<i64, &Entry> =
            main.labels().filter_map(|entry| Some((whole(&notation, &entry.text)?, entry))).collect();
        let first = options.first_class.unwrap_or(0);
        let last = numbers.last_key_value().map_or(low, |(last, _)| *last);
        let complete = numbers.len() as i64 == last - low + 1;
        let first_class = Some(low).filter(|low| complete && *low != first);
        let listed =
            || (numbers.len() <= FEW_LABELS).then(|| numbers.values().map(|entry| entry.text.clone()).collect());
        let wrong = |problem| Err(main.wrong_labels(problem));
        if let Some(entry) = numbers.get(&low).filter(|_| low < first) {
            let (text, line) = (entry.text.clone(), main.line(entry.start));
            return wrong(LabelsProblem::BelowFirst { text, line, first, first_class, all: listed() });
        }
        let count = (last - first).saturating_add(1);
        if numbers.len() > MANY_NUMBERS && numbers.len() * 2 > main.rows {
            return wrong(LabelsProblem::Many { rows: main.rows, distinct: numbers.len(), count });
        }
        if let Some(example) = (first..=last).find(|number| !numbers.contains_key(number)) {
            let lacking = count - numbers.len() as i64;
            return wrong(LabelsProblem::Gaps { first, last, lacking, example, first_class, all: listed() });
        }
        let count = usize::try_from(count).unwrap_or(0);
        let table = ClassTable { count, names: names(Vec::new(), count, first) };
        Ok(Classes { table, by: By::Number { first, first_class: None }, declared: false })
    }

    /// The class of a label.
    pub(super) fn class(&self, text: &str, notation: &Notation<'_>) -> Result<i64, CellProblem> {
        let count = self.table.count;
        match &self.by {
            By::Number { first, first_class } => {
                let number = notation.number(text).filter(|number| number.fract() == 0.0);
                let number = number.ok_or(CellProblem::NotWhole)?;
                let class = number - *first as f64;
                if class >= 0.0 && class < count as f64 {
                    return Ok(class as i64);
                }
                let (first, last, first_class) = (*first, first + count as i64 - 1, *first_class);
                Err(match self.declared {
                    true => CellProblem::NotAClass { first, last, first_class },
                    false => CellProblem::NewClass { near: None },
                })
            }
            By::Name { texts, numbers, first_class } => {
                let number = || notation.number(text).and_then(|number| *numbers.get(&key(number))?);
                texts.get(text).copied().or_else(number).ok_or_else(|| {
                    let near = did_you_mean(text, self.table.names.iter().map(String::as_str));
                    match self.declared {
                        true => CellProblem::UnknownName { count, near, first_class: *first_class },
                        false => CellProblem::NewClass { near },
                    }
                })
            }
        }
    }
}

/// The names of classes: if they have none and do not begin at 0, their numbers, since the model's class 0 is another.
fn names(names: Vec<String>, count: usize, first: i64) -> Vec<String> {
    if !names.is_empty() || first == 0 || count > MOST_NAMES {
        return names;
    }
    (first..).take(count).map(|number| number.to_string()).collect()
}

impl By {
    fn named(names: &[String], notation: &Notation<'_>, first_class: Option<i64>) -> By {
        let texts = names.iter().cloned().zip(0..).collect();
        let mut numbers = HashMap::new();
        for (class, name) in (0..).zip(names) {
            if let Some(number) = notation.number(name) {
                // Of names that are the same number, only the text tells which is meant.
                numbers.entry(key(number)).and_modify(|class| *class = None).or_insert(Some(class));
            }
        }
        By::Name { texts, numbers, first_class }
    }
}

/// A number as a key; both zeros are one.
fn key(number: f64) -> u64 {
    (number + 0.0).to_bits()
}

/// The whole number that a label is.
fn whole(notation: &Notation<'_>, text: &str) -> Option<i64> {
    let number = notation.number(text).filter(|number| number.fract() == 0.0)?;
    // Exact: far below 2^53.
    (number.abs() <= LARGEST_CLASS as f64).then_some(number as i64)
}

/// The smallest and the largest label, if all are whole numbers.
fn whole_range<'a>(notation: &Notation<'_>, tables: impl Iterator<Item = &'a CsvTable<'a>>) -> Option<(i64, i64)> {
    let mut range = None;
    for entry in tables.flat_map(CsvTable::labels) {
        let number = whole(notation, &entry.text)?;
        range =
            range.map_or(Some((number, number)), |(low, high): (i64, i64)| Some((low.min(number), high.max(number))));
    }
    range
}

/// Refuses labels that are partly numbers, and numbers that count nothing.
fn check_kinds(notation: &Notation<'_>, table: &CsvTable<'_>) -> Result<(), DataError> {
    let is_number = |entry: &&Entry| notation.number(&entry.text).is_some();
    let number = table.labels().find(is_number);
    let text = table.labels().find(|entry| !is_number(entry));
    if let (Some(number), Some(text)) = (number, text) {
        return Err(table.wrong_labels(LabelsProblem::Mixed {
            number: number.text.clone(),
            number_line: table.line(number.start),
            text: text.text.clone(),
            text_line: table.line(text.start),
        }));
    }
    match number.and_then(|_| table.labels().find(|entry| whole(notation, &entry.text).is_none())) {
        None => Ok(()),
        Some(entry) => {
            let all: Vec<String> = table.labels().map(|entry| entry.text.clone()).take(FEW_LABELS + 1).collect();
            let (text, line) = (entry.text.clone(), table.line(entry.start));
            let all = Some(all).filter(|all| all.len() <= FEW_LABELS);
            Err(table.wrong_labels(LabelsProblem::Fractions { text, line, all }))
        }
    }
}
