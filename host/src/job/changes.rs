//! What has changed since the checkpoint that a run resumes from.
//!
//! A change after which the numbers would no longer be those of one run is refused: another seed or other rows would
//! train on what was held out; another model, loss, optimizer or batch size is another experiment. The rest is listed.

use std::collections::BTreeSet;

use host_command::arguments::Change;
use serde_json::Value;

use crate::config::child;
use crate::report::{Problem, Problems};
use crate::run_file::{self, RunFile};
use crate::train::schedule::ScheduleOptions;
use crate::train::{Fingerprints, Resume};

/// Longer values are not shown.
const SHOWN_CHARACTERS: usize = 60;

/// The keys that say which other keys a table has.
const TAGS: [&str; 2] = ["type", "format"];

/// Sections and keys that must stay, as pointers; a section stands for all of its keys.
const FIXED: [&str; 4] = ["/run/seed", "/data", "/model", "/train"];

/// Keys in those that may change.
const FREE: [&str; 9] = [
    "/data/positive",
    "/train/epochs",
    "/train/start_epoch",
    "/train/steps",
    "/train/metrics",
    "/model/init_from",
    "/model/torchscript",
    "/model/exported",
    "/model/exported_eval",
];

/// Keys that are always those of this start.
const IGNORED: [&str; 12] = [
    "/run/out",
    "/run/threads",
    "/run/kernels",
    "/run/by_default",
    "/run/checkpoint_signal",
    "/run/hook_warning",
    "/run/hook_timeout",
    "/run/isolation",
    "/distributed/backend",
    "/distributed/timeout",
    "/distributed/restarts",
    "/plugins",
];

/// The change that the key at a place of the run file is.
fn change_at(place: &str) -> Change {
    let of = [
        ("/run/seed", Change::Seed),
        ("/data/splits", Change::Splits),
        ("/data/normalize", Change::Normalization),
        ("/data", Change::Data),
        ("/model", Change::Model),
        ("/train/batch_size", Change::BatchSize),
        ("/train/accumulate", Change::BatchSize),
        ("/train/loss", Change::Loss),
        ("/train/schedule", Change::Schedule),
        ("/train/warmup", Change::Schedule),
        ("/train/precision", Change::Precision),
    ];
    of.into_iter().find(|(key, _)| place.starts_with(key)).map_or(Change::Optimizer, |(_, change)| change)
}

/// What differs from the run file in the checkpoint and is allowed, as lines for people.
///
/// `fingerprints` are those of this run; changes that are `accepted` are allowed, too.
///
/// # Errors
///
/// What differs and is not allowed.
pub(super) fn check(
    resume: &Resume,
    now: &RunFile,
    fingerprints: &Fingerprints,
    accepted: &[Change],
) -> Result<Vec<String>, Problems> {
    let before = match run_file::load("run.toml of the checkpoint", resume.run_file(), &[], &[]) {
        Ok(loaded) => loaded.run_file,
        // Another version of the host wrote it: the shapes of the tensors are still compared.
        Err(_) => return Ok(vec!["its settings cannot be compared: this host does not read its run file".to_owned()]),
    };
    let (mut refused, mut allowed) = (Vec::new(), Vec::new());
    let [old, new] = [&before, now].map(without_paths);
    differences(&old, &new, "", &mut |place, before, now| {
        let is_in = |keys: &[&str]| keys.iter().any(|key| place == *key || place.starts_with(&format!("{key}/")));
        if is_in(&IGNORED) {
            return;
        }
        let key = place.trim_start_matches('/').replace('/', ".");
        let line = match (shown(before), shown(now)) {
            (Some(before), Some(now)) => format!("`{key}` was {before} and is {now}"),
            _ => match (before, now) {
                (Value::Array(before), Value::Array(now)) => {
                    format!("`{key}` had {} entries and has {}", before.len(), now.len())
                }
                _ => format!("`{key}` has changed"),
            },
        };
        if is_in(&FIXED) && !is_in(&FREE) { refused.push((change_at(place), line)) } else { allowed.push(line) }
    });
    match resume.data_fingerprint() {
        // Where settings differ, other values follow from them.
        _ if !refused.is_empty() => {}
        Some(saved) if saved != fingerprints.data => {
            let line = "the data has changed: other rows, another order, or other values".to_owned();
            refused.push((Change::Data, line));
        }
        _ if before.data == now.data => {}
        Some(_) => allowed.push("the data has moved; its content is the same".to_owned()),
        None => allowed.push("the data has moved; whether its content is the same is not known".to_owned()),
    }
    if resume.module_fingerprint().is_some_and(|saved| fingerprints.module.as_deref() != Some(saved)) {
        refused.push((Change::Model, "the file of the model has changed".to_owned()));
    }
    allowed.extend(plugins(&before, now));
    allowed.extend(stretched(&before, now));
    let (accepted, refused): (Vec<_>, Vec<_>) = refused.into_iter().partition(|(change, _)| accepted.contains(change));
    allowed.extend(accepted.into_iter().map(|(change, line)| format!("{line} (accepted: `{}`)", change.name())));
    if refused.is_empty() {
        return Ok(allowed);
    }
    let problem = Problem::new(format!(
        "this run cannot resume from `{}`: it would not be the same run",
        resume.path().display()
    ));
    let changes: BTreeSet<Change> = refused.iter().map(|(change, _)| *change).collect();
    let changes: Vec<&str> = changes.into_iter().map(Change::name).collect();
    let problem = refused.into_iter().fold(problem, |problem, (_, line)| problem.with_reason(line));
    let hint = format!(
        "use the run file that it was written with, `{}`, or begin a new run: `--resume never --out DIR`, with \
         `[model] init_from` for these weights; or accept what differs: `--accept {}`",
        resume.path().join("run.toml").display(),
        changes.join(",")
    );
    Err(problem.with_hint(hint).into())
}

