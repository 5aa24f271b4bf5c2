//! The plugin folders of a command.

use std::io::Write;
use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::output::cannot_write;
use crate::plugins::{CatalogueError, Found, VARIABLE};
use crate::report::{Problem, Problems, Style, list, render};

/// The plugin folders of a command.
#[derive(Clone, Debug, Default, Args)]
pub struct Folders {
    /// A folder of plugin libraries or a library; may be given again. Without a value, `./plugins`. Without the option,
    /// what `HOST_PLUGINS` names, or else the folder `plugins` beside the program.
    #[arg(long = "plugins", value_name = "DIR|FILE", num_args = 0..=1, default_missing_value = "plugins", action = ArgAction::Append)]
    paths: Vec<PathBuf>,
}

impl Folders {
    /// The paths that were given; without any, those that a search finds, which `notes` is told of. May be empty.
    ///
    /// # Errors
    ///
    /// Those of `notes`.
    pub fn find(self, notes: &mut dyn Write) -> Result<Vec<PathBuf>, Problems> {
        if !self.paths.is_empty() {
            return Ok(self.paths);
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

    /// As [`Self::find`], for a command that needs a library.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn require(self, notes: &mut dyn Write) -> Result<Vec<PathBuf>, Problems> {
        let paths = self.find(notes)?;
        if paths.is_empty() {
            let searched = Found::search().passed().map(|path| path.display().to_string()).collect();
            return Err(Problem::from(&CatalogueError::NotFound { searched }).into());
        }
        Ok(paths)
    }
}
