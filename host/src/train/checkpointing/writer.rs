//! Writes checkpoints on a thread of its own while the training goes on, one after the other.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::CheckpointData;
use crate::dispatch::WrittenCheckpoints;
use crate::services::ServiceError;
use crate::train::TrainError;

/// The checkpoints that are still to be written, and the thread that writes them. Dropping it writes what waits.
pub(in super::super) struct CheckpointWriter {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

/// A copied checkpoint and where it goes.
pub(in super::super) struct Queued {
    /// The path as the callback gave it.
    pub(in super::super) name: String,
    /// The same, absolute.
    pub(in super::super) path: PathBuf,
    pub(in super::super) data: CheckpointData,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Queued>,
    is_writing: bool,
    is_closed: bool,
}

impl CheckpointWriter {
    /// Starts the thread; `tell` tells the callbacks what it has written.
    ///
    /// # Errors
    ///
    /// When the system cannot start a thread.
    pub(in super::super) fn start(tell: WrittenCheckpoints) -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let of_thread = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("checkpoints".to_owned()).spawn(move || {
            while let Some(queued) = of_thread.next() {
                queued.write(&tell);
                of_thread.done();
            }
        })?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Takes those of the `names` back that still wait.
    pub(in super::super) fn take_back(&self, names: &[String]) -> VecDeque<Queued> {
        let mut state = self.queue.lock();
        let (taken, waiting) =
            std::mem::take(&mut state.waiting).into_iter().partition(|waits| names.contains(&waits.name));
        state.waiting = waiting;
        taken
    }

    pub(in super::super) fn queue(&self, queued: Queued) {
        self.queue.lock().waiting.push_back(queued);
        self.queue.changed.notify_all();
    }

    /// Waits until everything queued is written.
    pub(in super::super) fn finish(&self) {
        let mut state = self.queue.lock();
        while state.is_writing || !state.waiting.is_empty() {
            state = self.queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
        self.queue.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes checkpoints ended with a panic of the host");
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next checkpoint; `None` once there will be none.
    fn next(&self) -> Option<Queued> {
        let mut state = self.lock();
        loop {
            if let Some(queued) = state.waiting.pop_front() {
                state.is_writing = true;
                return Some(queued);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self) {
        self.lock().is_writing = false;
        self.changed.notify_all();
    }
}

impl Queued {
    fn write(self, tell: &WrittenCheckpoints) {
        let Self { name, path, data } = self;
        // Whoever waits for the thread must not wait forever, whatever happens in it.
        let written = catch_unwind(AssertUnwindSafe(|| data.write(&path).map_err(TrainError::from)));
        let written = match written {
            Ok(written) => written.map_err(|error| ServiceError::from(error).to_string()),
            Err(_) => Err(format!("the host panicked while it wrote `{}`", path.display())),
        };
        tell.tell(data.position(), &name, written.map(|written| written.bytes));
    }
}
