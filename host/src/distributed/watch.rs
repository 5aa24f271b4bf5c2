//! Whether the other ranks are alive, and who is the reason if an operation does not end.
//!
//! An operation of all ranks has no time limit of its own: while rank zero exports a model for an hour, the others wait. So each
//! rank has a thread that writes a beat into the store twice a second, and says what its training thread does. A rank that waits
//! reads those of the others. One whose beat stops for the timeout is frozen or gone; one that computes for as long without
//! reaching an operation is stuck; one in a callback, an export or a checkpoint is waited for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::DistributedError;
use super::join::Member;
use crate::torch::TorchError;
use crate::torch::c10d::{Patience, Store};

/// How often a rank shows that it is alive.
const BEAT: Duration = Duration::from_millis(500);

/// After an operation failed: a rank whose beat stops for this long is the reason.
const SILENCE: Duration = Duration::from_millis(2200);

/// How long the reason of a failed operation is looked for.
const SEARCH: Duration = Duration::from_secs(6);

/// What a training thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Doing {
    /// Something that may take any time: a callback, an export, a checkpoint.
    Anything = b'a',
    /// It loads a batch, or computes.
    Computing = b'c',
    /// It waits for the others.
    Waiting = b'w',
}

/// What a rank has last shown.
struct Seen {
    text: Vec<u8>,
    /// Since when it has shown a beat that was new.
    alive: Instant,
    /// Since when it does the same.
    same: Instant,
}

struct Shared {
    rank: usize,
    members: Vec<Member>,
    /// Whether rank zero serves the store.
    zero_serves: bool,
    timeout: Duration,
    doing: AtomicU8,
    /// Operations that this rank has begun.
    operations: AtomicU64,
    /// Whether the beats of the others are read.
    looks: AtomicBool,
    reason: Mutex<Option<(usize, Reason)>>,
    /// Since when each rank has shown nothing, while the beats are read.
    silent: Mutex<BTreeMap<usize, Instant>>,
    /// When the last beat was written: a store that does not answer holds up the thread.
    written: Mutex<Instant>,
    ended: Mutex<bool>,
    end: Condvar,
}

/// Why a rank is not waited for any longer.
#[derive(Clone, Debug)]
enum Reason {
    Failed(String),
    Lost(String),
}

