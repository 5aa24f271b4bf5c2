//! The table in an exporter's page that says which operators it exports: each exporter checks its own.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::Callback;
use serde_json::{Value, json};

use crate::{Source, Subject, limits, masks, operators};

/// Exported, and verified before it is published.
const VERIFIED: char = '✓';
/// Exported, but the runtime in the plugin does not run it.
const UNVERIFIED: char = '○';
/// Rejected before training starts.
const REFUSED: char = '–';

/// The outcome for a model that `T` must export.
///
/// # Panics
///
/// When the options are wrong, or an export fails that was not rejected before.
pub fn outcome<T: Callback>(subject: &Subject, mut options: Value) -> char {
    options["sync"] = json!(false);
    let mut host = subject.run::<T>(options, 1).expect("the options are right");
    if host.setup().is_err() {
        return REFUSED;
    }
    host.trigger("end").unwrap_or_else(|error| panic!("{}: {error}", subject.model.name));
    if host.artifacts().iter().any(|artifact| artifact.kind == "unverified_export") { UNVERIFIED } else { VERIFIED }
}

/// What an exporter does with each operator.
#[derive(Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The cells of each operator: its possible outcomes, in the order of the legend.
    operators: BTreeMap<String, Vec<String>>,
    /// Where an outcome depends on the attributes, or is a refusal: the cells of each example, by operator and layers.
    examples: BTreeMap<(String, String), Vec<String>>,
}

impl Coverage {
    /// That of an exporter with these outcomes for a model, one for each column.
    pub fn found(outcomes: impl Fn(&Subject) -> Vec<char>) -> Coverage {
        let subjects: Vec<(Subject, BTreeSet<&str>)> = operators()
            .into_iter()
            .chain(limits())
            .chain(masks())
            .map(|model| {
                let subject = Subject::new(model);
                let found = subject.graph().nodes.iter().map(|node| node.op.name()).collect();
                (subject, found)
            })
            .collect();
        let alone: BTreeSet<&str> = subjects
            .iter()
            .filter(|(_, found)| found.len() == 1)
            .flat_map(|(_, found)| found.iter().copied())
            .collect();
        let mut rows: BTreeMap<&str, Vec<(String, Vec<char>)>> = BTreeMap::new();
        for (subject, found) in &subjects {
            // A model of several operators counts for those without a model of their own.
            let names: Vec<&str> =
                found.iter().copied().filter(|name| found.len() == 1 || !alone.contains(name)).collect();
            if names.is_empty() {
                continue;
            }
            let outcomes = outcomes(subject);
            for name in names {
                rows.entry(name).or_default().push((example(subject), outcomes.clone()));
            }
        }
        let mut coverage = Coverage { operators: BTreeMap::new(), examples: BTreeMap::new() };
        for (name, models) in rows {
            let columns = models.first().map_or(0, |(_, outcomes)| outcomes.len());
            let cell = |column: usize| {
                let is_there = |outcome: &char| models.iter().any(|(_, outcomes)| outcomes[column] == *outcome);
                let in_order = [VERIFIED, UNVERIFIED, REFUSED].into_iter().filter(is_there);
                in_order.map(String::from).collect::<Vec<_>>().join(" ")
            };
            let cells: Vec<String> = (0..columns).map(cell).collect();
            if cells.iter().any(|cell| cell.contains(' ')) {
                for (example, outcomes) in models {
                    let cells = outcomes.into_iter().map(String::from).collect();
                    coverage.examples.insert((name.to_owned(), example), cells);
                }
            }
            coverage.operators.insert(name.to_owned(), cells);
        }
        coverage
    }

    /// That of an exporter's page.
    pub fn told(page: &str) -> Coverage {
        let rows = |head: &str| -> Vec<Vec<String>> {
            let table = page.lines().skip_while(|line| !line.starts_with(head));
            let rows = table.skip(2).take_while(|line| line.starts_with('|'));
            let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
            rows.map(cells).collect()
        };
        let split = |mut row: Vec<String>, at: usize| (row.drain(..at).collect::<Vec<_>>(), row);
        let operators = rows("| operator |").into_iter().map(|row| split(row, 1));
        let examples = rows("| example |").into_iter().map(|row| split(row, 2));
        Coverage {
            operators: operators.map(|(mut key, cells)| (key.remove(0), cells)).collect(),
            examples: examples.map(|(mut key, cells)| ((key.remove(0), key.remove(0)), cells)).collect(),
        }
    }

    /// The tables as a page has them.
    pub fn tables(&self) -> String {
        let row = |keys: &[&str], cells: &[String]| {
            let keys = keys.iter().map(|key| format!("`{key}`"));
            let all: Vec<String> = keys.chain(cells.iter().cloned()).collect();
            format!("| {} |\n", all.join(" | "))
        };
        let operators: String = self.operators.iter().map(|(name, cells)| row(&[name], cells)).collect();
        let examples: String =
            self.examples.iter().map(|((name, example), cells)| row(&[name, example], cells)).collect();
        format!("{operators}\n{examples}")
    }
}

/// The attributes of a model's only layer, and the shape of its samples; the layers, if there are several.
fn example(subject: &Subject) -> String {
    let layers = subject.model.layers.as_str();
    let is_several = subject.model.source == Source::Operators && layers.matches("{ type").count() > 1;
    let attributes = layers.strip_prefix("{ type = \"").filter(|_| !is_several);
    let attributes = attributes.and_then(|rest| rest.strip_suffix(" }")?.split_once('"'));
    let attributes = attributes.map_or(layers, |(_, rest)| rest.trim_start_matches(", "));
    let attributes = if attributes.is_empty() { "defaults" } else { attributes };
    format!("{attributes} of {:?}", subject.model.sample_shape)
}