/// A run file whose data may lie anywhere: its content counts. A section that is left out where nothing is set is compared key
/// by key, too.
fn without_paths(run_file: &RunFile) -> Value {
    let mut run_file = run_file.clone();
    run_file.data.forget_paths();
    let distributed = serde_json::to_value(&run_file.distributed).unwrap_or_default();
    let mut value = serde_json::to_value(run_file).unwrap_or_default();
    if let Some(sections) = value.as_object_mut() {
        sections.insert("distributed".to_owned(), distributed);
    }
    value
}

/// A schedule that depends on the length, if that differs.
fn stretched(before: &RunFile, now: &RunFile) -> Option<String> {
    let name = match now.train.schedule {
        ScheduleOptions::Cosine { .. } => "cosine",
        ScheduleOptions::OneCycle { .. } => "one_cycle",
        _ => return None,
    };
    let lengths = |run_file: &RunFile| (run_file.train.epochs, run_file.train.steps);
    (lengths(before) != lengths(now)).then(|| {
        format!("the schedule `{name}` spans the new length, so the learning rates from here on are not those planned before")
    })
}

/// Instances that are gone or new.
fn plugins(before: &RunFile, now: &RunFile) -> Vec<String> {
    let names = |run_file: &RunFile| run_file.plugins.iter().map(|plugin| plugin.name.clone()).collect::<Vec<_>>();
    let (before, now) = (names(before), names(now));
    let only = |these: &[String], others: &[String], what: &str| {
        let names: Vec<String> =
            these.iter().filter(|name| !others.contains(name)).map(|name| format!("`{name}`")).collect();
        (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
    };
    only(&before, &now, "callbacks that are gone").into_iter().chain(only(&now, &before, "new callbacks")).collect()
}

/// Calls `found` for each value that differs, with its place. Tables are compared key by key, lists of one length value
/// by value.
fn differences(before: &Value, now: &Value, place: &str, found: &mut dyn FnMut(&str, &Value, &Value)) {
    match (before, now) {
        (Value::Object(old), Value::Object(new)) => {
            // Of another type, everything else differs too.
            let tag = TAGS.into_iter().find(|tag| old.get(*tag) != new.get(*tag));
            let keys: BTreeSet<&str> = match tag {
                Some(tag) => BTreeSet::from([tag]),
                None => old.keys().chain(new.keys()).map(String::as_str).collect(),
            };
            for key in keys {
                let [old, new] = [old, new].map(|members| members.get(key).unwrap_or(&Value::Null));
                differences(old, new, &child(place, key), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                differences(old, new, &format!("{place}/{index}"), found);
            }
        }
        _ if before == now => {}
        _ => found(place, before, now),
    }
}

/// A value as people write it; `None` for a long one.
fn shown(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => "not set".to_owned(),
        value => format!("`{value}`"),
    };
    (text.chars().count() <= SHOWN_CHARACTERS).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_value_that_differs_is_found_at_its_place() {
        let before = json!({"train": {"batch_size": 16, "metrics": ["a"]}, "model": {"layers": [{"n": 1}, {"n": 2}]}});
        let now = json!({"train": {"batch_size": 8, "metrics": ["a", "b"]}, "model": {"layers": [{"n": 1}, {"n": 3}]}});
        let mut places = Vec::new();
        differences(&before, &now, "", &mut |place, _, _| places.push(place.to_owned()));
        assert_eq!(places, ["/model/layers/1/n", "/train/batch_size", "/train/metrics"]);
        let (sgd, adam) = (json!({"o": {"type": "sgd", "momentum": 1}}), json!({"o": {"type": "adam", "eps": 1}}));
        let mut places = Vec::new();
        differences(&sgd, &adam, "", &mut |place, _, _| places.push(place.to_owned()));
        assert_eq!(places, ["/o/type"]);
    }

    #[test]
    fn the_settings_of_several_processes_are_compared_key_by_key() {
        const RUN: &str = "run.name = 'a'\ndata = { format = 'csv', path = 'a.csv', target = 0 }\n\
            train = { epochs = 1, batch_size = 4, optimizer = { type = 'sgd', learning_rate = 0.1 } }\n";
        let read = |section: &str| {
            let loaded = run_file::load("run.toml", &format!("{RUN}{section}"), &[], &[]).expect("a run file");
            without_paths(&loaded.run_file)
        };
        let (before, now) = (read(""), read("distributed = { bucket_mb = 1, timeout = '1 min' }"));
        let mut places = Vec::new();
        differences(&before, &now, "", &mut |place, _, _| places.push(place.to_owned()));
        assert_eq!(places, ["/distributed/bucket_mb", "/distributed/timeout"]);
    }
}
