//! The run file: read, overridden, checked whole, and turned into [`RunFile`].
//!
//! [`load`] parses the document, applies the overrides and checks it against the schema of [`RunFile`]; `rules.rs`
//! checks what a schema cannot express; then serde builds the sections, each of which belongs to the module that reads
//! it. Every problem is found before an error is returned, and each one points at its place.
//!
//! Nothing here looks at the file system: paths, kinds and splits are checked by the modules that use them.

mod distributed;
mod rules;
mod sections;
#[cfg(test)]
mod tests;

pub use distributed::{Backend, DistributedOptions};
pub use sections::{CheckpointSignal, EvalOptions, KernelsOption, Length, RunFile, RunOptions, Threads, TrainOptions};

use crate::config::{Document, check};
use crate::report::{Problem, Problems};

/// A checked run file and the document that it was read from; the document is kept for later checks (plugin options)
/// that point into it.
#[derive(Debug)]
pub struct Loaded {
    /// The run file with its defaults filled in.
    pub run_file: RunFile,
    /// The document, with the places.
    pub document: Document,
}

/// Reads and checks a run file.
///
/// `name` is the file's name in messages; `plugins` are the arguments of `--plugin`, and `overrides` those of `--set`,
/// which may refer to those plugins too. Later ones win.
///
/// # Errors
/// Everything that is wrong, each with its place. If the TOML does not parse, only that.
pub fn load(name: &str, text: &str, plugins: &[String], overrides: &[String]) -> Result<Loaded, Problems> {
    let mut document = Document::parse(name, text)?;
    let mut problems: Vec<Problem> =
        plugins.iter().filter_map(|argument| document.declare_plugin(argument).err()).collect();
    problems.extend(overrides.iter().filter_map(|argument| document.set(argument).err()));
    let unfit: Vec<Problem> = document.unfit().chain(rules::inputs(&document)).collect();
    // The number that replaces an unfit one may break a rule of the schema.
    let place =
        |problem: &Problem| problem.labels().first().map(|label| (label.source.name().to_owned(), label.span.clone()));
    let told = |problem: &Problem| unfit.iter().any(|unfit| place(unfit) == place(problem));
    problems.extend(check(&document, "", &schema()).into_iter().filter(|problem| !told(problem)));
    problems.extend(rules::check(&document));
    problems.extend(unfit);
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
    let mut schema = schemars::schema_for!(RunFile).to_value();
    bound(&mut schema);
    schema
}

/// Gives every whole number of 32 bits its largest value: without one, a larger number has no place in messages.
fn bound(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(members) => {
            if members.get("format").is_some_and(|format| format == "uint32") {
                members.entry("maximum").or_insert(u32::MAX.into());
            }
            members.values_mut().for_each(bound);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(bound),
        _ => {}
    }
}
