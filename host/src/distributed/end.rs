//! How a rank ends, for the others.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::watch::failed_key;
use crate::torch::c10d::Store;

/// How long the rank that serves the store waits for the others to end, too.
const AFTER_END: Duration = Duration::from_secs(8);

/// The same after a failure: so that all others can read why.
const AFTER_FAILURE: Duration = Duration::from_secs(4);

/// How long a rank tries to tell: a store that stands still never answers.
const AT_MOST: Duration = Duration::from_secs(2);

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
        let message = message.to_owned();
        self.tell(AFTER_FAILURE, move |connection| {
            let key = failed_key(connection.rank);
            // The first reason stays. Without a store nobody can be told.
            if connection.store.get(&key).is_ok_and(|told| told.is_none()) {
                let _ = connection.store.set(&key, message.as_bytes());
            }
        });
    }

    /// Tells that this rank is done.
    pub fn leave(&self) {
        self.tell(AFTER_END, |connection| drop(connection.store.set(&done_key(connection.rank), b"")));
    }

    /// Tells it on a thread of its own, which is left behind where the store does not answer; then rank zero waits for the others.
    fn tell(&self, wait: Duration, tell: impl FnOnce(&Connection) + Send + 'static) {
        let Some(connection) = self.connection.clone() else { return };
        let most = if connection.rank == 0 { wait + AT_MOST } else { AT_MOST };
        let (told, is_told) = mpsc::channel();
        let telling = move || {
            tell(&connection);
            connection.wait_for_others(wait);
            // The store goes before this process ends.
            drop(connection);
            let _ = told.send(());
        };
        if std::thread::Builder::new().name("rank end".to_owned()).spawn(telling).is_ok() {
            let _ = is_told.recv_timeout(most);
        }
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
