//! Checks a document against a JSON Schema; every error becomes a [`Problem`] that people can act on.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::{Map, Value};

use super::defaults::resolved;
use super::document::{Document, child, key_path};
use super::formats::FORMATS;
use super::renamed::new_name;
use super::synonyms::{did_you_mean, inferred, meant};
use crate::report::{Problem, list};

/// Checks the part of a document at `pointer` against a JSON Schema: the whole run file at `""`, a plugin's options
/// at `/plugins/0/options`. A missing part is checked as an empty table.
///
/// All errors are found. Of an internally tagged enum, the errors of the branch that the tag selects are reported.
pub fn check(document: &Document, pointer: &str, schema: &Value) -> Vec<Problem> {
    let empty = Value::Object(Map::new());
    let instance = document.value().pointer(pointer).unwrap_or(&empty);
    let mut options = jsonschema::options().should_validate_formats(true);
    for (name, parse) in FORMATS {
        options = options.with_format(name, move |text: &str| parse(text).is_ok());
    }
    let validator = match options.build(schema) {
        Ok(validator) => validator,
        Err(error) => {
            return vec![Problem::new(format!("the JSON Schema for `{}` is not valid: {error}", key_path(pointer)))];
        }
    };
    let mut checker = Checker { document, base: pointer, schema, found: Vec::new() };
    for error in validator.iter_errors(instance) {
        checker.explain(&error);
    }
    // A key that was meant for a missing one is reported once, as an unknown key.
    let missing: Vec<String> =
        checker.found.iter().filter(|found| found.breach == Breach::Missing).map(|found| found.path.clone()).collect();
    let meant = |breach: &Breach| match breach {
        Breach::Unknown(near) => near.iter().find(|path| missing.contains(path)).cloned(),
        Breach::Missing | Breach::Other => None,
    };
    let told: Vec<String> = checker.found.iter().filter_map(|found| meant(&found.breach)).collect();
    let kept = checker.found.into_iter().filter(|found| found.breach != Breach::Missing || !told.contains(&found.path));
    kept.map(|found| found.problem).collect()
}

struct Checker<'a> {
    document: &'a Document,
    /// Where the checked part is in the document.
    base: &'a str,
    schema: &'a Value,
    found: Vec<Found>,
}

/// A problem and what else is known about it.
struct Found {
    /// Where it is, relative to the checked part.
    path: String,
    breach: Breach,
    problem: Problem,
}

/// The kind of a problem, as far as it affects other problems.
#[derive(PartialEq)]
enum Breach {
    /// The key at the path is missing.
    Missing,
    /// The key at the path is unknown; the paths are the keys next to it that may be meant.
    Unknown(Vec<String>),
    Other,
}

