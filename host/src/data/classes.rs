//! The classes in the options.

use super::DataError;
use super::options::ClassOptions;

/// More classes than this have no names made for them.
const MOST_NAMES: usize = 1 << 20;

/// The numbers of classes are between this and its negative: a model has an output for each.
pub(super) const LARGEST_CLASS: i64 = 1_000_000_000;

/// The number of the first class, 0 if the options do not say it.
///
/// # Errors
///
/// A number beyond [`LARGEST_CLASS`].
pub(super) fn first_class(option: Option<i64>) -> Result<i64, DataError> {
    let first = option.unwrap_or(0);
    if (-LARGEST_CLASS..=LARGEST_CLASS).contains(&first) {
        return Ok(first);
    }
    Err(DataError::Option {
        option: "data.first_class".to_owned(),
        value: first.to_string(),
        expected: "a whole number between -1000000000 and 1000000000",
    })
}

/// The number of classes, and their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClassTable {
    pub(super) count: usize,
    /// In their order; empty if they have only numbers.
    pub(super) names: Vec<String>,
}

impl ClassTable {
    /// The classes that the options give.
    ///
    /// # Errors
    ///
    /// No class, or a duplicate name.
    pub(super) fn new(options: &ClassOptions) -> Result<ClassTable, DataError> {
        let wrong =
            |value: String, expected| Err(DataError::Option { option: "data.classes".to_owned(), value, expected });
        match options {
            ClassOptions::Count(0) => wrong("0".to_owned(), "at least 1"),
            ClassOptions::Count(count) => Ok(ClassTable { count: *count, names: Vec::new() }),
            ClassOptions::Names(names) => {
                let mut seen = std::collections::HashSet::new();
                if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
                    return wrong(twice.to_string(), "a list that names each class once");
                }
                if names.is_empty() {
                    return wrong("[]".to_owned(), "a list of at least one class");
                }
                Ok(ClassTable { count: names.len(), names: names.clone() })
            }
        }
    }

    /// The classes of whole numbers: from `first` on, or as many as the options give; `largest` is the largest number
    /// that occurs.
    ///
    /// # Errors
    ///
    /// As of [`ClassTable::new`].
    pub(super) fn of_numbers(
        options: Option<&ClassOptions>,
        first: i64,
        largest: i64,
    ) -> Result<ClassTable, DataError> {
        let mut table = match options {
            Some(options) => ClassTable::new(options)?,
            None => {
                let count = largest.saturating_sub(first).saturating_add(1);
                ClassTable { count: usize::try_from(count).unwrap_or(0).max(1), names: Vec::new() }
            }
        };
        // Class 0 of the model is not the number 0. So many names that they fill the memory are of no use to anybody.
        if table.names.is_empty() && first != 0 && table.count <= MOST_NAMES {
            table.names = (0..).take(table.count).map(|class: i64| first.saturating_add(class).to_string()).collect();
        }
        Ok(table)
    }
}
