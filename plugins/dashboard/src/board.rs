//! The content of the page: the hooks write it, the server's thread reads it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chart::{Artifact, Artifacts, Curves, Drawn, Facts, PluginTime, Progress};
use monitor::ConfusionMatrix;
use plugin_api::protocol::{ConsoleLine, ParameterGroup};
use serde::Serialize;

/// The most lines of the console that are shown, the newest ones.
const MOST_LINES: usize = 300;

/// A requested learning rate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WantedRate {
    /// The parameter group; `None` for all.
    pub(crate) group: Option<String>,
    pub(crate) value: f64,
}

/// The state that the hooks and the server's thread share. Locks are held only for copies: neither waits for the other.
#[derive(Default)]
pub(crate) struct Board {
    shown: Mutex<Shown>,
    rate: Mutex<Option<WantedRate>>,
    rate_is_wanted: AtomicBool,
}

/// Everything that is shown.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) facts: Facts,
    pub(crate) progress: Progress,
    pub(crate) curves: Curves,
    pub(crate) matrices: Vec<ConfusionMatrix>,
    pub(crate) groups: Vec<ParameterGroup>,
    pub(crate) times: Vec<PluginTime>,
    pub(crate) artifacts: Artifacts,
    lines: VecDeque<ConsoleLine>,
    /// The message for someone who pressed a button.
    notice: Notice,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Notice {
    number: u64,
    text: String,
}

/// What one page already has.
#[derive(Default)]
pub(crate) struct Seen {
    curves: HashMap<String, Extent>,
    line: u64,
    has_facts: bool,
    progress: Option<Progress>,
    matrices: Vec<ConfusionMatrix>,
    groups: Vec<ParameterGroup>,
    times: Vec<PluginTime>,
    artifacts: Vec<Artifact>,
    notice: u64,
}

/// How much of a curve a page has.
#[derive(Clone, Copy, PartialEq)]
struct Extent {
    /// How it was thinned out.
    every: u64,
    points: usize,
    /// The last point, its value as bits, so that NaN equals NaN.
    last: Option<(u64, u64)>,
}

/// An update for a page: each part is absent, or has everything that is new.
#[derive(Default, Serialize)]
pub(crate) struct Update {
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Facts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    curves: HashMap<String, NewPoints>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matrices: Option<Vec<ConfusionMatrix>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<ParameterGroup>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<Vec<PluginTime>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifacts: Option<Vec<Artifact>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<ConsoleLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<Notice>,
}

/// Points that replace those from `from` on.
#[derive(Serialize)]
struct NewPoints {
    from: usize,
    #[serde(flatten)]
    drawn: Drawn,
}

impl Board {
    /// For the hooks.
    pub(crate) fn shown(&self) -> MutexGuard<'_, Shown> {
        // A panic cannot leave inconsistent data here.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests a learning rate.
    pub(crate) fn want_rate(&self, wanted: WantedRate) {
        *self.rate.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
        self.rate_is_wanted.store(true, Ordering::Release);
    }

    /// Takes the requested learning rate. Costs only a load if there is none.
    pub(crate) fn take_wanted_rate(&self) -> Option<WantedRate> {
        if !self.rate_is_wanted.load(Ordering::Acquire) {
            return None;
        }
        self.rate_is_wanted.store(false, Ordering::Release);
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The update that a page needs, as JSON; `None` if nothing is new.
    pub(crate) fn update(&self, seen: &mut Seen) -> Option<String> {
        let update = self.shown().update(seen)?;
        // Encoded outside the lock.
        serde_json::to_string(&update).ok()
    }

    /// Whether the run is over.
    pub(crate) fn is_over(&self) -> bool {
        self.shown().progress.state != "running"
    }
}

impl Shown {
    /// Adds lines of the console.
    pub(crate) fn add_lines(&mut self, lines: Vec<ConsoleLine>) {
        self.lines.extend(lines);
        let surplus = self.lines.len().saturating_sub(MOST_LINES);
        self.lines.drain(..surplus);
    }

    /// The number of the last line.
    pub(crate) fn last_line(&self) -> u64 {
        self.lines.back().map_or(0, |line| line.number)
    }

    /// Shows a message on the page.
    pub(crate) fn notify(&mut self, text: String) {
        self.notice = Notice { number: self.notice.number + 1, text };
    }

