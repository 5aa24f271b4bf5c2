//! The files and folders that callbacks write: two instances may not write the same.
//!
//! A schema says of an option that it names one by its format: `output-file` for a file, `output-folder` for a folder,
//! `output-name` for the name of files whose folder and extension are the kind's own.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::config::{Document, child, named_for};
use crate::dispatch::{Order, Planned};
use crate::report::{Label, Problem};

/// A problem for each instance that writes what an earlier one writes.
pub(super) fn check(document: &Document, order: &Order) -> Vec<Problem> {
    let mut writers: BTreeMap<(String, PathBuf), (usize, &str)> = BTreeMap::new();
    let mut problems = Vec::new();
    for (index, planned) in order.planned.iter().enumerate() {
        for (key, format, value) in outputs(planned) {
            // Kinds share folders, and files of one name with extensions of their own; a file is one whoever writes it.
            let kind = if format == "output-file" { "" } else { &*planned.kind.descriptor().kind };
            match writers.entry((kind.to_owned(), normalized(value))) {
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert((index, key))),
                std::collections::btree_map::Entry::Occupied(entry) => {
                    let &(earlier, earlier_key) = entry.get();
                    let names = [order.planned[earlier].name(), planned.name()];
                    problems.push(
                        Problem::new(format!("`{}` and `{}` both write `{value}`", names[0], names[1]))
                            .with_label(label(document, earlier, earlier_key, "the first"))
                            .with_label(label(document, index, key, "the second"))
                            .with_hint(format!(
                                "give one of them another `{key}`: `{key} = \"{}\"`",
                                named_for(value, names[1])
                            )),
                    );
                }
            }
        }
    }
    problems
}

/// The options of an instance that name what it writes: key, format, value.
fn outputs(planned: &Planned) -> impl Iterator<Item = (&str, &str, &str)> {
    let properties = planned.kind.descriptor().options.as_ref().and_then(|schema| schema.get("properties"));
    planned.options.options.iter().filter_map(move |(key, value)| {
        let format = properties?.get(key)?.get("format")?.as_str()?;
        let value = value.as_str().filter(|value| !value.is_empty())?;
        format.starts_with("output-").then_some((key.as_str(), format, value))
    })
}

/// The same path written in one way.
fn normalized(path: &str) -> PathBuf {
    Path::new(path).components().filter(|component| *component != Component::CurDir).collect()
}

/// The option, or the plugin where the option is a default.
fn label(document: &Document, index: usize, key: &str, text: &str) -> Option<Label> {
    let plugin = format!("/plugins/{index}");
    let option = document.label_value(&child(&format!("{plugin}/options"), key), text);
    option.or_else(|| document.label_value(&format!("{plugin}/kind"), text))
}
