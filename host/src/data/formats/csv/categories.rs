//! Features that are texts.

use std::collections::HashMap;

use super::columns::{Columns, Feature, quoted};
use super::problem::{CellProblem, TableProblem, names_of};
use super::table::CsvTable;
use super::texts::{Entry, Texts};
use crate::data::options::{CategoricalAs, CsvOptions, UnknownCategory};
use crate::data::{DataError, FeatureColumn, FeatureContent};
use crate::report::did_you_mean;

/// The features of a table, as samples have them: what a category is, the training file decides.
pub(super) struct Encoder<'a> {
    columns: &'a Columns,
    categorical_as: CategoricalAs,
    unknown: UnknownCategory,
    /// By the columns that are categories: the position of each category.
    categories: Vec<HashMap<String, usize>>,
}

/// The encoded features of a table.
pub(super) struct Encoded {
    /// One row after another.
    pub(super) values: Vec<f64>,
    /// By the columns that are categories: rows whose category is not known, and rows without one.
    pub(super) zeros: Vec<(usize, usize)>,
}

impl<'a> Encoder<'a> {
    /// With the categories of the training file.
    ///
    /// # Errors
    ///
    /// Indices beside numbers, or a column without a category: its feature would be nothing.
    pub(super) fn of(
        options: &CsvOptions,
        columns: &'a Columns,
        main: &CsvTable<'_>,
    ) -> Result<Encoder<'a>, DataError> {
        let all_categorical = columns.features.iter().all(|feature| feature.categorical);
        if options.categorical_as == CategoricalAs::Index && !all_categorical {
            return Err(DataError::Option {
                option: "data.categorical_as".to_owned(),
                value: "index".to_owned(),
                expected: "`one_hot`, unless all features are in `categorical`",
            });
        }
        let learn = |texts: &Texts| {
            let mut names: Vec<&str> = texts.values().map(|entry| entry.text.as_str()).collect();
            names.sort_unstable();
            names.into_iter().map(str::to_owned).zip(0..).collect()
        };
        let encoder = Encoder {
            columns,
            categorical_as: options.categorical_as,
            unknown: options.unknown_category,
            categories: main.categories.iter().map(learn).collect(),
        };
        let without = encoder.categorical().find(|(_, count)| *count == 0);
        match without {
            Some((column, _)) => Err(main.wrong(TableProblem::NoCategory { column: columns.place(column, column) })),
            None => Ok(encoder),
        }
    }

    /// With the categories of an earlier file.
    pub(super) fn described(options: &CsvOptions, columns: &'a Columns, described: &[FeatureColumn]) -> Encoder<'a> {
        let known = described.iter().filter_map(|feature| match &feature.content {
            FeatureContent::Categories { names } => Some(names.iter().cloned().zip(0..).collect()),
            FeatureContent::Numbers { .. } => None,
        });
        Encoder {
            columns,
            categorical_as: options.categorical_as,
            unknown: options.unknown_category,
            categories: known.collect(),
        }
    }

    /// The columns that are categories, and how many these have.
    fn categorical(&self) -> impl Iterator<Item = (usize, usize)> {
        let columns = self.columns.features.iter().filter(|feature| feature.categorical);
        columns.map(|feature| feature.column).zip(self.categories.iter().map(HashMap::len))
    }

    /// The number of categories of all columns.
    fn vocabulary(&self) -> usize {
        self.categorical().map(|(_, count)| count).sum()
    }

    /// The numbers of a sample.
    pub(super) fn width(&self) -> usize {
        match self.categorical_as {
            CategoricalAs::OneHot => self.columns.features.len() - self.categories.len() + self.vocabulary(),
            CategoricalAs::Index => self.columns.features.len(),
        }
    }

    /// The columns of a sample, for whoever has other rows.
    pub(super) fn describe(&self) -> Vec<FeatureColumn> {
        let mut categories = self.categories.iter();
        let describe = |feature: &Feature| FeatureColumn {
            column: self.columns.key(feature.column),
            content: match feature.categorical {
                false => FeatureContent::Numbers { fill: None },
                true => FeatureContent::Categories {
                    names: categories.next().map(sorted).unwrap_or_default().into_iter().map(str::to_owned).collect(),
                },
            },
        };
        self.columns.features.iter().map(describe).collect()
    }

    /// What the categories are, for people.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut first = 0;
        let columns = self.categorical().zip(&self.categories);
        let mut notes: Vec<String> = columns
            .map(|((column, count), categories)| {
                let numbers = match self.categorical_as {
                    CategoricalAs::OneHot => String::new(),
                    CategoricalAs::Index => format!(", numbered from {first}"),
                };
                first += count;
                let names: Vec<String> = sorted(categories).into_iter().map(str::to_owned).collect();
                let label = quoted(&self.columns.label(column));
                format!("{label} has {}{numbers}: {}", counted(count, "category", "categories"), names_of(&names))
            })
            .collect();
        if self.categorical_as == CategoricalAs::Index {
            notes.push(format!("the features are indices for an `embedding` of `num_embeddings = {first}`"));
        }
        notes
    }

    /// The features of a table.
    pub(super) fn encode(&self, table: &mut CsvTable<'_>) -> Result<Encoded, DataError> {
        let numbers = std::mem::take(&mut table.numbers);
        if self.categories.is_empty() {
            return Ok(Encoded { values: numbers, zeros: Vec::new() });
        }
        let positions: Vec<Vec<Option<usize>>> = self
            .categorical()
            .zip(&self.categories)
            .zip(&table.categories)
            .map(|(((column, _), known), texts)| {
                let find = |entry: &Entry| self.position(table, column, known, entry);
                texts.distinct.iter().map(find).collect::<Result<_, _>>()
            })
            .collect::<Result<_, _>>()?;
        let counts: Vec<usize> = self.categories.iter().map(HashMap::len).collect();
        let mut values = Vec::with_capacity(table.rows * self.width());
        let mut zeros = vec![(0, 0); counts.len()];
        let mut numbers = numbers.into_iter();
        for row in 0..table.rows {
            let mut column = 0;
            let mut first = 0;
            for feature in &self.columns.features {
                if !feature.categorical {
                    values.extend(numbers.next());
                    continue;
                }
                let texts = &table.categories[column];
                let index = texts.rows[row];
                let position = positions[column][index as usize];
                match self.categorical_as {
                    CategoricalAs::OneHot => {
                        let begins = values.len();
                        values.resize(begins + counts[column], 0.0);
                        match position {
                            Some(position) => values[begins + position] = 1.0,
                            None if texts.is_missing(index) => zeros[column].1 += 1,
                            None => zeros[column].0 += 1,
                        }
                    }
                    // Every category has a position here: `position` and the table refuse what has none.
                    CategoricalAs::Index => values.push((first + position.unwrap_or(0)) as f64),
                }
                first += counts[column];
                column += 1;
            }
        }
        Ok(Encoded { values, zeros })
    }

    /// The position of a category in its column; `None` if all its features are 0.
    fn position(
        &self,
        table: &CsvTable<'_>,
        column: usize,
        known: &HashMap<String, usize>,
        entry: &Entry,
    ) -> Result<Option<usize>, DataError> {
        if !entry.is_value() {
            return Ok(None);
        }
        let zeros = self.categorical_as == CategoricalAs::OneHot;
        match known.get(&entry.text) {
            Some(position) => Ok(Some(*position)),
            None if zeros && self.unknown == UnknownCategory::Zeros => Ok(None),
            None => {
                let near = did_you_mean(&entry.text, sorted(known));
                Err(table.wrong_entry(column, entry, CellProblem::NewCategory { near, zeros }))
            }
        }
    }

    /// Which rows of a table have no category, for people.
    pub(super) fn zeros(&self, table: &CsvTable<'_>, encoded: &Encoded) -> Vec<String> {
        let mut notes = Vec::new();
        for ((column, _), (unknown, missing)) in self.categorical().zip(&encoded.zeros) {
            let label = quoted(&self.columns.label(column));
            for (count, what) in [(*unknown, "with a category that the training file lacks"), (*missing, "without one")]
            {
                if count > 0 {
                    let path = table.file.text.path.display();
                    let rows = counted(count, "row", "rows");
                    notes.push(format!("`{path}`: the features of {label} are 0 in {rows} {what}"));
                }
            }
        }
        notes
    }

    /// The features that are numbers.
    pub(super) fn numbers(&self) -> impl Iterator<Item = Number> {
        let mut counts = self.categories.iter().map(HashMap::len);
        let mut next = 0;
        let placed = self.columns.features.iter().enumerate().map(move |(index, feature)| {
            let position = next;
            next += match (feature.categorical, self.categorical_as) {
                (true, CategoricalAs::OneHot) => counts.next().unwrap_or(0),
                _ => 1,
            };
            (feature.categorical, Number { position, feature: index, column: feature.column })
        });
        placed.filter(|(categorical, _)| !categorical).map(|(_, number)| number)
    }
}

/// A feature that is a number.
pub(super) struct Number {
    /// In a sample.
    pub(super) position: usize,
    /// Among the features.
    pub(super) feature: usize,
    /// In the training file.
    pub(super) column: usize,
}

fn sorted(categories: &HashMap<String, usize>) -> Vec<&str> {
    let mut names: Vec<&str> = categories.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// `1 row`, `2 rows`.
pub(super) fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}