impl<'a> Checker<'a> {
    fn explain(&mut self, error: &ValidationError<'_>) {
        let path = error.instance_path().to_string();
        let value = error.instance();
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let known = self.known_keys(error);
                for key in unexpected {
                    self.unknown_key(&path, key, &known);
                }
            }
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let description = self
                    .around(error)
                    .and_then(|schema| schema.pointer(&child("/properties", key)))
                    .and_then(|property| property.get("description"))
                    .and_then(Value::as_str)
                    .map(|description| format!("`{key}`: {}", description.replace('\n', " ")));
                self.missing_key(&path, key, description);
            }
            ValidationErrorKind::Type { kind } => {
                let expected = match kind {
                    TypeKind::Single(expected) => vec![expected.to_string()],
                    TypeKind::Multiple(expected) => expected.iter().map(|expected| expected.to_string()).collect(),
                };
                let expected: Vec<String> =
                    expected.iter().filter(|name| *name != "null").map(|name| type_name(name).to_owned()).collect();
                self.wrong_type(&path, value, &expected);
            }
            ValidationErrorKind::Enum { options } => {
                let options: Vec<&Value> = options.as_array().into_iter().flatten().collect();
                self.unknown_value(&path, value, &options, &[]);
            }
            ValidationErrorKind::Constant { expected_value } => {
                self.unknown_value(&path, value, &[expected_value], &[])
            }
            ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => {
                self.choose_branch(error, &path, context);
            }
            // A table that has no keys at all: the validator gives the value of the unknown key, and the place of the table.
            ValidationErrorKind::FalseSchema => {
                let table = self.document.value().pointer(&self.full(&path)).and_then(Value::as_object);
                let unknown = table.into_iter().flatten().filter(|(_, other)| **other == **value);
                let unknown: Vec<String> = unknown.map(|(key, _)| key.clone()).collect();
                for key in &unknown {
                    self.unknown_key(&path, key, &[]);
                }
            }
            ValidationErrorKind::Format { format } => self.bad_format(&path, value, format),
            kind => {
                let message = match limit(kind) {
                    Some(rule) => {
                        format!("`{}` must {rule}, found {}", self.key(&path), found(value))
                    }
                    None => format!("`{}`: {error}", self.key(&path)),
                };
                self.add(&path, Breach::Other, Problem::new(message).with_label(self.label_value(&path, "here")));
            }
        }
    }

    /// Of several alternatives, reports the errors of the one that was meant.
    fn choose_branch(&mut self, error: &ValidationError<'_>, path: &str, context: &[Vec<ValidationError<'static>>]) {
        let branches: Vec<&Value> = self
            .schema
            .pointer(&error.schema_path().to_string())
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|branch| resolved(branch, self.schema))
            .collect();
        let value = error.instance();
        if let Some((tag, tags)) = tagged(&branches) {
            let known: Vec<&Value> = tags.iter().map(|(_, tag)| *tag).collect();
            let Some(members) = value.as_object() else {
                return self.wrong_type(path, value, &[format!("a table with `{tag}`")]);
            };
            let Some(chosen) = members.get(tag) else {
                return self.missing_key(path, tag, Some(accepted(&known, &[])));
            };
            let branch = tags.iter().find(|(_, tag)| *tag == chosen).and_then(|(branch, _)| context.get(*branch));
            return match branch {
                Some(errors) => errors.iter().for_each(|error| self.explain(error)),
                None => self.unknown_value(&child(path, tag), chosen, &known, &[]),
            };
        }
        // Without a tag, the value's type selects the alternative.
        let fits = |errors: &[ValidationError<'static>]| {
            !errors.iter().any(|error| {
                matches!(error.kind(), ValidationErrorKind::Type { .. }) && error.instance_path().to_string() == path
            })
        };
        let fitting: Vec<usize> =
            context.iter().enumerate().filter(|(_, errors)| fits(errors)).map(|(branch, _)| branch).collect();
        let options: Vec<&Value> =
            fitting.iter().filter_map(|&branch| branches.get(branch)).flat_map(|branch| options(branch)).collect();
        if fitting.is_empty() || (!options.is_empty() && !value.is_string()) {
            let expected: Vec<String> = branches.iter().flat_map(|branch| describe(branch)).collect();
            self.wrong_type(path, value, &expected);
        } else if !options.is_empty() {
            let others = branches.iter().filter(|branch| self::options(branch).is_empty());
            let others: Vec<String> = others.flat_map(|branch| describe(branch)).collect();
            self.unknown_value(path, value, &options, &others);
        } else if let Some(errors) =
            fitting.iter().filter_map(|&branch| context.get(branch)).min_by_key(|errors| errors.len())
        {
            errors.iter().for_each(|error| self.explain(error));
        }
    }

    fn unknown_key(&mut self, path: &str, key: &str, known: &[&str]) {
        let place = child(path, key);
        if let Some(new) = new_name(key, known.iter().copied()) {
            let label = self.document.label_key(&self.full(&place), "the old name");
            let breach = Breach::Unknown(vec![child(path, new)]);
            return self.add(&place, breach, renamed(&self.key(path), key, new).with_label(label));
        }
        let message = match path {
            "" if self.base.is_empty() => format!("unknown key `{key}`"),
            _ => format!("unknown key `{key}` in `{}`", self.key(path)),
        };
        let hint = inferred(&self.full(path), key)
            .or_else(|| did_you_mean(key, known.iter().copied()))
            .or_else(|| (!known.is_empty()).then(|| format!("known keys: {}", list(known.iter().copied(), "and"))));
        let label = self.document.label_key(&self.full(&place), "not known here");
        let near = meant(key, known.iter().copied());
        let near = near.into_iter().map(|key| child(path, key)).collect();
        let problem = Problem::new(message).with_label(label).with_hint(hint);
        self.add(&place, Breach::Unknown(near), problem);
    }

    fn missing_key(&mut self, path: &str, key: &str, hint: Option<String>) {
        let message = match path {
            "" if self.base.is_empty() => format!("`{}` has no `{key}`", self.document.name()),
            _ => format!("`{}` has no `{key}`", self.key(path)),
        };
        let label = self.document.label_key(&self.full(path), format!("`{key}` is missing"));
        let problem = Problem::new(message).with_label(label).with_hint(hint);
        self.add(&child(path, key), Breach::Missing, problem);
    }

    fn wrong_type(&mut self, path: &str, value: &Value, expected: &[String]) {
        let expected = match expected.split_last() {
            Some((last, others)) if !others.is_empty() => {
                format!("{} or {last}", others.join(", "))
            }
            _ => expected.concat(),
        };
        let message = format!("`{}` must be {expected}, found {}", self.key(path), found(value));
        let label = self.label_value(path, format!("expected {expected}"));
        self.add(path, Breach::Other, Problem::new(message).with_label(label));
    }

    /// A value that is none of `options`; `others` describes what else is accepted.
    fn unknown_value(&mut self, path: &str, value: &Value, options: &[&Value], others: &[String]) {
        let words: Vec<&str> = options.iter().filter_map(|option| option.as_str()).collect();
        let word = value.as_str();
        if let Some((old, new)) = word.and_then(|old| Some((old, new_name(old, words.iter().copied())?))) {
            let label = self.label_value(path, "the old name");
            return self.add(path, Breach::Other, renamed(&self.key(path), old, new).with_label(label));
        }
        let message = format!("`{}` cannot be {}", self.key(path), literal(value));
        let near = word.and_then(|word| did_you_mean(word, words.iter().copied()));
        let label = self.label_value(path, "not known here");
        let problem =
            Problem::new(message).with_label(label).with_hint(near.unwrap_or_else(|| accepted(options, others)));
        self.add(path, Breach::Other, problem);
    }

    fn bad_format(&mut self, path: &str, value: &Value, format: &str) {
        let parse = FORMATS.iter().find(|(name, _)| *name == format).map(|(_, parse)| parse);
        let problem = match parse.zip(value.as_str()).map(|(parse, text)| parse(text)) {
            Some(Err(error)) => Problem::new(format!("`{}`: {error}", self.key(path))).with_hint(error.hint),
            _ => Problem::new(format!("`{}` is not of the format `{format}`: {}", self.key(path), literal(value))),
        };
        let label = self.label_value(path, "here");
        self.add(path, Breach::Other, problem.with_label(label));
    }

    /// The keys that the schema around an error knows.
    fn known_keys(&self, error: &ValidationError<'_>) -> Vec<&'a str> {
        let properties = self.around(error).and_then(|schema| schema.get("properties")?.as_object());
        properties.map(|properties| properties.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// The schema object that contains the keyword of an error.
    fn around(&self, error: &ValidationError<'_>) -> Option<&'a Value> {
        let location = error.schema_path().to_string();
        self.schema.pointer(location.rsplit_once('/')?.0)
    }

    /// Adds a problem, unless another path through the schema has already found it.
    fn add(&mut self, path: &str, breach: Breach, problem: Problem) {
        let seen = |found: &Found| found.path == path && found.problem.message() == problem.message();
        if !self.found.iter().any(seen) {
            let path = path.to_owned();
            self.found.push(Found { path, breach, problem });
        }
    }

    fn full(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn key(&self, path: &str) -> String {
        key_path(&self.full(path))
    }

    fn label_value(&self, path: &str, text: impl Into<String>) -> Option<crate::report::Label> {
        self.document.label_value(&self.full(path), text)
    }
}

/// A key or value at `place` that has a new name.
fn renamed(place: &str, old: &str, new: &str) -> Problem {
    Problem::new(format!("`{old}` in `{place}` is now called `{new}`")).with_hint(format!("write `{new}`"))
}

/// The tag of an internally tagged enum, and each branch that has the tag with its value.
fn tagged<'a>(branches: &[&'a Value]) -> Option<(&'a str, Vec<(usize, &'a Value)>)> {
    let constants = |branch: &'a Value| {
        let properties = branch.get("properties").and_then(Value::as_object);
        properties.into_iter().flatten().filter_map(|(key, property)| Some((key.as_str(), property.get("const")?)))
    };
    let (first, others) = branches.split_first()?;
    // A single alternative needs no tag.
    if others.is_empty() {
        return None;
    }
    let (tag, _) = constants(first).find(|(tag, _)| {
        let tagged = |branch: &&'a Value| constants(branch).any(|(key, _)| key == *tag);
        others.iter().all(tagged)
    })?;
    let value_of = |branch: &'a Value| constants(branch).find(|(key, _)| *key == tag).map(|(_, value)| value);
    let tags = branches.iter().enumerate().filter_map(|(index, branch)| Some((index, value_of(branch)?))).collect();
    Some((tag, tags))
}

