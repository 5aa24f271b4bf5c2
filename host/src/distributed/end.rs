//! How a rank ends, for the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::watch::failed_key;
use crate::torch::c10d::Store;

/// How long the rank that serves the store waits for the others to end, too.
const AFTER_END: Duration = Duration::from_secs(8);

/// The same after a failure: so that all others can read why.
const AFTER_FAILURE: Duration = Duration::from_secs(4);

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Tells the other ranks that this one ends. Cloning is cheap, and any thread may tell.
#[derive(Clone, Debug, Default)]
pub struct RankEnd {
    /// `None` with one process.
    pub(super) connection: Option<Connection>,
}

#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) store: Arc<Store>,
    /// Stays until this rank has told its end.
    pub(super) _served: Arc<Store>,
    pub(super) rank: usize,
    pub(super) world_size: usize,
}

impl RankEnd {
    /// Tells that this rank has failed, and why. Rank zero waits a little, so that the others can read it where it has the store.
    pub fn fail(&self, message: &str) {
        let Some(connection) = &self.connection else { return };
        let key = failed_key(connection.rank);
        // The first reason stays. Without a store nobody can be told.
        if connection.store.get(&key).is_ok_and(|told| told.is_none()) {
            let _ = connection.store.set(&key, message.as_bytes());
        }
        connection.wait_for_others(AFTER_FAILURE);
    }

    /// Tells that this rank is done.
    pub fn leave(&self) {
        let Some(connection) = &self.connection else { return };
        let _ = connection.store.set(&done_key(connection.rank), b"");
        connection.wait_for_others(AFTER_END);
    }
}

impl Connection {
    /// Rank zero waits until every other rank has failed or is done, at most for `time`.
    fn wait_for_others(&self, time: Duration) {
        if self.rank != 0 {
            return;
        }
        let began = Instant::now();
        let has_ended = |rank: usize| {
            let is_set = |key: String| self.store.get(&key).ok().flatten().is_some();
            is_set(done_key(rank)) || is_set(failed_key(rank))
        };
        let mut others: Vec<usize> = (1..self.world_size).collect();
        while began.elapsed() < time {
            others.retain(|rank| !has_ended(*rank));
            if others.is_empty() {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn done_key(rank: usize) -> String {
    format!("done/{rank}")
}
