//! Rules that a JSON Schema cannot express, or not with a good message.

use std::collections::HashMap;

use serde_json::Value;

use super::distributed::{LONGEST_TIMEOUT, SHORTEST_TIMEOUT};
use crate::config::{ALIASES, Document, Every, child, instance_of};
use crate::report::{Problem, nearest};

/// Every breach of a rule, in the document's order.
pub(super) fn check(document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(length(document));
    problems.extend(evaluation(document));
    problems.extend(hook_times(document));
    problems.extend(rank_timeout(document));
    problems.extend(instance_names(document));
    problems.extend(aliases(document));
    problems
}

/// A run's length is given exactly once.
fn length(document: &Document) -> Option<Problem> {
    let train = document.value().get("train")?.as_object()?;
    match (train.contains_key("epochs"), train.contains_key("steps")) {
        (true, true) => Some(
            Problem::new("`train.epochs` and `train.steps` are both given")
                .with_label(document.label_key("/train/epochs", "the length in epochs"))
                .with_label(document.label_key("/train/steps", "the length in steps"))
                .with_hint("a run has one length: remove one of them".to_owned()),
        ),
        // A mistyped key is reported as an unknown key.
        (false, false) if train.keys().any(|key| !nearest(key, ["epochs", "steps"]).is_empty()) => None,
        (false, false) => Some(
            Problem::new("the run has no length")
                .with_label(document.label_key("/train", "neither `epochs` nor `steps` is given"))
                .with_hint("add `epochs = 10`, or `steps = 1000`".to_owned()),
        ),
        _ => None,
    }
}

/// Several inputs are those of formats that hold several arrays.
pub(super) fn inputs(document: &Document) -> Option<Problem> {
    let data = document.value().get("data")?;
    let format = data.get("format")?.as_str()?;
    if !data.get("inputs")?.is_object() || matches!(format, "npz" | "safetensors") {
        return None;
    }
    let label = match format {
        "npy" | "idx" => document.label_value("/data/inputs", "several inputs"),
        _ => document.label_key("/data/inputs", "several inputs"),
    };
    Some(
        Problem::new(format!("data of the format `{format}` has one input")).with_label(label).with_hint(
            "save several as arrays of one file, with `numpy.savez` or safetensors, and set `format = \"npz\"` or \
         `\"safetensors\"`"
                .to_owned(),
        ),
    )
}

/// Evaluations happen at positions of the run, never at times of the clock, so that a run is repeatable.
fn evaluation(document: &Document) -> Option<Problem> {
    let every = document.value().pointer("/eval/every")?.as_str()?;
    matches!(every.parse(), Ok(Every::Time(_))).then(|| {
        Problem::new("`eval.every` cannot be a time")
            .with_label(document.label_value("/eval/every", "a time"))
            .with_hint("use epochs or steps, so that the run is repeatable".to_owned())
    })
}

/// How long a hook may take is a time of the clock.
fn hook_times(document: &Document) -> Vec<Problem> {
    let wrong = |key: &str| {
        let place = child("/run", key);
        let text = document.value().pointer(&place)?.as_str()?;
        matches!(text.parse(), Ok(Every::Epochs(_) | Every::Steps(_))).then(|| {
            Problem::new(format!("`run.{key}` is not a time"))
                .with_label(document.label_value(&place, "epochs or steps"))
                .with_hint("give a time, as in `30 s` or `10 min`".to_owned())
        })
    };
    ["hook_warning", "hook_timeout"].into_iter().filter_map(wrong).collect()
}

/// How long ranks wait for each other is a time of the clock: long enough to find out that one is gone, and not for ever.
fn rank_timeout(document: &Document) -> Option<Problem> {
    let text = document.value().pointer("/distributed/timeout")?.as_str()?;
    let (what, label) = match text.parse().ok()? {
        Every::Time(time) if (SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&time) => return None,
        Every::Time(time) if time < SHORTEST_TIMEOUT => ("is too short", "less than 10 s"),
        Every::Time(_) => ("is too long", "more than 168 h"),
        Every::Epochs(_) | Every::Steps(_) => ("is not a time", "epochs or steps"),
    };
    Some(
        Problem::new(format!("`distributed.timeout` {what}"))
            .with_label(document.label_value("/distributed/timeout", label))
            .with_hint("give a time, as in `30 s` or `10 min`".to_owned()),
    )
}

/// Instance names are unique.
fn instance_names(document: &Document) -> Vec<Problem> {
    let Some(plugins) = document.value().get("plugins").and_then(Value::as_array) else {
        return Vec::new();
    };
    let mut first: HashMap<&str, usize> = HashMap::new();
    let mut problems = Vec::new();
    for (index, name) in plugins.iter().enumerate().filter_map(|(index, entry)| Some((index, instance_of(entry)?))) {
        let Some(&earlier) = first.get(name) else {
            first.insert(name, index);
            continue;
        };
        let place = |index: usize| {
            let key = if plugins[index].get("name").is_some() { "name" } else { "kind" };
            format!("/plugins/{index}/{key}")
        };
        problems.push(
            Problem::new(format!("two plugins have the name `{name}`"))
                .with_label(document.label_value(&place(earlier), "the first"))
                .with_label(document.label_value(&place(index), "the second"))
                .with_hint(format!("give one of them another name, as in `name = \"{name}-2\"`")),
        );
    }
    problems
}

/// An alias and the key that it fills are not both given.
fn aliases(document: &Document) -> Vec<Problem> {
    let Some(plugins) = document.value().get("plugins").and_then(Value::as_array) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    for (index, plugin) in plugins.iter().enumerate() {
        for (alias, key) in ALIASES {
            if plugin.get(alias).is_some() && plugin.get("when").and_then(|when| when.get(key)).is_some() {
                let entry = format!("/plugins/{index}");
                problems.push(
                    Problem::new(format!("`{alias}` and `when.{key}` are both given"))
                        .with_label(document.label_key(&child(&entry, alias), "an alias"))
                        .with_label(document.label_key(&child(&child(&entry, "when"), key), "what it stands for"))
                        .with_hint(format!("`{alias}` fills `when.{key}`: remove one of them")),
                );
            }
        }
    }
    problems
}