/// The values that a schema lists, if it lists any.
fn options(schema: &Value) -> Vec<&Value> {
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    schema.get("const").into_iter().chain(listed).collect()
}

/// What a schema accepts, in words; nothing for null, which TOML cannot write.
fn describe(schema: &Value) -> Vec<String> {
    let options = options(schema);
    if !options.is_empty() {
        return options.into_iter().map(literal).collect();
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    types.into_iter().filter(|name| *name != "null").map(|name| type_name(name).to_owned()).collect()
}

/// The name of a JSON Schema type for people who write TOML.
fn type_name(name: &str) -> &str {
    match name {
        "array" => "an array",
        "boolean" => "`true` or `false`",
        "integer" => "an integer",
        "number" => "a number",
        "object" => "a table",
        "string" => "a string",
        other => other,
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "a table".to_owned(),
        Value::String(_) => format!("the string {}", literal(value)),
        _ => literal(value),
    }
}

/// A value in backticks, shortened if it is long.
fn literal(value: &Value) -> String {
    const SHOWN: usize = 40;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

fn accepted(options: &[&Value], others: &[String]) -> String {
    let mut words: Vec<String> = options.iter().map(|option| literal(option)).collect();
    words.extend_from_slice(others);
    match words.split_last() {
        Some((last, first)) if !first.is_empty() => {
            format!("accepted: {} or {last}", first.join(", "))
        }
        _ => format!("accepted: {}", words.concat()),
    }
}

/// A bound that a value breaks, as the end of a sentence.
fn limit(kind: &ValidationErrorKind) -> Option<String> {
    Some(match kind {
        ValidationErrorKind::Minimum { limit } => format!("be at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("be at most {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("be more than {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("be less than {limit}"),
        ValidationErrorKind::MinItems { limit } => format!("have at least {limit} entries"),
        ValidationErrorKind::MaxItems { limit } => format!("have at most {limit} entries"),
        ValidationErrorKind::MinLength { limit } => format!("have at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("have at most {limit} characters"),
        ValidationErrorKind::Pattern { pattern } => format!("match `{pattern}`"),
        _ => return None,
    })
}
