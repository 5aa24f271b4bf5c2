//! The files and folders that callbacks read: relative to the run file, as those of `[data]` are.
//!
//! A schema says of an option that it names one by the format `input-path`. The resolved run file has it absolute, so that a
//! run resumes from anywhere.

use std::path::Path;

use serde_json::Value;

use crate::config::{Document, child};
use crate::dispatch::{Order, Planned};
use crate::report::Problem;

/// The format of an option that names what a plugin reads.
const INPUT: &str = "input-path";

/// Makes the paths absolute, as seen from `folder`; a problem for each that leads nowhere.
pub(super) fn resolve(document: &Document, order: &mut Order, folder: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, planned) in order.planned.iter_mut().enumerate() {
        for key in inputs(planned) {
            let Some(Value::String(text)) = planned.options.options.get_mut(&key) else { continue };
            match std::path::absolute(folder.join(&*text)) {
                Ok(path) if path.exists() => *text = path.display().to_string(),
                found => {
                    let place = found.map_or_else(|_| text.clone(), |path| path.display().to_string());
                    let option = child(&format!("/plugins/{index}/options"), &key);
                    problems.push(
                        Problem::new(format!("`{}` reads `{place}`, which is not there", planned.options.name))
                            .with_label(document.label_value(&option, "not there"))
                            .with_hint(format!("`{key}` is relative to the run file")),
                    );
                }
            }
        }
    }
    problems
}

/// The options of an instance that name what it reads.
fn inputs(planned: &Planned) -> Vec<String> {
    let properties = planned.kind.descriptor().options.as_ref().and_then(|schema| schema.get("properties"));
    let is_input = |key: &str| {
        let format = properties.and_then(|properties| properties.get(key)?.get("format")?.as_str());
        format == Some(INPUT)
    };
    let named = planned.options.options.iter().filter(|(_, value)| value.as_str().is_some_and(|text| !text.is_empty()));
    named.filter(|(key, _)| is_input(key)).map(|(key, _)| key.clone()).collect()
}
