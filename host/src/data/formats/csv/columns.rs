//! Which columns are features and targets. A header is the identity of columns: their order is that of the training
//! file, and other files are read by its names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use csv::ByteRecord;

use super::dialect::{Dialect, next};
use super::number::Notation;
use super::problem::{ColumnPlace, TableProblem, names_of, shown};
use super::text::Text;
use crate::data::options::{Column, CsvOptions, Task};
use crate::data::{DataError, FeatureColumn, FeatureContent};
use crate::report::did_you_mean;

/// The first record of a file.
pub(super) struct First {
    /// Its byte.
    start: u64,
    fields: Vec<String>,
}

impl First {
    pub(super) fn of(text: &Text<'_>, dialect: Dialect) -> Result<First, DataError> {
        let mut record = ByteRecord::new();
        let read = next(&mut dialect.reader(text.bytes()), &mut record);
        if !read.map_err(|source| DataError::Read { path: text.path.clone(), source })? {
            return Err(DataError::Empty { path: text.path.clone() });
        }
        let fields = record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect();
        Ok(First { start: record.position().map_or(0, csv::Position::byte), fields })
    }

    pub(super) fn width(&self) -> usize {
        self.fields.len()
    }

    fn holds_only_numbers(&self, notation: &Notation<'_>) -> bool {
        self.fields.iter().all(|field| notation.number(field).is_some())
    }

    /// Whether the fields count the columns, as data frames without names are written.
    fn counts(&self) -> bool {
        [0, 1]
            .into_iter()
            .any(|first| (first..).zip(&self.fields).all(|(number, field)| field.parse() == Ok::<u64, _>(number)))
    }

    fn check_names(&self) -> Result<(), TableProblem> {
        let mut seen = HashMap::new();
        for (second, name) in self.fields.iter().enumerate() {
            if let Some(first) = seen.insert(name.as_str(), second) {
                return Err(TableProblem::DuplicateColumn { name: name.clone(), first, second });
            }
        }
        Ok(())
    }
}

/// The columns of the training file.
pub(super) struct Columns {
    /// Those of its header; `None` without one.
    names: Option<Vec<String>>,
    width: usize,
    /// In the order of a sample.
    pub(super) features: Vec<Feature>,
    pub(super) targets: Vec<usize>,
    /// Names to leave out, here or in the files of other splits.
    dropped: BTreeSet<String>,
    /// Whether every column that is not a target and not left out is a feature.
    takes_all: bool,
}

/// A column that is a feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Feature {
    pub(super) column: usize,
    pub(super) categorical: bool,
}

/// Where the columns of the training file are in a file.
pub(super) struct Places {
    /// By the columns of the training file.
    at: Vec<Option<usize>>,
    /// Whether they are in another order.
    pub(super) moved: bool,
}

impl Places {
    /// The place of a column that is a feature or a target.
    pub(super) fn of(&self, column: usize) -> usize {
        // Every column that is read has a place: `Columns::places` looked for it.
        self.at.get(column).copied().flatten().unwrap_or(column)
    }
}

impl Columns {
    /// The columns of the training file, by its first line.
    pub(super) fn of(options: &CsvOptions, text: &Text<'_>, first: &First) -> Result<Columns, DataError> {
        let names = match options.header {
            true => Some(header(options, text, first).map_err(|problem| DataError::table(&text.path, problem))?),
            false => None,
        };
        let width = first.width();
        let columns = Columns {
            names,
            width,
            features: Vec::new(),
            targets: Vec::new(),
            dropped: BTreeSet::new(),
            takes_all: options.features.is_none(),
        };
        columns.chosen(options, text)
    }

