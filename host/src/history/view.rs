//! A history as of one moment, while others continue to write it.

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
