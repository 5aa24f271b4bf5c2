//! Columns of a table that the run file names and the file does not have.

use serde_json::Value;

use crate::config::{Document, child};
use crate::data::{DataError, TableProblem};
use crate::report::Label;

/// The keys of `[data]` that name columns.
const KEYS: [&str; 4] = ["target", "features", "categorical", "drop"];

/// The place in the run file that names the column that an error is about; `None` for other errors.
pub(super) fn label(document: &Document, error: &DataError) -> Option<Label> {
    let DataError::Table { problem, .. } = error else { return None };
    let column = match &**problem {
        TableProblem::UnknownColumn { column, .. } => serde_json::to_value(column).ok()?,
        TableProblem::NameWithoutHeader { name } => Value::from(name.as_str()),
        _ => return None,
    };
    for key in KEYS {
        let pointer = child("/data", key);
        let named = document.value().pointer(&pointer);
        let entry = named.and_then(|value| value.as_array()?.iter().position(|entry| *entry == column));
        let pointer = match entry {
            Some(entry) => format!("{pointer}/{entry}"),
            None if named == Some(&column) => pointer,
            None => continue,
        };
        return document.label_value(&pointer, "not in the file");
    }
    None
}