/// Watches the other ranks, on a thread of its own.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins. `store` is the thread's own connection.
    pub(super) fn start(
        store: Store,
        rank: usize,
        members: Vec<Member>,
        zero_serves: bool,
        timeout: Duration,
    ) -> std::io::Result<Watch> {
        let shared = Arc::new(Shared {
            rank,
            members,
            zero_serves,
            timeout,
            doing: AtomicU8::new(Doing::Anything as u8),
            operations: AtomicU64::new(0),
            looks: AtomicBool::new(false),
            reason: Mutex::new(None),
            silent: Mutex::default(),
            written: Mutex::new(Instant::now()),
            ended: Mutex::new(false),
            end: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("ranks".to_owned()).spawn(move || own.run(&store))?;
        Ok(Watch { shared, thread: Some(thread) })
    }

    /// Asked by operations that wait.
    pub(super) fn patience(&self) -> Arc<dyn Patience> {
        Arc::clone(&self.shared) as Arc<dyn Patience>
    }

    pub(super) fn set_doing(&self, doing: Doing) {
        self.shared.doing.store(doing as u8, Ordering::Relaxed);
    }

    /// Runs an operation of all ranks.
    pub(super) fn operation<T>(
        &self,
        action: &'static str,
        operation: impl FnOnce() -> Result<T, TorchError>,
    ) -> Result<T, DistributedError> {
        let before = self.shared.doing.swap(Doing::Waiting as u8, Ordering::Relaxed);
        self.shared.operations.fetch_add(1, Ordering::Relaxed);
        let outcome = operation();
        self.shared.looks.store(false, Ordering::Relaxed);
        self.shared.doing.store(before, Ordering::Relaxed);
        outcome.map_err(|error| self.explain(action, error))
    }

    /// Why an operation failed: looks for the rank that is the reason.
    pub(super) fn explain(&self, action: &'static str, source: TorchError) -> DistributedError {
        let world_size = self.shared.members.len();
        self.search().unwrap_or(DistributedError::Operation { world_size, action, source })
    }

    /// After something failed that ranks do together: the rank that is the reason, if one is found.
    pub(super) fn search(&self) -> Option<DistributedError> {
        let began = Instant::now();
        while began.elapsed() < SEARCH {
            self.shared.looks.store(true, Ordering::Relaxed);
            if let Some(error) = self.reason().or_else(|| self.shared.silent_since(began)) {
                return Some(error);
            }
            std::thread::sleep(BEAT / 5);
        }
        None
    }

    /// The rank that is not waited for any longer, if there is one.
    pub(super) fn reason(&self) -> Option<DistributedError> {
        self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner).clone().map(|found| self.shared.error(found))
    }

    /// Has the beats of the others read from now on, while something other than an operation waits for them.
    pub(super) fn look(&self) {
        self.shared.looks.store(true, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.end.notify_all();
        // A thread that is held up by a store that does not answer is left behind.
        if let Some(thread) = self.thread.take().filter(|_| self.shared.store_answers()) {
            let _ = thread.join();
        }
    }
}

/// The key under which a rank says that it has failed, and why.
pub(super) fn failed_key(rank: usize) -> String {
    format!("failed/{rank}")
}

fn beat_key(rank: usize) -> String {
    format!("beat/{rank}")
}

impl Shared {
    fn run(&self, store: &Store) {
        let mut seen = BTreeMap::new();
        for beat in 0u64.. {
            if self.beat(store, beat, &mut seen).is_err() {
                let message = "does not answer any more, and has the store of the ranks".to_owned();
                let rank = if self.zero_serves && self.rank != 0 { 0 } else { self.rank };
                self.found(rank, Reason::Lost(message));
                return;
            }
            *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            let wait = self.end.wait_timeout_while(ended, BEAT, |ended| !*ended);
            if *wait.unwrap_or_else(PoisonError::into_inner).0 {
                return;
            }
        }
    }

    fn beat(&self, store: &Store, beat: u64, seen: &mut BTreeMap<usize, Seen>) -> Result<(), TorchError> {
        let doing = char::from(self.doing.load(Ordering::Relaxed));
        let text = format!("{beat} {doing} {}", self.operations.load(Ordering::Relaxed));
        store.set(&beat_key(self.rank), text.as_bytes())?;
        if !self.looks.load(Ordering::Relaxed) {
            seen.clear();
            return Ok(());
        }
        for rank in (0..self.members.len()).filter(|rank| *rank != self.rank) {
            if let Some(message) = store.get(&failed_key(rank))? {
                self.found(rank, Reason::Failed(String::from_utf8_lossy(&message).into_owned()));
                return Ok(());
            }
            look_at(seen, rank, store.get(&beat_key(rank))?.unwrap_or_default());
        }
        self.judge(seen);
        let silent = seen.iter().map(|(rank, seen)| (*rank, seen.alive)).collect();
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = silent;
        Ok(())
    }

    /// Looks for a rank that is not waited for any longer.
    fn judge(&self, seen: &BTreeMap<usize, Seen>) {
        let timeout = self.timeout;
        let does =
            |seen: &Seen, doing: Doing| parts(&seen.text).0 == Some(doing as u8) && seen.same.elapsed() > timeout;
        for (rank, seen) in seen {
            let how = if seen.alive.elapsed() > timeout {
                format!("has shown no sign of life for {timeout:?}: it, its machine or its network stands still")
            } else if does(seen, Doing::Computing) {
                format!("has computed for {timeout:?} without an end")
            } else {
                continue;
            };
            self.found(*rank, Reason::Lost(how));
        }
        // Where all wait and nobody is waited for, one of them waits for something else.
        let own = self.operations.load(Ordering::Relaxed);
        let other =
            seen.iter().find_map(|(rank, seen)| Some((*rank, parts(&seen.text).1.filter(|other| *other != own)?)));
        if let (true, Some((rank, other))) = (seen.values().all(|seen| does(seen, Doing::Waiting)), other) {
            let how = format!("waits in another operation ({other}) than rank {} ({own})", self.rank);
            self.found(rank, Reason::Lost(how));
        }
    }

    fn found(&self, rank: usize, reason: Reason) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((rank, reason));
    }

    fn error(&self, (rank, reason): (usize, Reason)) -> DistributedError {
        match reason {
            Reason::Failed(message) => DistributedError::Failed { rank, message },
            Reason::Lost(how) => DistributedError::Lost { rank, who: self.who(rank), how },
        }
    }

    fn who(&self, rank: usize) -> String {
        self.members.get(rank).map_or_else(|| "unknown".to_owned(), ToString::to_string)
    }

    /// After an operation failed at `began`: the rank that has shown nothing since.
    fn silent_since(&self, began: Instant) -> Option<DistributedError> {
        if began.elapsed() < SILENCE {
            return None;
        }
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = silent.iter().min_by_key(|(_, since)| **since)?;
        let (&rank, since) = longest;
        (since.elapsed() > SILENCE)
            .then(|| self.error((rank, Reason::Lost("has ended without a word: it was killed, or crashed".to_owned()))))
    }

    fn store_answers(&self) -> bool {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < 4 * BEAT
    }
}

impl Patience for Shared {
    fn goes_on(&self) -> bool {
        self.looks.store(true, Ordering::Relaxed);
        // Ranks wait for each other within a computation, too: batch norms do.
        self.doing.store(Doing::Waiting as u8, Ordering::Relaxed);
        if self.written.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > self.timeout {
            let message = format!("has not answered for {:?}, and has the store of the ranks", self.timeout);
            self.found(0, Reason::Lost(message));
        }
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// Takes note of a rank's beat.
fn look_at(seen: &mut BTreeMap<usize, Seen>, rank: usize, text: Vec<u8>) {
    let now = Instant::now();
    let seen = seen.entry(rank).or_insert_with(|| Seen { text: text.clone(), alive: now, same: now });
    if seen.text != text {
        if without_count(&seen.text) != without_count(&text) {
            seen.same = now;
        }
        (seen.alive, seen.text) = (now, text);
    }
}

/// What a rank does, and how many operations it has begun.
fn parts(text: &[u8]) -> (Option<u8>, Option<u64>) {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let mut words = text.split(' ').skip(1);
    (words.next().and_then(|word| word.bytes().next()), words.next().and_then(|word| word.parse().ok()))
}

/// A beat without its number.
fn without_count(text: &[u8]) -> &[u8] {
    text.iter().position(|byte| *byte == b' ').map_or(text, |space| &text[space..])
}
