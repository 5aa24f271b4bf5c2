//! The classes in the options.

use super::DataError;
use super::options::ClassOptions;

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
}
