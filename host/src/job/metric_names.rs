//! The metrics that the run file names: in `when.best`, in `if`, and in options of plugins.
//!
//! A schema says of an option that it names a metric by its format: `metric` for one that the plugin reads,
//! `produced-metric` for one that it puts, `expression` and `actions` for texts in the language of expressions. So the names
//! are checked before the training, for every plugin alike.

use std::collections::BTreeSet;

use plugin_api::Direction;
use plugin_api::services::fits;
use serde_json::Value;

use crate::config::{Document, child, default_of, resolved};
use crate::dispatch::{Order, Planned};
use crate::expression::{Expression, Kind};
use crate::report::{Problem, did_you_mean};
use crate::train::TrainingPlan;
use crate::train::metrics::Metric;

/// An option that names a metric that the plugin reads.
const READ: &str = "metric";

/// An option that names a metric that the plugin puts.
const PRODUCED: &str = "produced-metric";

/// An option that names the beginning of metrics that the plugin puts, before a `_`.
const PRODUCED_PREFIX: &str = "produced-prefix";

/// An option that is an expression. Its schema may list the plugin's own `variables` in it, and say which `result` it must
/// have: `number`, `condition` or `text`.
const EXPRESSION: &str = "expression";

/// An option that is actions.
const ACTIONS: &str = "actions";

/// The names of the metrics that the callbacks put, by their descriptors and options; `*` stands for any text.
pub(super) fn produced(order: &Order) -> Vec<String> {
    order.planned.iter().flat_map(produced_by).collect()
}

/// Those that one callback puts.
pub(super) fn produced_by(planned: &Planned) -> Vec<String> {
    let descriptor = planned.kind.descriptor();
    let mut names = descriptor.produces.clone();
    if let Some(schema) = &descriptor.options {
        let options = Value::Object(planned.options.options.clone());
        each_text(&options, schema, schema, "", &mut |text| match text.format {
            PRODUCED if !text.value.is_empty() => names.push(text.value.to_owned()),
            PRODUCED_PREFIX => names.push(format!("{}_*", text.value)),
            ACTIONS => {
                names.extend(text.read().iter().flat_map(Expression::put_metrics).map(str::to_owned));
            }
            _ => {}
        });
    }
    names
}

/// The names of the metrics that one callback waits for: in `when.best`, in `if`, and in its options.
pub(super) fn read_by(planned: &Planned) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = planned.when.best.iter().map(|(name, _)| name.clone()).collect();
    names.extend(planned.condition().into_iter().flat_map(|condition| condition.metrics()).map(str::to_owned));
    if let Some(schema) = &planned.kind.descriptor().options {
        let options = Value::Object(planned.options.options.clone());
        each_text(&options, schema, schema, "", &mut |text| match text.format {
            READ => drop(names.insert(text.value.to_owned())),
            EXPRESSION | ACTIONS => names.extend(text.read().iter().flat_map(Expression::metrics).map(str::to_owned)),
            _ => {}
        });
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
            for name in condition.metrics() {
                require(place.as_ref().map(|place| format!("{place}/if")), false, name);
            }
        }
        let Some(schema) = &planned.kind.descriptor().options else { continue };
        let options = place.as_ref().map(|place| format!("{place}/options"));
        let written = options.as_ref().and_then(|options| document.value().pointer(options));
        let mut wrong_results = Vec::new();
        for (key, value) in &planned.options.options {
            let Some(property) = schema.pointer(&child("/properties", key)) else { continue };
            if !value.is_string() && default_of(property, schema).as_ref() == Some(value) {
                continue;
            }
            let is_written = written.is_some_and(|written| written.get(key).is_some());
            let option = options.as_ref().filter(|_| is_written).map(|options| child(options, key));
            let kind = place.as_ref().map(|place| format!("{place}/kind"));
            each_text(value, property, schema, option.as_deref().unwrap_or_default(), &mut |text| {
                let place = if option.is_some() { Some(text.place.to_owned()) } else { kind.clone() };
                match text.format {
                    READ => require(place, false, text.value),
                    EXPRESSION | ACTIONS => {
                        let Some(expression) = text.read() else { return };
                        expression.metrics().for_each(|name| require(place.clone(), false, name));
                        wrong_results.extend(text.wrong_result(&expression).map(|message| {
                            let label = place.and_then(|place| document.label_value(&place, "here"));
                            Problem::new(format!("`{}`: {message}", planned.name())).with_label(label)
                        }));
                    }
                    _ => {}
                }
            });
        }
        problems.append(&mut wrong_results);
    }
    problems
}