    /// The columns of a file that is read as an earlier one was, whose features are `described`; whether it has the targets of
    /// the options. Other columns are left out.
    pub(super) fn described(
        options: &CsvOptions,
        described: &[FeatureColumn],
        text: &Text<'_>,
        first: &First,
    ) -> Result<(Columns, bool), TableProblem> {
        let width = first.width();
        let mut columns = Columns {
            names: None,
            width,
            features: Vec::new(),
            targets: Vec::new(),
            dropped: BTreeSet::new(),
            takes_all: false,
        };
        let targets = options.target.as_slice();
        if options.header {
            let is_named =
                |column: &FeatureColumn| matches!(&column.column, Column::Name(name) if first.fields.contains(name));
            if first.holds_only_numbers(&Notation::of(options)) && !described.iter().any(is_named) {
                let training = Some(options.path.clone());
                return Err(TableProblem::NoHeader { line: text.line(first.start), training });
            }
            first.check_names()?;
            columns.names = Some(first.fields.clone());
        }
        // Without names, a file of just the features has them in their order.
        let only_features = !options.header && width == described.len();
        let find = |index: usize, column: &Column| match only_features {
            true => Some(index),
            false => columns.find(column).ok(),
        };
        let found: Vec<Option<usize>> =
            described.iter().enumerate().map(|(index, feature)| find(index, &feature.column)).collect();
        let lacking = described.iter().zip(&found).filter(|(_, found)| found.is_none());
        let missing: Vec<String> = lacking.map(|(feature, _)| feature.column.to_string()).collect();
        if !missing.is_empty() {
            let training = options.path.clone();
            if !options.header {
                let expected = described.len() + targets.len();
                return Err(TableProblem::OtherWidth { training, expected, found: width });
            }
            return Err(TableProblem::OtherColumns { training, missing, extra: Vec::new() });
        }
        let is_text = |feature: &FeatureColumn| matches!(feature.content, FeatureContent::Categories { .. });
        let features: Vec<Feature> = described
            .iter()
            .zip(found.into_iter().flatten())
            .map(|(feature, column)| Feature { column, categorical: is_text(feature) })
            .collect();
        let is_feature = |column: &usize| features.iter().any(|feature| feature.column == *column);
        let targets: Option<Vec<usize>> = match only_features {
            true => None,
            false => {
                targets.iter().map(|column| columns.find(column).ok().filter(|column| !is_feature(column))).collect()
            }
        };
        let has_targets = targets.is_some();
        columns.targets = targets.unwrap_or_default();
        columns.features = features;
        Ok((columns, has_targets))
    }

    /// With the features and targets of the options, at least one each.
    fn chosen(mut self, options: &CsvOptions, text: &Text<'_>) -> Result<Columns, DataError> {
        let all = |columns: &[Column]| -> Result<Vec<usize>, DataError> {
            let find = |column| self.find(column).map_err(|problem| DataError::table(&text.path, problem));
            columns.iter().map(find).collect()
        };
        let wrong =
            |key: &str, value: String, expected| DataError::Option { option: format!("data.{key}"), value, expected };
        let targets = all(options.target.as_slice())?;
        match (targets.len(), options.task) {
            (0, _) => return Err(wrong("target", "[]".to_owned(), "at least one column")),
            (2.., Task::Classification) => {
                let expected = "one column, or `task = \"regression\"` with it to predict several numbers";
                return Err(wrong("target", format!("{} columns", targets.len()), expected));
            }
            _ => {}
        }
        // A name that only another split's file has is left out there.
        let elsewhere = |column: &&Column| matches!((column, &self.names), (Column::Name(name), Some(names)) if !names.contains(name));
        let mut dropped = Vec::new();
        for column in options.drop.iter().filter(|column| !elsewhere(column)) {
            dropped.extend(all(std::slice::from_ref(column))?);
        }
        let features = match &options.features {
            None => (0..self.width).filter(|column| !targets.contains(column) && !dropped.contains(column)).collect(),
            Some(features) => all(features)?,
        };
        let name = |list: &[Column], position: usize| list.get(position).map_or_else(String::new, Column::to_string);
        if let Some(both) = features.iter().position(|column| targets.contains(column)) {
            let value = name(options.features.as_deref().unwrap_or_default(), both);
            return Err(wrong("features", value, "columns other than the target"));
        }
        if let Some(both) = dropped.iter().position(|column| targets.contains(column) || features.contains(column)) {
            return Err(wrong("drop", name(&options.drop, both), "columns other than the target and the features"));
        }
        if features.is_empty() {
            return Err(wrong("features", "[]".to_owned(), "at least one column other than the target"));
        }
        let categorical = all(&options.categorical)?;
        if let Some(other) = categorical.iter().position(|column| !features.contains(column)) {
            return Err(wrong("categorical", name(&options.categorical, other), "columns that are features"));
        }
        let feature = |column| Feature { column, categorical: categorical.contains(&column) };
        let names = options.drop.iter().filter_map(|column| match column {
            Column::Name(name) => Some(name.clone()),
            Column::Index(index) => self.names.as_ref()?.get(*index).cloned(),
        });
        self.dropped = names.collect();
        self.features = features.into_iter().map(feature).collect();
        self.targets = targets;
        Ok(self)
    }

    fn find(&self, column: &Column) -> Result<usize, TableProblem> {
        let found = match (column, &self.names) {
            (Column::Index(index), _) => Some(*index).filter(|index| *index < self.width),
            (Column::Name(name), Some(names)) => names.iter().position(|column| column == name),
            (Column::Name(name), None) => return Err(TableProblem::NameWithoutHeader { name: name.clone() }),
        };
        found.ok_or_else(|| match (column, &self.names) {
            (Column::Name(name), Some(names)) => TableProblem::UnknownColumn {
                column: column.clone(),
                available: names_of(names),
                near: did_you_mean(name, names.iter().map(String::as_str)),
            },
            _ => TableProblem::UnknownColumn {
                column: column.clone(),
                available: format!("columns 0 to {}", self.width.saturating_sub(1)),
                near: None,
            },
        })
    }

