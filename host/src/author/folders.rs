//! The plugin folders of a command.

use std::io::Write;
use std::path::PathBuf;

use host_command::arguments::Folders;

use super::output::cannot_write;
use crate::plugins::{CatalogueError, Found, VARIABLE};
use crate::report::{Problem, Problems, Style, list, render};

/// The paths that were given; without any, those that a search finds, which `notes` is told of. May be empty.
///
/// # Errors
///
/// Those of `notes`.
pub fn find(folders: Folders, notes: &mut dyn Write) -> Result<Vec<PathBuf>, Problems> {
    if !folders.paths.is_empty() {
        return Ok(folders.paths);
    }
    let found = Found::search();
    if let Some(paths) = found.empty_variable() {
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let problem = Problem::new(format!(
            "`{VARIABLE}` names {}, where there is no plugin library",
            list(names.iter().map(String::as_str), "and")
        ))
        .with_hint("correct it, or unset it".to_owned());
        write!(notes, "{}", render(&[problem], Style::of_stderr())).map_err(cannot_write)?;
    }
    if !found.paths.is_empty() {
        writeln!(notes, "{found}").map_err(cannot_write)?;
    }
    Ok(found.paths)
}

/// As [`find`], for a command that needs a library.
///
/// # Errors
///
/// When there is none.
pub(super) fn require(folders: Folders, notes: &mut dyn Write) -> Result<Vec<PathBuf>, Problems> {
    let paths = find(folders, notes)?;
    if paths.is_empty() {
        let searched = Found::search().passed().map(|path| path.display().to_string()).collect();
        return Err(Problem::from(&CatalogueError::NotFound { searched }).into());
    }
    Ok(paths)
}
