//! The run file: read, overridden, checked whole, and turned into [`RunFile`].
//!
//! The journey: [`Document::parse`] reads TOML and keeps where each value stands; [`Document::set`] applies
//! `--set KEY=VALUE`; [`check`] holds the document against a JSON Schema (the run file's own, or a plugin kind's for
//! its options) and the rules of `rules.rs` cover what a schema cannot say; then serde builds the [`RunFile`].
//! Every problem is found before an error is returned, and each one points at its place.
//!
//! Nothing here looks at the file system beyond reading the run file: paths, kinds and splits are the business of those
//! who use them.

mod check;
mod condition;
mod defaults;
mod document;
mod formats;
mod overrides;
mod plugin;
mod rules;
mod run_file;
#[cfg(test)]
mod tests;
mod when;

pub use check::check;
pub use condition::{Comparison, Condition};
pub use defaults::fill_defaults;
pub use document::{Document, Place, key_path};
pub use formats::FormatError;
pub use plugin::{Dispatch, OnError, PluginOptions};
pub use run_file::{Device, EvalOptions, Length, Precision, RunFile, RunOptions, Threads, TrainOptions};
pub use when::{At, Every, Mode, When};

use crate::report::{Problem, Problems};

/// A checked run file and the document that it was read from; the document is kept for later checks (plugin options)
/// that point into it.
#[derive(Debug)]
pub struct Loaded {
    /// The run file with its defaults filled in.
    pub run_file: RunFile,
    /// What was written, with the places.
    pub document: Document,
}

/// Reads and checks a run file.
///
/// `name` is what messages call the file; `overrides` are the arguments of `--set`, later ones winning.
///
/// # Errors
/// All that is wrong, each with its place. Where the TOML itself does not parse, that alone.
pub fn load(name: &str, text: &str, overrides: &[String]) -> Result<Loaded, Problems> {
    let mut document = Document::parse(name, text)?;
    let mut problems: Vec<Problem> = overrides.iter().filter_map(|argument| document.set(argument).err()).collect();
    problems.extend(check(&document, "", &schema()));
    problems.extend(rules::check(&document));
    if !problems.is_empty() {
        problems.sort_by_key(|problem| reading_order(problem, name));
        return Err(Problems(problems));
    }
    match serde_json::from_value(document.plain_value()) {
        Ok(run_file) => Ok(Loaded { run_file, document }),
        Err(error) => Err(Problem::new(format!("cannot read `{name}`")).with_cause(&error).into()),
    }
}

/// Problems without a place in the file first, then the others from its top.
fn reading_order(problem: &Problem, file: &str) -> Option<usize> {
    let label = problem.labels().first()?;
    (label.source.name() == file).then_some(label.span.start)
}

/// The JSON Schema of the run file (draft 2020-12), with the description and the default of every key.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(RunFile).to_value()
}
