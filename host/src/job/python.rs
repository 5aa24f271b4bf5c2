//! Which plugins in Python a run opens: the files whose kinds it names, and the classes of its entries of the kind `python`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::{Document, PluginOptions};
use crate::plugins::python::{Class, KIND};
use crate::plugins::{Catalogue, Python};
use crate::report::{Problem, Problems};

/// The program of a run file in `folder`: a path there is relative to it, a name is looked for as a shell does.
pub(super) fn program(program: PathBuf, folder: &Path) -> PathBuf {
    if program.components().count() < 2 {
        return program;
    }
    std::path::absolute(folder.join(&program)).unwrap_or(program)
}

/// Opens them; files are relative to `base`.
///
/// # Errors
///
/// A file that is not there, a class that cannot be opened, or no Python.
pub(super) fn open(
    catalogue: &mut Catalogue,
    python: &Python,
    document: &Document,
    declared: &[PluginOptions],
    base: &Path,
) -> Result<(), Problems> {
    let wanted = |kind: &str| declared.iter().any(|options| options.kind == kind);
    catalogue.open_sources(python, wanted).map_err(|error| Problems::from(Problem::from(&error)))?;
    let mut problems = Vec::new();
    if catalogue.kind(KIND).is_none() {
        for (entry, options) in declared.iter().enumerate().filter(|(_, options)| options.kind == KIND) {
            let place = format!("/plugins/{entry}");
            let chosen = class_of(options, document, &place, base).and_then(|class| {
                let label = || document.label_value(&format!("{place}/kind"), "");
                catalogue.choose(entry, &class, python).map_err(|error| Problem::from(&error).with_label(label()))
            });
            problems.extend(chosen.err());
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

/// The class that an entry's options name.
fn class_of(options: &PluginOptions, document: &Document, place: &str, base: &Path) -> Result<Class, Problem> {
    let text = |key: &str| match options.options.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(Problem::new(format!("`{key}` of `{}` is no text", options.name))
            .with_label(document.label_value(&format!("{place}/options/{key}"), "not text"))),
    };
    let file = match text("file")? {
        "" => None,
        file => Some(file_of(file, base).ok_or_else(|| {
            Problem::new(format!("`{}` is a class of `{file}`, which is not there", options.name))
                .with_label(document.label_value(&format!("{place}/options/file"), "not there"))
                .with_hint("`file` is relative to the run file".to_owned())
        })?),
    };
    Ok(Class { file, name: text("class")?.to_owned(), adapter: text("adapter")?.to_owned() })
}

fn file_of(file: &str, base: &Path) -> Option<PathBuf> {
    std::path::absolute(base.join(file)).ok().filter(|path| path.exists())
}
