//! A history as of one moment, while others continue to write it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::HistoryError;
use super::series::{Array, AsOf, History, Point};

/// The content of a [`History`] at one moment, readable from any thread while it grows: a background plugin sees the
/// history of the event that it handles, however far the training has continued.
///
/// Cloning is cheap. Each call holds the read lock while it copies its answer.
#[derive(Clone, Debug)]
pub struct HistoryView {
    history: Arc<RwLock<History>>,
    until: u64,
}

impl HistoryView {
    /// The history as of `until`: the entries whose sequence numbers are below it.
    pub fn new(history: Arc<RwLock<History>>, until: u64) -> HistoryView {
        HistoryView { history, until }
    }

    /// The history as it is now.
    pub fn now(history: Arc<RwLock<History>>) -> HistoryView {
        let until = history.read().unwrap_or_else(PoisonError::into_inner).next_sequence();
        HistoryView { history, until }
    }

    /// The same history as it is now.
    pub fn renewed(&self) -> HistoryView {
        HistoryView::now(Arc::clone(&self.history))
    }

    /// A history of its own with what there was then.
    pub fn to_history(&self) -> History {
        let history = self.history.read().unwrap_or_else(PoisonError::into_inner);
        history.until(self.until)
    }

    /// Every name that had a value.
    pub fn names(&self) -> Vec<String> {
        self.read(|history| history.names().into_iter().map(str::to_owned).collect())
    }

    /// Every number of a name, the oldest first.
    ///
    /// # Errors
    /// No value of that name, or one of arrays.
    pub fn series(&self, name: &str) -> Result<Vec<Point>, HistoryError> {
        self.read(|history| Ok(history.series(name)?.collect()))
    }

    /// What `read` makes of the numbers of a name, the oldest first, which are not copied; `None` if it has none.
    pub fn values<T>(&self, name: &str, read: impl FnOnce(&[f64]) -> T) -> Option<T> {
        self.read(|history| history.values(name).ok().map(read))
    }

    /// The last number of a name.
    ///
    /// # Errors
    /// No value of that name, or one of arrays.
    pub fn latest(&self, name: &str) -> Result<Point, HistoryError> {
        self.read(|history| history.latest(name))
    }

    /// Every array of a name, the oldest first.
    ///
    /// # Errors
    /// No value of that name, or one of numbers.
    pub fn arrays(&self, name: &str) -> Result<Vec<Array>, HistoryError> {
        self.read(|history| Ok(history.arrays(name)?.collect()))
    }

    /// The last array of each name that has arrays.
    pub fn latest_arrays(&self) -> BTreeMap<String, Array> {
        self.read(|history| {
            let names = history.names().into_iter();
            names.filter_map(|name| Some((name.to_owned(), history.latest_array(name).ok()?))).collect()
        })
    }

    /// The numbers of weights that were the training's after `global_step`: the last one of each name there, and what came
    /// from the entry `since` on, when they were back.
    pub fn of_weights(&self, global_step: u64, since: Option<u64>) -> BTreeMap<String, f64> {
        self.read(|history| history.of_weights(global_step, since))
    }

    fn read<T>(&self, read: impl FnOnce(AsOf<'_>) -> T) -> T {
        // Every entry is complete before the next one starts, so a history can be read after a writer panicked.
        let history = self.history.read().unwrap_or_else(PoisonError::into_inner);
        read(history.as_of(self.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Position;

    #[test]
    fn weights_that_are_back_have_their_own_numbers() {
        let history = Arc::new(RwLock::new(History::new()));
        let put = |name, global_step, value| {
            let position = Position { global_step, ..Position::default() };
            history.write().unwrap().put(name, position, value).unwrap()
        };
        put("val_loss", 3, 0.5);
        put("val_loss", 6, 0.75);
        put("lr", 3, 0.1);
        let since = put("val_f1", 6, 0.25) + 1;
        put("test_loss", 6, 0.625);
        let view = HistoryView::now(Arc::clone(&history));
        let named = |values: &[(&str, f64)]| values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let now: BTreeMap<String, f64> = named(&[("val_loss", 0.75), ("val_f1", 0.25), ("test_loss", 0.625)]);
        assert_eq!(view.of_weights(6, None), now);
        let back: BTreeMap<String, f64> = named(&[("val_loss", 0.5), ("lr", 0.1), ("test_loss", 0.625)]);
        assert_eq!(view.of_weights(3, Some(since)), back);
    }

    #[test]
    fn a_copy_is_the_history_as_it_was() {
        let history = Arc::new(RwLock::new(History::new()));
        let put = |name: &str, global_step, value| {
            let position = Position { global_step, ..Position::default() };
            history.write().unwrap().put(name, position, value).unwrap();
        };
        put("loss", 1, 1.0);
        put("lr", 1, 0.5);
        history.write().unwrap().put_array("curve", Position::default(), vec![2], vec![1.0, 2.0]).unwrap();
        let (then, view) = (history.read().unwrap().clone(), HistoryView::now(Arc::clone(&history)));
        put("loss", 2, 2.0);
        put("later", 3, 3.0);
        history.write().unwrap().put_array("others", Position::default(), vec![1], vec![3.0]).unwrap();
        let text = |history: &History| serde_json::to_string(history).unwrap();
        assert_eq!(text(&view.to_history()), text(&then));
        assert_eq!(text(&HistoryView::now(Arc::clone(&history)).to_history()), text(&history.read().unwrap()));
    }

    #[test]
    fn what_is_removed_is_gone_and_may_come_again() {
        let history = Arc::new(RwLock::new(History::new()));
        let put = |name: &str, value| history.write().unwrap().put(name, Position::default(), value).unwrap();
        put("loss", 1.0);
        put("other", 2.0);
        history.write().unwrap().put_array("curve", Position::default(), vec![1], vec![1.0]).unwrap();
        let before = HistoryView::now(Arc::clone(&history));
        for name in ["loss", "curve", "never there"] {
            history.write().unwrap().remove(name);
        }
        for view in [before, HistoryView::now(Arc::clone(&history))] {
            assert_eq!(view.names(), ["other"]);
            assert!(view.series("loss").is_err() && view.latest("loss").is_err() && view.arrays("curve").is_err());
            assert!(view.latest_arrays().is_empty());
        }
        let stored = serde_json::to_string(&HistoryView::now(Arc::clone(&history)).to_history()).unwrap();
        assert!(!stored.contains("loss") && !stored.contains("curve"), "{stored}");
        put("loss", 3.0);
        assert_eq!(HistoryView::now(history).latest("loss").unwrap().value, 3.0);
    }

    #[test]
    fn a_view_does_not_grow() {
        let history = Arc::new(RwLock::new(History::new()));
        let put = |value| history.write().unwrap().put("loss", Position::default(), value).unwrap();
        put(1.0);
        let view = HistoryView::now(Arc::clone(&history));
        put(2.0);
        let read = std::thread::spawn(move || view.series("loss").unwrap()).join().unwrap();
        assert_eq!(read.iter().map(|point| point.value).collect::<Vec<_>>(), [1.0]);
        assert_eq!(HistoryView::now(history).latest("loss").unwrap().value, 2.0);
    }
}
