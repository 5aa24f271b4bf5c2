//! Which checkpoints are kept: a pure function from the existing ones to actions, without a disk.

use std::collections::BTreeMap;

use plugin_api::{Direction, plugin};
use serde::{Deserialize, Serialize};

/// A rule that keeps the best checkpoints by a metric.
#[plugin]
pub(crate) struct KeepBest {
    /// The metric. It counts for a checkpoint only if it was measured at that very step.
    #[schemars(extend("format" = "metric"))]
    pub(crate) metric: String,
    /// Whether lower or higher is better. Not needed where the metric's name says it: losses and errors go down;
    /// accuracy, precision, recall, F1, AUC and R² go up.
    pub(crate) mode: Option<Direction>,
    /// How many.
    #[schemars(range(min = 1))]
    pub(crate) top: usize,
}

impl Default for KeepBest {
    fn default() -> Self {
        Self { metric: "val_loss".to_owned(), mode: None, top: 1 }
    }
}

/// A checkpoint that this instance wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The name of its folder.
    pub(crate) name: String,
    /// Its global step.
    pub(crate) global_step: u64,
    /// The metrics of the rules that were measured at that step.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// When it was taken, in seconds since 1970; 0 where nothing depends on it.
    #[serde(default)]
    pub(crate) time: u64,
    /// Whether it is never deleted, since so many hours had passed.
    #[serde(default)]
    pub(crate) is_for_good: bool,
}

/// A pointer next to the checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pointer {
    /// The newest checkpoint.
    Last,
    /// The best by the first rule.
    Best,
}

/// An action. Actions are done in order; after a failed `Point`, the rest is skipped, so that nothing is deleted before its
/// replacement is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a pointer point at a checkpoint.
    Point(Pointer, String),
    /// Delete a checkpoint.
    Delete(String),
}

/// The actions when the last of `all`, oldest first, has just been written.
pub(crate) fn plan(keep_last: usize, keep_best: &[KeepBest], all: &[Entry], resumed_from: Option<&str>) -> Vec<Action> {
    let new = all.last().map(|new| Action::Point(Pointer::Last, new.name.clone()));
    new.into_iter().chain(settle(keep_last, keep_best, all, resumed_from)).collect()
}

/// The actions once the metrics of the checkpoints `all`, oldest first, are as they are: the pointer `best`, and what
/// is deleted.
///
/// A checkpoint is deleted if it is neither among the last `keep_last` (0 keeps all), nor among the best of any rule, nor kept
/// for good; `resumed_from` is never deleted.
pub(crate) fn settle(
    keep_last: usize,
    keep_best: &[KeepBest],
    all: &[Entry],
    resumed_from: Option<&str>,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let entries: Vec<&Entry> = all.iter().collect();
    let best: Vec<Vec<&Entry>> = keep_best.iter().map(|rule| rule.best_of(&entries)).collect();
    if let Some(first) = best.first().and_then(|best| best.first()) {
        actions.push(Action::Point(Pointer::Best, first.name.clone()));
    }
    if keep_last == 0 {
        return actions;
    }
    let old = all.len().saturating_sub(keep_last);
    actions.extend(
        all.iter()
            .take(old)
            .filter(|entry| !entry.is_for_good)
            .filter(|entry| !best.iter().flatten().any(|best| best.name == entry.name))
            .filter(|entry| resumed_from != Some(entry.name.as_str()))
            .map(|entry| Action::Delete(entry.name.clone())),
    );
    actions
}

/// Those of `queued` that need not be written once a newer checkpoint is queued, the last of `all`: neither the best by a rule
/// nor kept for good. Each that waits holds the whole state in memory.
pub(crate) fn left_out<'e>(
    keep_best: &[KeepBest],
    all: &[&Entry],
    queued: &'e [Entry],
) -> impl Iterator<Item = &'e Entry> {
    let best: Vec<String> = keep_best.iter().filter_map(|rule| Some(rule.best_of(all).first()?.name.clone())).collect();
    queued.iter().filter(move |entry| !entry.is_for_good && !best.contains(&entry.name))
}

