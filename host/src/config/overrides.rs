//! `--plugin KIND[=NAME]` and `--set KEY=VALUE`: what the command line changes in a run file.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Value};
use toml::de::DeValue;

use super::document::{Document, Place, Reader, child, key_path, syntax_problem};
use super::formats::instance_name;
use crate::report::{Label, Problem, Source, did_you_mean, list};

/// One step of the path to the key that is set.
struct Step {
    /// The member's name, or the entry's index in decimal.
    token: String,
    /// The pointer after this step.
    pointer: String,
    /// The bytes of the step in the argument.
    span: Range<usize>,
}

impl Document {
    /// Appends the plugin of `--plugin`, unless its name is declared already.
    ///
    /// # Errors
    /// A kind or name that is not valid.
    pub fn declare_plugin(&mut self, argument: &str) -> Result<(), Problem> {
        let source = Source::new("--plugin", argument);
        let (kind, name) = argument.split_once('=').unwrap_or((argument, argument));
        for part in [kind, name] {
            instance_name(part)
                .map_err(|error| Problem::from(&error).with_label(Label::new(&source, 0..argument.len(), "here")))?;
        }
        let (value, places) = self.parts();
        let Some(sections) = value.as_object_mut() else { return Ok(()) };
        // A section of another type is reported when the document is checked.
        let Value::Array(entries) = sections.entry("plugins").or_insert_with(|| Value::Array(Vec::new())) else {
            return Ok(());
        };
        if entries.iter().any(|entry| instance_of(entry) == Some(name)) {
            return Ok(());
        }
        let pointer = format!("/plugins/{}", entries.len());
        entries.push(serde_json::json!({ "kind": kind, "name": name }));
        let place = |span: Range<usize>| Place { source: source.clone(), key: None, value: span, unfit: None };
        let name_start = argument.len() - name.len();
        places.entry("/plugins".to_owned()).or_insert_with(|| place(0..argument.len()));
        places.insert(format!("{pointer}/kind"), place(0..kind.len()));
        places.insert(format!("{pointer}/name"), place(name_start..argument.len()));
        places.insert(pointer, place(0..argument.len()));
        Ok(())
    }

    /// Sets one key, from the argument of `--set`.
    ///
    /// `KEY` is a dotted path; an entry of an array is named by its index, a plugin also by its instance name
    /// (`plugins.early-stopping.options.patience`). Missing tables on the way are created. `VALUE` is a TOML value;
    /// anything else is a string, unless it starts like TOML (`[`, `{` or a quote).
    ///
    /// # Errors
    /// An argument without `=`, a path that leads nowhere, or a value that starts like TOML and is not valid.
    /// The document is then unchanged.
    pub fn set(&mut self, argument: &str) -> Result<(), Problem> {
        let source = Source::new("--set", argument);
        let equals = argument.find('=').ok_or_else(|| {
            Problem::new("`--set` takes `KEY=VALUE`")
                .with_label(Label::new(&source, 0..argument.len(), "no `=` in it"))
                .with_hint("for example `--set train.epochs=3`".to_owned())
        })?;
        let steps = path(self.value(), &source, equals)?;
        let Some(last) = steps.last() else {
            return Ok(());
        };
        let mut places = BTreeMap::new();
        let value = parse_value(&source, equals + 1, last, &mut places)?;
        self.put(&source, &steps, value, places);
        Ok(())
    }

    fn put(&mut self, source: &Source, steps: &[Step], value: Value, new_places: BTreeMap<String, Place>) {
        let Some((last, parents)) = steps.split_last() else {
            return;
        };
        let (mut current, places) = self.parts();
        for step in parents {
            // A missing table is created; its place is the path in the argument.
            places.entry(step.pointer.clone()).or_insert_with(|| Place {
                source: source.clone(),
                key: Some(step.span.clone()),
                value: step.span.clone(),
                unfit: None,
            });
            current = match current {
                Value::Array(entries) => {
                    match step.token.parse().ok().and_then(|index: usize| entries.get_mut(index)) {
                        Some(entry) => entry,
                        None => return,
                    }
                }
                Value::Object(members) => {
                    members.entry(step.token.as_str()).or_insert_with(|| Value::Object(Map::new()))
                }
                _ => return,
            };
        }
        match current {
            Value::Array(entries) => {
                if let Some(entry) = last.token.parse().ok().and_then(|index: usize| entries.get_mut(index)) {
                    *entry = value;
                }
            }
            Value::Object(members) => {
                members.insert(last.token.clone(), value);
            }
            _ => return,
        }
        let below = format!("{}/", last.pointer);
        places.retain(|pointer, _| *pointer != last.pointer && !pointer.starts_with(&below));
        places.extend(new_places);
    }
}