    /// Where the columns are in the training file.
    pub(super) fn own_places(&self) -> Places {
        Places { at: (0..self.width).map(Some).collect(), moved: false }
    }

    /// Where the columns are in the file of another split.
    pub(super) fn places(
        &self,
        options: &CsvOptions,
        training: &Text<'_>,
        text: &Text<'_>,
        first: &First,
    ) -> Result<Places, TableProblem> {
        let Some(names) = &self.names else {
            if first.width() == self.width {
                return Ok(self.own_places());
            }
            let (training, expected, found) = (training.path.clone(), self.width, first.width());
            return Err(TableProblem::OtherWidth { training, expected, found });
        };
        let here: BTreeMap<&str, usize> = first.fields.iter().map(String::as_str).zip(0..).collect();
        let has = |name: &String| here.contains_key(name.as_str());
        let is_row = first.holds_only_numbers(&Notation::of(options)) && !names.iter().all(has);
        if is_row || !names.iter().any(has) {
            return Err(TableProblem::NoHeader { line: text.line(first.start), training: Some(training.path.clone()) });
        }
        first.check_names()?;
        let at: Vec<Option<usize>> = names.iter().map(|name| here.get(name.as_str()).copied()).collect();
        let needed = |column: &usize| {
            self.targets.contains(column) || self.features.iter().any(|feature| feature.column == *column)
        };
        let lacking = (0..names.len()).filter(|column| at[*column].is_none() && needed(column));
        let missing: Vec<String> = lacking.map(|column| names[column].clone()).collect();
        // Of a list of features, more columns change nothing.
        let known = |name: &&String| !self.takes_all || names.contains(name) || self.dropped.contains(*name);
        let extra: Vec<String> = first.fields.iter().filter(|name| !known(name)).cloned().collect();
        if !missing.is_empty() || !extra.is_empty() {
            return Err(TableProblem::OtherColumns { training: training.path.clone(), missing, extra });
        }
        let order: Vec<usize> = at.iter().copied().flatten().collect();
        Ok(Places { moved: !order.is_sorted(), at })
    }

    /// Refuses a name in `drop` that no file has: `others` are the first lines of the other splits' files.
    pub(super) fn check_dropped(
        &self,
        options: &CsvOptions,
        training: &Text<'_>,
        others: &[&First],
    ) -> Result<(), DataError> {
        let lacks = |column: &&Column| match column {
            Column::Name(name) => !others.iter().any(|first| first.fields.contains(name)),
            Column::Index(_) => true,
        };
        let mut names = options.drop.iter().filter(lacks);
        names
            .try_for_each(|column| self.find(column).map(drop))
            .map_err(|problem| DataError::table(&training.path, problem))
    }

    /// The column in messages, when it is at `index` of the file.
    pub(super) fn place(&self, column: usize, index: usize) -> ColumnPlace {
        ColumnPlace { index, name: self.name(column).map(str::to_owned) }
    }

    fn name(&self, column: usize) -> Option<&str> {
        self.names.as_ref()?.get(column).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The column's name, or its index without a header.
    pub(super) fn label(&self, column: usize) -> String {
        self.name(column).map_or_else(|| column.to_string(), str::to_owned)
    }

    /// The column as a run file can name it.
    pub(super) fn key(&self, column: usize) -> Column {
        self.name(column).map_or(Column::Index(column), |name| Column::Name(name.to_owned()))
    }

    pub(super) fn has_header(&self) -> bool {
        self.names.is_some()
    }

    /// Features without a name: data frames write their row numbers so.
    pub(super) fn unnamed_feature(&self) -> Option<usize> {
        let unnamed = |feature: &&Feature| self.has_header() && self.name(feature.column).is_none();
        self.features.iter().find(unnamed).map(|feature| feature.column)
    }
}

/// The names of the training file's columns.
fn header(options: &CsvOptions, text: &Text<'_>, first: &First) -> Result<Vec<String>, TableProblem> {
    let listed = [&options.drop, &options.categorical].into_iter().chain(&options.features).flatten();
    let mut named = options.target.as_slice().iter().chain(listed);
    let is_named = named.any(|column| matches!(column, Column::Name(name) if first.fields.contains(name)));
    if !is_named && !first.counts() && first.holds_only_numbers(&Notation::of(options)) {
        return Err(TableProblem::NoHeader { line: text.line(first.start), training: None });
    }
    first.check_names()?;
    Ok(first.fields.clone())
}

/// The name of a column in notes.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", shown(name))
}
