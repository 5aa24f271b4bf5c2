//! `host compare`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

use super::curves::{self, Curve};
use super::output::{cannot, print, print_json};
use super::{request, words};
use crate::arguments::CompareArguments;
use crate::report::{Problem, Problems, table, terminal};
use crate::runs::history;
use crate::runs::status::{BestStatus, FoundRun};

/// Settings that differ between any two runs and tell nothing.
const IGNORED: [&str; 1] = ["run.out"];

/// Longer values are cut.
const SHOWN_CHARACTERS: usize = 30;

/// What `--json` prints.
#[derive(Serialize)]
struct Compared<'a> {
    /// The run folders, in the order of all lists below.
    runs: Vec<String>,
    states: Vec<&'static str>,
    /// The settings that differ: a value for each run, null where a run does not have it.
    settings: BTreeMap<&'a str, Vec<Option<&'a Value>>>,
    /// The best value of each metric.
    best: BTreeMap<&'a str, Vec<Option<BestStatus>>>,
    /// The last value of each metric.
    last: BTreeMap<&'a str, Vec<Option<&'a Value>>>,
}

pub(super) fn run(arguments: &CompareArguments) -> Result<ExitCode, Problems> {
    let runs: Vec<FoundRun> = arguments.runs.iter().map(|path| request::find(path)).collect::<Result<_, _>>()?;
    let settings: Vec<BTreeMap<String, Value>> =
        runs.iter().map(|run| settings(&run.folder)).collect::<Result<_, _>>()?;
    let compared = compare(&runs, &settings);
    if arguments.json {
        print_json(&compared)?;
    } else {
        print(&text(&runs, &compared)?)?;
    }
    if let Some(path) = &arguments.picture {
        let curves: Vec<Curve> = runs
            .iter()
            .zip(names(&runs))
            .map(|(run, name)| Curve { name, series: history::read(&run.folder) })
            .collect();
        let Some(picture) = curves::draw(&curves) else {
            return Err(Problem::new("there are no curves to draw: no run has a `metrics.jsonl`")
                .with_hint("the callback `json-lines` writes it".to_owned())
                .into());
        };
        std::fs::write(path, picture).map_err(|error| cannot(&format!("write `{}`", path.display()), &error))?;
        eprintln!("curves: {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The resolved run file of a run, a value for each key: `train.optimizer.learning_rate`.
fn settings(folder: &Path) -> Result<BTreeMap<String, Value>, Problems> {
    let path = folder.join("run.toml");
    let unreadable = |error: &(dyn std::error::Error + 'static)| cannot(&format!("read `{}`", path.display()), error);
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&error))?;
    let table: toml::Table = text.parse().map_err(|error| unreadable(&error))?;
    let value = serde_json::to_value(table).map_err(|error| unreadable(&error))?;
    let mut found = BTreeMap::new();
    flatten(&value, String::new(), &mut found);
    found.retain(|key, _| !IGNORED.contains(&key.as_str()));
    Ok(found)
}

fn flatten(value: &Value, key: String, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(value, key, found);
            }
        }
        // Plugins by the names of their instances, which stay when their order changes.
        Value::Array(items) if key == "plugins" => {
            for item in items {
                let name = item.get("name").or(item.get("kind")).and_then(Value::as_str).unwrap_or_default();
                flatten(item, format!("plugins.{name}"), found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                flatten(item, format!("{key}.{index}"), found);
            }
        }
        value => drop(found.insert(key, value.clone())),
    }
}

fn compare<'a>(runs: &'a [FoundRun], settings: &'a [BTreeMap<String, Value>]) -> Compared<'a> {
    let keys: BTreeSet<&str> = settings.iter().flat_map(|settings| settings.keys().map(String::as_str)).collect();
    let differs = |values: &Vec<Option<&Value>>| values.iter().any(|value| value != &values[0]);
    let of_all = |key: &str| settings.iter().map(|settings| settings.get(key)).collect::<Vec<_>>();
    let last: BTreeSet<&str> = runs.iter().flat_map(|run| run.status.metrics.keys().map(String::as_str)).collect();
    let best: BTreeSet<&str> = runs.iter().flat_map(|run| run.status.best.keys().map(String::as_str)).collect();
    Compared {
        runs: runs.iter().map(|run| run.folder.display().to_string()).collect(),
        states: runs.iter().map(|run| run.status.state.name()).collect(),
        settings: keys.into_iter().map(|key| (key, of_all(key))).filter(|(_, values)| differs(values)).collect(),
        best: best
            .into_iter()
            .map(|name| (name, runs.iter().map(|run| run.status.best.get(name).copied()).collect()))
            .collect(),
        last: last
            .into_iter()
            .map(|name| (name, runs.iter().map(|run| run.status.metrics.get(name)).collect()))
            .collect(),
    }
}

/// The shortest ends of the folders that differ.
fn names(runs: &[FoundRun]) -> Vec<String> {
    let parts: Vec<Vec<String>> = runs
        .iter()
        .map(|run| run.folder.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect())
        .collect();
    let end = |parts: &Vec<String>, count: usize| parts[parts.len().saturating_sub(count)..].join("/");
    let longest = parts.iter().map(Vec::len).max().unwrap_or(1);
    (1..=longest)
        .map(|count| parts.iter().map(|parts| end(parts, count)).collect::<Vec<String>>())
        .find(|names| names.iter().collect::<BTreeSet<_>>().len() == names.len())
        .unwrap_or_else(|| runs.iter().map(|run| run.folder.display().to_string()).collect())
}

fn text(runs: &[FoundRun], compared: &Compared<'_>) -> Result<String, Problems> {
    let header = |first: &str| std::iter::once(first.to_owned()).chain(names(runs)).collect::<Vec<String>>();
    let mut out = Vec::new();
    let mut write = |title: &str, rows: Vec<Vec<String>>| {
        if rows.is_empty() {
            return Ok(());
        }
        if !out.is_empty() {
            out.push(b'\n');
        }
        table::write_rows(&header(title), &rows, terminal::stdout_width(), &mut out)
            .map_err(|error| cannot("write the table", &error))
    };
    let row = |name: &str, cells: Vec<String>| std::iter::once(name.to_owned()).chain(cells).collect::<Vec<String>>();
    let state = row("state", compared.states.iter().map(|state| (*state).to_owned()).collect());
    let settings =
        compared.settings.iter().map(|(key, values)| row(key, values.iter().map(|value| shown(*value)).collect()));
    write("SETTING", std::iter::once(state).chain(settings).collect())?;
    let best = compared.best.iter().map(|(name, values)| {
        let cell = |best: &Option<BestStatus>| {
            best.map_or("-".to_owned(), |best| format!("{} (epoch {})", words::number(best.value), best.epoch))
        };
        row(name, values.iter().map(cell).collect())
    });
    write("BEST", best.collect())?;
    let last = compared.last.iter().map(|(name, values)| {
        row(name, values.iter().map(|value| value.map_or("-".to_owned(), words::metric)).collect())
    });
    write("LAST", last.collect())?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