/// The steps of the path before byte `equals`, each checked against `document`.
fn path(document: &Value, source: &Source, equals: usize) -> Result<Vec<Step>, Problem> {
    let mut steps: Vec<Step> = Vec::new();
    // What the path has reached; `None` once it leads to something that is not written.
    let mut reached = Some(document);
    let mut position = 0;
    for written in source.text()[..equals].split('.') {
        let start = position + written.len() - written.trim_start().len();
        let name = written.trim();
        let span = start..start + name.len();
        position += written.len() + 1;
        let parent = steps.last().map_or("", |step| step.pointer.as_str());
        let refuse =
            |message: String, label: &str| Problem::new(message).with_label(Label::new(source, span.clone(), label));
        if name.is_empty() {
            return Err(refuse("a key of `--set` has an empty part".to_owned(), "").with_label(Label::new(
                source,
                0..equals,
                "dotted keys, as in `train.epochs`",
            )));
        }
        let token = match reached {
            None | Some(Value::Object(_)) => name.to_owned(),
            Some(Value::Array(entries)) => entry_index(entries, name)
                .ok_or_else(|| {
                    let problem = refuse(format!("`{}` has no entry `{name}`", key_path(parent)), "no such entry");
                    let names: Vec<&str> = entries.iter().filter_map(instance_of).collect();
                    let hint = did_you_mean(name, names.iter().copied()).unwrap_or_else(|| match names.is_empty() {
                        true => format!("it has {} entries, counted from 0", entries.len()),
                        false => format!("its entries: {}, or their index from 0", list(names, "and")),
                    });
                    problem.with_hint(hint)
                })?
                .to_string(),
            Some(_) => {
                return Err(refuse(format!("`{}` is not a table", key_path(parent)), "it has no keys"));
            }
        };
        let pointer = child(parent, &token);
        reached = document.pointer(&pointer);
        steps.push(Step { token, pointer, span });
    }
    Ok(steps)
}

fn entry_index(entries: &[Value], name: &str) -> Option<usize> {
    let by_index = name.parse().ok().filter(|&index: &usize| index < entries.len());
    by_index.or_else(|| entries.iter().position(|entry| instance_of(entry) == Some(name)))
}

/// The name of a `[[plugins]]` entry: its kind, unless it has its own.
pub fn instance_of(entry: &Value) -> Option<&str> {
    entry.get("name").or_else(|| entry.get("kind"))?.as_str()
}

fn parse_value(
    source: &Source,
    start: usize,
    step: &Step,
    places: &mut BTreeMap<String, Place>,
) -> Result<Value, Problem> {
    let untrimmed = &source.text()[start..];
    let text = untrimmed.trim();
    let start = start + untrimmed.len() - untrimmed.trim_start().len();
    match DeValue::parse(text) {
        Ok(value) => {
            let mut reader = Reader { source, offset: start, places };
            let value = reader.value(&value, &step.pointer, None)?;
            if let Some(place) = reader.places.get_mut(&step.pointer) {
                place.key = Some(step.span.clone());
            }
            Ok(value)
        }
        Err(error) if text.starts_with(['[', '{', '"', '\'']) => Err(syntax_problem(source, &error, start)),
        Err(_) => {
            let place = Place {
                source: source.clone(),
                key: Some(step.span.clone()),
                value: start..start + text.len(),
                unfit: None,
            };
            places.insert(step.pointer.clone(), place);
            Ok(Value::String(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const RUN: &str = "[train]\nepochs = 1\n[[plugins]]\nkind = \"early-stopping\"\noptions = {patience = 5}\n\
                       [[plugins]]\nkind = \"checkpoint\"\nname = \"weekly\"\n";

    fn after(argument: &str) -> Value {
        let mut document = Document::parse("run.toml", RUN).unwrap();
        document.set(argument).unwrap();
        document.value().clone()
    }

    #[test]
    fn values_are_toml_and_else_strings() {
        assert_eq!(after("train.epochs=3")["train"]["epochs"], json!(3));
        assert_eq!(after("train.x = [1, {a = true}]")["train"]["x"], json!([1, {"a": true}]));
        assert_eq!(after("run.name=first try")["run"]["name"], json!("first try"));
        assert_eq!(after("run.name=\"3\"")["run"]["name"], json!("3"));
        assert_eq!(after("run.name=")["run"]["name"], json!(""));
    }

    #[test]
    fn plugins_are_found_by_index_and_by_instance_name() {
        assert_eq!(after("plugins.0.options.patience=9")["plugins"][0]["options"]["patience"], json!(9));
        assert_eq!(after("plugins.early-stopping.options.patience=9")["plugins"][0]["options"]["patience"], json!(9));
        assert_eq!(after("plugins.weekly.options.keep=2")["plugins"][1]["options"], json!({"keep": 2}));
    }

    #[test]
    fn places_move_to_the_argument() {
        let mut document = Document::parse("run.toml", RUN).unwrap();
        document.set("plugins.0.options={patience=7}").unwrap();
        let place = document.place("/plugins/0/options/patience").unwrap();
        assert_eq!((place.source.name(), &place.source.text()[place.value.clone()]), ("--set", "7"));
    }

    #[test]
    fn a_refused_argument_changes_nothing() {
        for argument in ["epochs", "train..x=1", "train.epochs.x=1", "plugins.weakly.x=1", "plugins.9.x=1", "a=[1,"] {
            let mut document = Document::parse("run.toml", RUN).unwrap();
            let before = document.value().clone();
            let problem = document.set(argument).unwrap_err();
            assert_eq!(problem.labels()[0].source.name(), "--set", "{argument}");
            assert_eq!(document.value(), &before, "{argument}");
        }
    }

    #[test]
    fn a_mistyped_instance_gets_the_nearest_name() {
        let mut document = Document::parse("run.toml", RUN).unwrap();
        let problem = document.set("plugins.weakly.when=1").unwrap_err();
        assert_eq!(problem.hints(), ["did you mean `weekly`?"]);
    }

    proptest! {
        #[test]
        fn any_argument_is_applied_or_refused(argument in "[ -~\u{e9}]{0,40}", value in "\\PC{0,20}") {
            let mut document = Document::parse("run.toml", RUN).unwrap();
            for argument in [argument.clone(), format!("train.{argument}"), format!("train.x={value}")] {
                if let Err(problem) = document.set(&argument) {
                    prop_assert_eq!(problem.labels()[0].source.text(), argument.as_str());
                }
            }
        }
    }
}