impl KeepBest {
    /// Which way its metric improves; `None` if neither `mode` nor the metric's name says it.
    pub(crate) fn direction(&self) -> Option<Direction> {
        self.mode.or_else(|| Direction::of_metric(&self.metric))
    }

    /// The best of `entries`, the best first; of equal ones the earlier is better. NaN does not count.
    fn best_of<'e>(&self, entries: &[&'e Entry]) -> Vec<&'e Entry> {
        let mut valued: Vec<(f64, &Entry)> = entries
            .iter()
            .filter_map(|&entry| Some((*entry.metrics.get(&self.metric)?, entry)))
            .filter(|(value, _)| !value.is_nan())
            .collect();
        // Stable, so that equal values keep their order; `partial_cmp`, since for `total_cmp` the two zeros
        // differ.
        valued.sort_by(|(left, _), (right, _)| {
            let order = left.partial_cmp(right).unwrap_or(std::cmp::Ordering::Equal);
            match self.direction() {
                Some(Direction::Max) => order.reverse(),
                _ => order,
            }
        });
        valued.into_iter().take(self.top).map(|(_, entry)| entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(number: u64, loss: Option<f64>) -> Entry {
        let metrics = loss.into_iter().map(|loss| ("val_loss".to_owned(), loss)).collect();
        Entry { name: number.to_string(), global_step: number, metrics, time: 0, is_for_good: false }
    }

    fn rule(mode: Direction, top: usize) -> KeepBest {
        KeepBest { mode: Some(mode), top, ..KeepBest::default() }
    }

    /// Checkpoints with these losses, one after another; returns those that remain and the target of `best`.
    fn left(keep_last: usize, rules: &[KeepBest], resumed: Option<&str>, losses: &[Option<f64>]) -> (String, String) {
        let (mut kept, mut best) = (Vec::new(), String::new());
        for (index, &loss) in losses.iter().enumerate() {
            let new = entry(index as u64 + 1, loss);
            kept.push(new.clone());
            for action in plan(keep_last, rules, &kept.clone(), resumed) {
                match action {
                    Action::Point(Pointer::Last, name) => assert_eq!(name, new.name),
                    Action::Point(Pointer::Best, name) => best = name,
                    Action::Delete(name) => kept.retain(|entry| entry.name != name),
                }
            }
        }
        (kept.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(" "), best)
    }

    #[test]
    fn the_table_of_what_is_kept() {
        use Direction::{Max, Min};
        const NAN: Option<f64> = Some(f64::NAN);
        let falling = [Some(3.0), Some(2.0), Some(1.0), Some(4.0), Some(5.0), Some(6.0)];
        type Case<'c> = (usize, &'c [KeepBest], Option<&'c str>, &'c [Option<f64>], &'c str, &'c str);
        let cases: &[Case<'_>] = &[
            (0, &[], None, &falling, "1 2 3 4 5 6", ""),
            (2, &[], None, &falling, "5 6", ""),
            (9, &[], None, &falling, "1 2 3 4 5 6", ""),
            (2, &[rule(Min, 1)], None, &falling, "3 5 6", "3"),
            (1, &[rule(Min, 2)], None, &falling, "2 3 6", "3"),
            (1, &[rule(Max, 1)], None, &falling, "6", "6"),
            (1, &[rule(Min, 1), rule(Max, 2)], None, &falling, "3 5 6", "3"),
            // The checkpoint that the run resumed from stays, and does not count.
            (2, &[], Some("1"), &falling, "1 5 6", ""),
            // NaN is never the best, in either direction; nor is a metric that was not measured.
            (1, &[rule(Min, 1)], None, &[NAN, NAN, None, NAN], "4", ""),
            (1, &[rule(Max, 1)], None, &[NAN, Some(0.1), NAN, None], "2 4", "2"),
            // Of equal ones, the earlier stays.
            (1, &[rule(Min, 1)], None, &[Some(1.0), Some(1.0), Some(1.0)], "1 3", "1"),
            (1, &[rule(Max, 1)], None, &[Some(0.0), Some(-0.0), Some(-1.0)], "1 3", "1"),
            (1, &[rule(Min, 1)], None, &[Some(f64::INFINITY), NAN], "1 2", "1"),
        ];
        for (keep_last, rules, resumed, losses, kept, best) in cases {
            let expected = (String::from(*kept), String::from(*best));
            assert_eq!(left(*keep_last, rules, *resumed, losses), expected, "{keep_last} {rules:?} {losses:?}");
        }
    }

    #[test]
    fn pointers_move_before_anything_is_deleted() {
        let kept = [entry(1, Some(2.0)), entry(2, Some(3.0)), entry(3, Some(1.0))];
        let actions = plan(1, &[rule(Direction::Min, 1)], &kept, None);
        let expected = [
            Action::Point(Pointer::Last, "3".to_owned()),
            Action::Point(Pointer::Best, "3".to_owned()),
            Action::Delete("1".to_owned()),
            Action::Delete("2".to_owned()),
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn what_is_kept_for_good_stays() {
        let for_good = Entry { is_for_good: true, ..entry(1, None) };
        let actions = plan(1, &[], &[for_good, entry(2, None), entry(3, None)], None);
        assert_eq!(actions[1..], [Action::Delete("2".to_owned())]);
    }

    #[test]
    fn what_waits_is_left_out_unless_it_is_the_best() {
        let rules = [rule(Direction::Min, 1)];
        let left_out = |all: &[Entry], queued: &[Entry]| -> Vec<String> {
            super::left_out(&rules, &all.iter().collect::<Vec<_>>(), queued).map(|entry| entry.name.clone()).collect()
        };
        let [best, worse, new, better] =
            [entry(1, Some(1.0)), entry(2, Some(2.0)), entry(3, Some(3.0)), entry(4, Some(0.5))];
        assert_eq!(left_out(&[best.clone(), worse.clone(), new.clone()], &[best.clone(), worse.clone()]), ["2"]);
        assert_eq!(left_out(&[best.clone(), worse.clone(), better], &[best.clone(), worse.clone()]), ["1", "2"]);
        // The best is written already.
        assert_eq!(left_out(&[best, worse.clone(), new], std::slice::from_ref(&worse)), ["2"]);
        let for_good = Entry { is_for_good: true, ..worse };
        assert_eq!(left_out(std::slice::from_ref(&for_good), std::slice::from_ref(&for_good)), [""; 0]);
    }

    proptest! {
        #[test]
        fn what_must_stay_stays(
            losses in prop::collection::vec(prop::option::of(prop_oneof![any::<f64>(), Just(1.0)]), 1..12),
            keep_last in 0usize..4,
            top in 1usize..3,
            resumed in 1u64..12,
        ) {
            let resumed = resumed.to_string();
            let (kept, best) = left(keep_last, &[rule(Direction::Min, top)], Some(&resumed), &losses);
            let kept: Vec<_> = kept.split(' ').collect();
            let newest = losses.len().to_string();
            prop_assert!(kept.contains(&newest.as_str()));
            prop_assert!(best.is_empty() || kept.contains(&best.as_str()));
            prop_assert!(losses.len() < resumed.parse::<usize>().unwrap() || kept.contains(&resumed.as_str()));
            let least = losses.iter().flatten().copied().filter(|loss| !loss.is_nan()).fold(f64::NAN, f64::min);
            let of_best = best.parse::<usize>().ok().and_then(|number| losses[number - 1]);
            prop_assert_eq!(of_best, Some(least).filter(|least| !least.is_nan()));
            if keep_last > 0 {
                prop_assert!(kept.len() <= keep_last + top + 1);
            }
        }
    }
}