/// A warning for each metric that is watched in the direction in which its name says that it gets worse: in `when.best`, and
/// in options that have a `mode` beside the metric.
pub(super) fn contrary(order: &Order) -> Vec<String> {
    let mut warnings = Vec::new();
    for planned in &order.planned {
        let mut watches = |metric: &str, key: &str, direction: Direction| {
            let Some(usual) = Direction::of_metric(metric).filter(|usual| *usual != direction) else { return };
            let (says, takes, is) = match usual {
                Direction::Min => ("max", "higher", "lower"),
                Direction::Max => ("min", "lower", "higher"),
            };
            warnings.push(format!(
                "`{}` takes a {takes} `{metric}` for better, since `{key}` is `{says}`, but it is better {is}: change \
                 `{key}` unless that is meant",
                planned.name()
            ));
        };
        for (metric, direction) in &planned.when.best {
            watches(metric, &format!("when.best.{metric}"), *direction);
        }
        let Some(schema) = &planned.kind.descriptor().options else { continue };
        let options = Value::Object(planned.options.options.clone());
        each_text(&options, schema, schema, "", &mut |text| {
            let beside = text.place.rsplit_once('/').map_or("", |(parent, _)| parent);
            let mode = options.pointer(&format!("{beside}/mode")).cloned();
            if let (READ, Some(Ok(direction))) = (text.format, mode.map(serde_json::from_value)) {
                watches(text.value, "mode", direction);
            }
        });
    }
    warnings
}

/// A text in options whose schema has a format.
struct Formatted<'a> {
    format: &'a str,
    value: &'a str,
    place: &'a str,
    schema: &'a Value,
}

impl Formatted<'_> {
    /// It as an expression or actions. The check of the options has refused a text that is none.
    fn read(&self) -> Option<Expression> {
        let variables = self.schema.get("variables").and_then(Value::as_array).into_iter().flatten();
        let read = if self.format == ACTIONS { Expression::read_actions } else { Expression::read };
        read(self.value, variables.filter_map(Value::as_str)).ok()
    }

    /// What is wrong if the plugin needs another type than the expression gives.
    fn wrong_result(&self, expression: &Expression) -> Option<String> {
        let wanted = match self.schema.get("result").and_then(Value::as_str)? {
            "number" => Kind::Number,
            "condition" => Kind::Condition,
            "text" => Kind::Text,
            _ => return None,
        };
        let found = expression.kind();
        (found != wanted).then(|| format!("`{expression}` must give {}, and gives {}", wanted.name(), found.name()))
    }
}

/// Calls `found` with each text whose schema has a format, and each key whose schema of keys has one.
fn each_text(value: &Value, schema: &Value, root: &Value, place: &str, found: &mut dyn FnMut(&Formatted<'_>)) {
    let schema = resolved(schema, root);
    let mut text = |value: &str, schema: &Value, place: &str| {
        if let Some(format) = schema.get("format").and_then(Value::as_str) {
            found(&Formatted { format, value, place, schema });
        }
    };
    match value {
        Value::String(value) => text(value, schema, place),
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, item) in items.iter().enumerate() {
                each_text(item, schema, root, &format!("{place}/{index}"), found);
            }
        }
        Value::Object(members) => {
            for key in members.keys() {
                if let Some(names) = schema.get("propertyNames") {
                    text(key, names, &child(place, key));
                }
            }
            for (key, value) in members {
                if let Some(schema) = schema.pointer(&child("/properties", key)) {
                    each_text(value, schema, root, &child(place, key), found);
                }
            }
        }
        _ => {}
    }
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
