//! Classes as the options name them.

use super::DataError;
use super::options::ClassOptions;

/// How many classes there are, and what they are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClassTable {
    pub(super) count: usize,
    /// In their order; empty where they have numbers alone.
    pub(super) names: Vec<String>,
}

impl ClassTable {
    /// What the options say.
    ///
    /// # Errors
    ///
    /// No class, or a name twice.
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
