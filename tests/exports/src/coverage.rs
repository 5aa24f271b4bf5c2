//! The table in an exporter's page that says which operators it exports: each exporter checks its own.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::Callback;
use serde_json::{Value, json};

use crate::{Subject, operators};

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

/// The cells of an exporter, by operator: its possible outcomes, in the order of the legend.
pub fn coverage(outcomes: impl Fn(&Subject) -> Vec<char>) -> BTreeMap<&'static str, Vec<String>> {
    let subjects: Vec<(Subject, BTreeSet<&str>)> = operators()
        .into_iter()
        .map(|model| {
            let subject = Subject::new(model);
            let found = subject.graph().nodes.iter().map(|node| node.op.name()).collect();
            (subject, found)
        })
        .collect();
    let alone: BTreeSet<&str> =
        subjects.iter().filter(|(_, found)| found.len() == 1).flat_map(|(_, found)| found.iter().copied()).collect();
    let mut rows: BTreeMap<&str, Vec<BTreeSet<char>>> = BTreeMap::new();
    for (subject, found) in &subjects {
        // A model of several operators counts for those without a model of their own.
        let names: Vec<&str> = found.iter().copied().filter(|name| found.len() == 1 || !alone.contains(name)).collect();
        if names.is_empty() {
            continue;
        }
        let outcomes = outcomes(subject);
        for name in names {
            let row = rows.entry(name).or_insert_with(|| vec![BTreeSet::new(); outcomes.len()]);
            row.iter_mut().zip(&outcomes).for_each(|(cell, outcome)| {
                cell.insert(*outcome);
            });
        }
    }
    let cell = |outcomes: &BTreeSet<char>| {
        let in_order = [VERIFIED, UNVERIFIED, REFUSED].into_iter().filter(|outcome| outcomes.contains(outcome));
        in_order.map(String::from).collect::<Vec<_>>().join(" ")
    };
    rows.into_iter().map(|(name, cells)| (name, cells.iter().map(cell).collect())).collect()
}

/// The cells that a page has, by operator.
///
/// # Panics
///
/// When the page has no such table.
pub fn told(page: &'static str) -> BTreeMap<&'static str, Vec<String>> {
    let table = page.lines().skip_while(|line| !line.starts_with("| operator |"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    let cells: BTreeMap<_, _> = rows
        .filter_map(|row| {
            let mut cells = row.trim_matches('|').split('|').map(str::trim);
            let name = cells.next()?.trim_matches('`');
            Some((name, cells.map(str::to_owned).collect()))
        })
        .collect();
    assert!(!cells.is_empty(), "the page has no table of operators");
    cells
}
