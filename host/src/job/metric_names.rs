//! The metrics that the run file names: in `when.best`, in `if`, and in options of plugins.
//!
//! A schema says of an option that it names a metric by its format: `metric` for one that the plugin reads,
//! `produced-metric` for one that it puts. So the names are checked before the training, for every plugin alike.

use plugin_api::services::fits;
use serde_json::Value;

use crate::config::{Document, child, default_of, resolved};
use crate::dispatch::{Order, Planned};
use crate::report::{Problem, did_you_mean};
use crate::train::TrainingPlan;
use crate::train::metrics::Metric;

/// An option that names a metric that the plugin reads.
const READ: &str = "metric";

/// An option that names a metric that the plugin puts.
const PRODUCED: &str = "produced-metric";

/// An option that names the beginning of metrics that the plugin puts, before a `_`.
const PRODUCED_PREFIX: &str = "produced-prefix";

/// The names of the metrics that the callbacks put, by their descriptors and options; `*` stands for any text.
pub(super) fn produced(order: &Order) -> Vec<String> {
    let mut names = Vec::new();
    for planned in &order.planned {
        let descriptor = planned.kind.descriptor();
        names.extend(descriptor.produces.iter().cloned());
        if let Some(schema) = &descriptor.options {
            let options = Value::Object(planned.options.options.clone());
            let mut found = |_: &str, name: &str| names.extend((!name.is_empty()).then(|| name.to_owned()));
            each_of_format(PRODUCED, &options, schema, schema, "", &mut found);
            let mut found = |_: &str, prefix: &str| names.push(format!("{prefix}_*"));
            each_of_format(PRODUCED_PREFIX, &options, schema, schema, "", &mut found);
        }
    }
    names
}

/// A problem for each name of a metric that the run will not give.
///
/// An option's default is checked as any other value, unless it is a table or a list: those defaults are wishes, and a run
/// that cannot grant them does without. The resolved run file writes them out, so that it is the value that counts.
pub(super) fn check(document: &Document, order: &Order, plan: &TrainingPlan) -> Vec<Problem> {
    let declared = document.value().get("plugins").and_then(Value::as_array).map_or(0, Vec::len);
    let mut problems = Vec::new();
    for (index, planned) in order.planned.iter().enumerate() {
        let place = (index < declared).then(|| format!("/plugins/{index}"));
        let mut require = |place: Option<String>, at_key: bool, name: &str| {
            if !plan.known.iter().any(|known| fits(known, name)) {
                problems.push(unknown(document, planned, place.as_deref(), at_key, name, plan));
            }
        };
        for (name, _) in &planned.when.best {
            let place = place.as_ref().map(|place| child(&format!("{place}/when/best"), name));
            require(place, true, name);
        }
        if let Some(condition) = planned.condition() {
            require(place.as_ref().map(|place| format!("{place}/if")), false, &condition.metric);
        }
        let Some(schema) = &planned.kind.descriptor().options else { continue };
        let options = place.as_ref().map(|place| format!("{place}/options"));
        let written = options.as_ref().and_then(|options| document.value().pointer(options));
        for (key, value) in &planned.options.options {
            let Some(property) = schema.pointer(&child("/properties", key)) else { continue };
            if !value.is_string() && default_of(property, schema).as_ref() == Some(value) {
                continue;
            }
            let is_written = written.is_some_and(|written| written.get(key).is_some());
            let option = options.as_ref().filter(|_| is_written).map(|options| child(options, key));
            let kind = place.as_ref().map(|place| format!("{place}/kind"));
            let mut found = |place: &str, name: &str| {
                let place = if option.is_some() { Some(place.to_owned()) } else { kind.clone() };
                require(place, false, name);
            };
            each_of_format(READ, value, property, schema, option.as_deref().unwrap_or_default(), &mut found);
        }
    }
    problems
}

/// Calls `found` with the place and the text of each value whose schema has the format; `*` in it is for many names.
fn each_of_format(
    format: &str,
    value: &Value,
    schema: &Value,
    root: &Value,
    place: &str,
    found: &mut dyn FnMut(&str, &str),
) {
    let schema = resolved(schema, root);
    match value {
        Value::String(text) if is_of_format(schema, format) => found(place, text),
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, item) in items.iter().enumerate() {
                each_of_format(format, item, schema, root, &format!("{place}/{index}"), found);
            }
        }
        Value::Object(members) => {
            let names = schema.get("propertyNames").is_some_and(|names| is_of_format(names, format));
            for (key, value) in members {
                if names {
                    found(&child(place, key), key);
                }
                if let Some(schema) = schema.pointer(&child("/properties", key)) {
                    each_of_format(format, value, schema, root, &child(place, key), found);
                }
            }
        }
        _ => {}
    }
}

fn is_of_format(schema: &Value, format: &str) -> bool {
    schema.get("format").and_then(Value::as_str) == Some(format)
}

fn unknown(
    document: &Document,
    planned: &Planned,
    place: Option<&str>,
    at_key: bool,
    name: &str,
    plan: &TrainingPlan,
) -> Problem {
    let label = place.and_then(|place| match at_key {
        true => document.label_key(place, "unknown"),
        false => document.label_value(place, "unknown"),
    });
    Problem::new(format!("`{}` waits for the metric `{name}`, which this run does not give", planned.name()))
        .with_label(label)
        .with_hint(hint(name, plan))
}

/// How to get the metric, or which one may be meant.
fn hint(name: &str, plan: &TrainingPlan) -> String {
    let measured = |split: &str, section: &str| {
        let metric = name.strip_prefix(split)?.strip_prefix('_').and_then(Metric::from_name)?;
        Some(match metric.is_array() {
            true => format!("`{}` is a table of numbers: name a metric that is one number", metric.name()),
            false => format!("let the run measure it: add `{}` to `{section}.metrics`", metric.name()),
        })
    };
    let evaluated = plan.evaluation.as_ref().map(|evaluation| &*evaluation.split);
    let near = || did_you_mean(name, plan.known.iter().map(String::as_str).filter(|known| !known.contains('*')));
    evaluated
        .and_then(|split| measured(split, "eval"))
        .or_else(|| measured("train", "train"))
        .or_else(near)
        .or_else(|| {
            let of_evaluation = evaluated.is_none() && (name.starts_with("val_") || name.starts_with("eval_"));
            of_evaluation.then(|| "nothing is evaluated: add `[eval]` with the split to evaluate".to_owned())
        })
        .unwrap_or_else(|| {
            let names: Vec<String> = plan.known.iter().map(|known| format!("`{known}`")).collect();
            format!(
                "the run gives {}; a plugin that puts a metric says so in its descriptor's `produces`",
                names.join(", ")
            )
        })
}