    fn update(&self, seen: &mut Seen) -> Option<Update> {
        let mut update = Update::default();
        let mut is_new = false;
        if !seen.has_facts {
            seen.has_facts = true;
            is_new = true;
            update.facts = Some(self.facts.clone());
        }
        if seen.progress.as_ref() != Some(&self.progress) {
            is_new = true;
            seen.progress = Some(self.progress.clone());
            update.progress.clone_from(&seen.progress);
        }
        is_new |= changed(&self.matrices, &mut seen.matrices, &mut update.matrices);
        is_new |= changed(&self.groups, &mut seen.groups, &mut update.groups);
        is_new |= changed(&self.times, &mut seen.times, &mut update.times);
        is_new |= changed(self.artifacts.list(), &mut seen.artifacts, &mut update.artifacts);
        update.lines = self.lines.iter().filter(|line| line.number > seen.line).cloned().collect();
        seen.line = self.last_line().max(seen.line);
        if self.notice.number != seen.notice {
            seen.notice = self.notice.number;
            update.notice = Some(self.notice.clone());
        }
        for (name, curve) in self.curves.iter() {
            let last = curve.points().last().map(|&(step, value)| (step, value.to_bits()));
            let now = Extent { every: curve.every(), points: curve.points().len(), last };
            let before = seen.curves.get(name);
            if before == Some(&now) {
                continue;
            }
            // The last point may have been replaced by a newer one.
            let before = before.filter(|before| before.every == now.every);
            let from = before.map_or(0, |before| before.points.saturating_sub(1));
            update.curves.insert(name.to_owned(), NewPoints { from, drawn: Drawn::of(name, curve, from) });
            seen.curves.insert(name.to_owned(), now);
        }
        let is_new = is_new || !update.lines.is_empty() || update.notice.is_some() || !update.curves.is_empty();
        is_new.then_some(update)
    }
}

/// Copies a part that has changed.
fn changed<T: Clone + PartialEq>(now: &[T], seen: &mut Vec<T>, update: &mut Option<Vec<T>>) -> bool {
    if now == seen.as_slice() {
        return false;
    }
    *seen = now.to_vec();
    *update = Some(seen.clone());
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Applies updates like `live.js` does.
    #[derive(Default)]
    struct Page {
        seen: Seen,
        curves: HashMap<String, Vec<Value>>,
        lines: Vec<Value>,
    }

    impl Page {
        fn apply(&mut self, board: &Board) -> Option<Value> {
            let update: Value = serde_json::from_str(&board.update(&mut self.seen)?).unwrap();
            for (name, curve) in update["curves"].as_object().into_iter().flatten() {
                let points = self.curves.entry(name.clone()).or_default();
                points.truncate(curve["from"].as_u64().unwrap() as usize);
                points.extend(curve["points"].as_array().unwrap().iter().cloned());
            }
            self.lines.extend(update["lines"].as_array().into_iter().flatten().cloned());
            Some(update)
        }
    }

    fn line(number: u64) -> ConsoleLine {
        ConsoleLine { number, time: 0.0, text: format!("line {number}") }
    }

    #[test]
    fn a_page_is_told_everything_once() {
        let board = Board::default();
        board.shown().curves.push("val_loss", 10, 0.5);
        board.shown().add_lines(vec![line(1), line(2)]);
        let mut page = Page::default();
        let first = page.apply(&board).unwrap();
        assert_eq!(first["curves"]["val_loss"]["points"], json!([[10, 0.5]]));
        assert!(first["facts"].is_object() && first["progress"].is_object());
        assert!(page.apply(&board).is_none(), "there is nothing new");
        board.shown().curves.push("val_loss", 20, 0.25);
        board.shown().add_lines(vec![line(3)]);
        board.shown().notify("the learning rate is 0.1".to_owned());
        let second = page.apply(&board).unwrap();
        assert!(second.get("facts").is_none() && second.get("progress").is_none());
        assert_eq!(second["notice"]["text"], "the learning rate is 0.1");
        assert_eq!((page.curves["val_loss"].len(), page.lines.len()), (2, 3));
        assert!(page.apply(&board).is_none());
    }

    #[test]
    fn a_value_that_is_told_anew_is_news() {
        let board = Board::default();
        let mut page = Page::default();
        for value in [0.5, 0.25] {
            board.shown().curves.push("val_loss", 10, value);
            page.apply(&board).unwrap();
            assert_eq!(page.curves["val_loss"], [json!([10, value])]);
        }
    }

    #[test]
    fn old_lines_make_room() {
        let board = Board::default();
        board.shown().add_lines((1..=1000).map(line).collect());
        let mut page = Page::default();
        page.apply(&board).unwrap();
        assert_eq!((page.lines.len(), page.lines[0]["number"].as_u64()), (MOST_LINES, Some(701)));
    }

    #[test]
    fn a_wanted_rate_is_taken_once_and_the_last_counts() {
        let board = Board::default();
        assert_eq!(board.take_wanted_rate(), None);
        for value in [0.1, 0.2] {
            board.want_rate(WantedRate { group: None, value });
        }
        assert_eq!(board.take_wanted_rate(), Some(WantedRate { group: None, value: 0.2 }));
        assert_eq!(board.take_wanted_rate(), None);
    }

    proptest! {
        #[test]
        fn pages_that_hear_at_any_time_show_the_same(pushes in prop::collection::vec((1u64..4, any::<bool>()), 1..5000)) {
            let board = Board::default();
            let (mut often, mut step) = (Page::default(), 0);
            for (distance, hears) in pushes {
                step += distance;
                board.shown().curves.push("loss", step, step as f64);
                if hears {
                    often.apply(&board);
                }
            }
            often.apply(&board);
            let mut late = Page::default();
            late.apply(&board);
            prop_assert_eq!(&often.curves, &late.curves);
        }
    }
}
