//! `host plugins describe`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use host_command::arguments::Locking;
use plugin_api::protocol::Descriptor;
use serde_json::{Map, Value};

use super::options::{OptionRow, example, rows};
use super::output::cannot_write;
use crate::plugins::{Catalogue, Kind, Python, lock};
use crate::report::{Problem, Problems, Report, Style, did_you_mean, list, render, table, terminal};

/// No kind has that name.
#[derive(Debug, thiserror::Error)]
#[error("no library offers the plugin kind `{kind}`")]
struct UnknownKind {
    kind: String,
    hint: String,
}

impl Report for UnknownKind {
    fn hint(&self) -> Option<String> {
        Some(self.hint.clone())
    }
}

/// Writes the full description of a kind, for people, with an entry for the run file.
///
/// # Errors
///
/// An unknown kind, with the nearest names and the files that could not be loaded; and those of loading.
pub fn describe(
    kind: &str,
    paths: &[PathBuf],
    locking: &Locking,
    out: &mut dyn Write,
    warnings: &mut dyn Write,
) -> Result<ExitCode, Problems> {
    let lock = locking.locked.then(|| lock::path(locking.lock.as_deref(), None));
    let mut catalogue = Catalogue::load_with(paths, lock.as_deref(), None).map_err(|error| Problem::from(&error))?;
    catalogue.open_sources(&Python::default(), |name| name == kind).map_err(|error| Problem::from(&error))?;
    let Some(found) = catalogue.kind(kind) else {
        // The kind may be in a file that could not be loaded, so the error lists those too.
        let mut problems = vec![Problem::from(&unknown(kind, &catalogue))];
        problems.extend(catalogue.rejected().iter().map(|rejected| Problem::from(&rejected.error)));
        return Err(Problems(problems));
    };
    write!(warnings, "{}", render(&catalogue.exposures(), Style::of_stderr())).map_err(cannot_write)?;
    write_kind(found, out).map_err(cannot_write)?;
    Ok(ExitCode::SUCCESS)
}

fn unknown(kind: &str, catalogue: &Catalogue) -> UnknownKind {
    let opened = catalogue.kinds().iter().map(|kind| kind.descriptor().kind.as_str());
    let names: Vec<&str> = opened.chain(catalogue.unopened()).collect();
    let hint = did_you_mean(kind, names.iter().copied()).unwrap_or_else(|| {
        if names.is_empty() {
            "none of the folders' libraries could be loaded".to_owned()
        } else {
            format!("the folders offer {}", list(names, "and"))
        }
    });
    UnknownKind { kind: kind.to_owned(), hint }
}

fn write_kind(kind: &Kind, out: &mut dyn Write) -> io::Result<()> {
    let descriptor = kind.descriptor();
    let options = descriptor.options.as_ref().map(rows).unwrap_or_default();
    writeln!(out, "{} {}: {}", descriptor.kind, descriptor.version, descriptor.summary)?;
    writeln!(out)?;
    for (name, text) in facts(kind, descriptor) {
        if !text.is_empty() {
            writeln!(out, "{name:<12}{text}")?;
        }
    }
    writeln!(out)?;
    if options.is_empty() {
        writeln!(out, "It has no options.")?;
    } else {
        let rows: Vec<[String; 4]> = options.iter().map(option_row).collect();
        table::write(["OPTION", "TYPE", "DEFAULT", "DESCRIPTION"], &rows, terminal::stdout_width(), out)?;
    }
    writeln!(out, "\nIn the run file:\n")?;
    write!(out, "{}", entry(descriptor, &options))
}

fn facts(kind: &Kind, descriptor: &Descriptor) -> [(&'static str, String); 11] {
    let needs = descriptor.needs.iter().map(|need| {
        let what = if need.write { format!("writes {}", need.what) } else { need.what.clone() };
        if need.hook.is_empty() { what } else { format!("{what} in {}", need.hook) }
    });
    [
        ("license", descriptor.license.clone()),
        ("hooks", descriptor.hooks.join(", ")),
        ("needs", needs.collect::<Vec<_>>().join(", ")),
        ("produces", descriptor.produces.join(", ")),
        ("reads", descriptor.reads.join(", ")),
        ("when", when(descriptor)),
        ("dispatch", descriptor.dispatch.clone()),
        ("by default", if descriptor.by_default { "yes" } else { "no" }.to_owned()),
        ("ranks", descriptor.ranks.clone()),
        ("library", kind.path().display().to_string()),
        ("built by", kind.build().to_owned()),
    ]
}

/// The default schedule of its `trigger`; empty for a kind without one.
fn when(descriptor: &Descriptor) -> String {
    if !descriptor.hooks.iter().any(|hook| hook == "trigger") {
        return String::new();
    }
    descriptor.when.as_ref().map_or_else(|| "{ every = \"1 epoch\" }".to_owned(), inline)
}

fn option_row(option: &OptionRow) -> [String; 4] {
    let default = match &option.default {
        Some(default) => inline(default),
        None if option.required => "required".to_owned(),
        None => "none".to_owned(),
    };
    [option.name.clone(), option.type_name.clone(), default, option.description.clone()]
}

/// An entry of the run file with every option at its default.
fn entry(descriptor: &Descriptor, options: &[OptionRow]) -> String {
    let mut text = format!("[[plugins]]\nkind = {}\n", inline(&Value::String(descriptor.kind.clone())));
    if descriptor.hooks.iter().any(|hook| hook == "trigger") {
        text.push_str(&format!("when = {}\n", when(descriptor)));
    }
    let options = example(options);
    if !options.is_empty() {
        text.push_str("\n[plugins.options]\n");
        for (name, value) in &options {
            text.push_str(&format!("{} = {}\n", key(name), inline(value)));
        }
    }
    text
}

/// A value in one line of TOML. Null, which TOML does not have, is left out.
fn inline(value: &Value) -> String {
    match value {
        Value::Array(entries) => {
            let entries: Vec<String> = entries.iter().filter(|entry| !entry.is_null()).map(inline).collect();
            format!("[{}]", entries.join(", "))
        }
        Value::Object(members) => inline_table(members),
        // JSON strings have the escapes of TOML.
        other => other.to_string(),
    }
}

fn inline_table(members: &Map<String, Value>) -> String {
    let members: Vec<String> = members
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("{} = {}", key(name), inline(value)))
        .collect();
    if members.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", members.join(", ")) }
}

/// A key, quoted where TOML requires it.
fn key(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { Value::from(name).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_reads_back_as_the_defaults() {
        let value = json!({"a b": [1, 2.5, {"c": "d\"\n"}], "e": true, "f": {}});
        let text = format!("value = {}", inline(&value));
        let read: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(&read["value"]).unwrap(), value);
        assert_eq!(inline(&json!({"a": null})), "{}");
    }
}
