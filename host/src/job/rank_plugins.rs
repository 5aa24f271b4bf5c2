//! The plugins of a run of several ranks: which of them must run on every rank, and what those may depend on.
//!
//! What changes the training must do the same on every rank, after the same step. What its descriptor and its entry tell is
//! refused here, before the training; the rest by the table of services, when it is called.

use plugin_api::services::fits;

use super::metric_names;
use crate::config::{Document, Every, Ranks};
use crate::dispatch::{Dispatch, Order, Planned};
use crate::report::Problem;

/// A problem for each instance that changes the training, but not alike on every rank.
pub(super) fn check(document: &Document, order: &Order) -> Vec<Problem> {
    let declared = document.value().get("plugins").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
    let mut problems = Vec::new();
    for (index, planned) in order.planned.iter().enumerate().filter(|(_, planned)| planned.changes_training()) {
        let entry = Entry { document, index: (index < declared).then_some(index), planned };
        if planned.ranks() == Ranks::Zero {
            problems.push(entry.on_one_rank());
            continue;
        }
        if let Some(Every::Time(_)) = planned.when.every {
            let message = format!(
                "`{}` changes the training, and is triggered by time, which each rank measures for itself",
                planned.name()
            );
            problems.push(
                entry
                    .problem(message, "when/every")
                    .with_hint("count steps or epochs: `every = \"100 steps\"`".to_owned()),
            );
        }
        if planned.dispatch == Dispatch::Background {
            let message = format!(
                "`{}` changes the training, and runs in the background, where each rank is at another step",
                planned.name()
            );
            problems.push(entry.problem(message, "dispatch").with_hint("say `dispatch = \"inline\"`".to_owned()));
        }
        problems.extend(entry.metrics_of_rank_zero(order));
    }
    problems
}

/// An instance, and its entry in the run file if it has one.
struct Entry<'a> {
    document: &'a Document,
    index: Option<usize>,
    planned: &'a Planned,
}

impl Entry<'_> {
    /// A problem at `key` of the entry or, if that is not written, at its kind.
    fn problem(&self, message: String, key: &str) -> Problem {
        let label = self.index.and_then(|index| {
            let at = |key: &str| self.document.label_value(&format!("/plugins/{index}/{key}"), "");
            at(key).or_else(|| at("kind"))
        });
        Problem::new(message).with_label(label)
    }

    fn on_one_rank(&self) -> Problem {
        let name = self.planned.name();
        let message = format!("`{name}` changes the training and must run on every rank, but would run on rank 0 only");
        let hint = match self.index {
            Some(_) => "say `ranks = \"all\"` in its `[[plugins]]` entry".to_owned(),
            None => format!(
                "declare it: `[[plugins]]` with `kind = \"{}\"` and `ranks = \"all\"`",
                self.planned.options.kind
            ),
        };
        self.problem(message, "ranks").with_hint(hint)
    }

    /// Metrics that it waits for, and that only plugins on rank zero put.
    fn metrics_of_rank_zero(&self, order: &Order) -> Vec<Problem> {
        let puts = |name: &str, ranks: Ranks| {
            let mut others = order.planned.iter().filter(move |other| other.ranks() == ranks);
            others.find(|other| metric_names::produced_by(other).iter().any(|produced| fits(produced, name)))
        };
        let problem = |name: String| {
            let producer = puts(&name, Ranks::Zero).filter(|_| puts(&name, Ranks::All).is_none())?;
            let message = format!(
                "`{}` runs on every rank and waits for the metric `{name}`, which `{}` puts on rank 0 only",
                self.planned.name(),
                producer.name()
            );
            let hint = format!("say `ranks = \"all\"` in the `[[plugins]]` entry of `{}`, too", producer.name());
            Some(self.problem(message, "kind").with_hint(hint))
        };
        metric_names::read_by(self.planned).into_iter().filter_map(problem).collect()
    }
}
