//! A bounded queue and its thread, for work that the training must not wait for.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plugin_api::{Error, Result};

/// The time for a job to clean up when its time is over.
const LAST_MOMENT: Duration = Duration::from_millis(200);

/// Jobs that a thread does one at a time.
///
/// The queue ends with its owner: jobs that are not done when [`Queue::drain`]'s limit has passed, or when the queue is
/// dropped, are dropped.
#[derive(Debug)]
pub struct Queue<T> {
    jobs: SyncSender<T>,
    deadline: Deadline,
}

/// The deadline of the jobs. Not set before the end of the run.
#[derive(Clone, Debug)]
pub struct Deadline {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    /// Set once the queue is drained or dropped.
    end: Option<Instant>,
    /// Jobs that were accepted and are not done.
    waiting: usize,
    /// Jobs that failed.
    failed: usize,
    /// The thread has ended; waiting jobs are never done.
    ended: bool,
}

/// What a drained queue dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Jobs that ran out of time.
    pub left: usize,
    /// Jobs that failed, over the whole run.
    pub failed: usize,
}

impl<T: Send + 'static> Queue<T> {
    /// A queue of `capacity` jobs, each done by `work`, which returns whether it succeeded.
    ///
    /// # Errors
    ///
    /// When the system cannot start a thread.
    pub fn start(name: &str, capacity: usize, work: impl FnMut(T, &Deadline) -> bool + Send + 'static) -> Result<Self> {
        let (jobs, receiver) = sync_channel(capacity);
        let deadline = Deadline { shared: Arc::default() };
        let seen = deadline.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || do_jobs(&receiver, seen, work))
            .map_err(|error| Error::from(error).context("cannot start a thread"))?;
        Ok(Self { jobs, deadline })
    }

    /// Adds a job; returns whether there was room for it.
    pub fn offer(&self, job: T) -> bool {
        self.deadline.state().waiting += 1;
        let full = matches!(self.jobs.try_send(job), Err(TrySendError::Full(_)));
        if full {
            self.deadline.state().waiting -= 1;
        }
        !full
    }

    /// Adds a job once there is room for it.
    pub fn push(&self, job: T) {
        self.deadline.state().waiting += 1;
        // Without a thread, the job keeps waiting and counts as dropped.
        let _ = self.jobs.send(job);
    }

    /// Waits at most `limit` until all jobs are done, and a moment more for the one that must stop.
    pub fn drain(&self, limit: Duration) -> Unfinished {
        let end = Instant::now() + limit;
        let mut state = self.deadline.state();
        state.end = Some(end);
        self.deadline.shared.1.notify_all();
        while state.waiting > 0 && !state.ended {
            let left = (end + LAST_MOMENT).saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.deadline.wait_for_change(state, left);
        }
        Unfinished { left: state.waiting, failed: state.failed }
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        self.deadline.state().end = Some(Instant::now());
        self.deadline.shared.1.notify_all();
    }
}

impl Deadline {
    /// The time that is left; `None` while the run continues.
    pub fn remaining(&self) -> Option<Duration> {
        self.state().end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Sleeps. Returns `false` at once when the time left is too short.
    pub fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        loop {
            if state.end.is_some_and(|end| until >= end) {
                return false;
            }
            let now = Instant::now();
            if now >= until {
                return true;
            }
            state = self.wait_for_change(state, until - now);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements, even after a panic elsewhere.
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_change<'a>(&'a self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        let waited = self.shared.1.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn do_jobs<T>(jobs: &Receiver<T>, deadline: Deadline, mut work: impl FnMut(T, &Deadline) -> bool) {
    /// Sets the flag when the thread ends, even by a panic.
    struct Ended<'a>(&'a Deadline);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.state().ended = true;
            self.0.shared.1.notify_all();
        }
    }
    let _ended = Ended(&deadline);
    for job in jobs {
        if deadline.remaining().is_some_and(|time| time.is_zero()) {
            return;
        }
        let succeeded = work(job, &deadline);
        let mut state = deadline.state();
        state.waiting -= 1;
        state.failed += usize::from(!succeeded);
        drop(state);
        deadline.shared.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn jobs_are_done_in_order_and_failures_are_counted() {
        let (told, seen) = channel();
        let queue = Queue::start("test", 8, move |job: u32, _| told.send(job).is_ok() && job != 2).unwrap();
        assert!((1..=3).all(|job| queue.offer(job)));
        assert_eq!(queue.drain(LONG), Unfinished { left: 0, failed: 1 });
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_full_queue_refuses_and_a_drained_one_leaves_what_has_no_time() {
        let (begin, begun) = channel();
        let (release, released) = channel::<()>();
        let queue = Queue::start("test", 1, move |(), _| begin.send(()).is_ok() && released.recv().is_ok()).unwrap();
        assert!(queue.offer(()));
        begun.recv().unwrap();
        assert!(queue.offer(()));
        assert!(!queue.offer(()));
        assert_eq!(queue.drain(Duration::ZERO), Unfinished { left: 2, failed: 0 });
        release.send(()).unwrap();
    }

    #[test]
    fn a_wait_that_would_outlast_the_deadline_ends_at_once() {
        let (begin, begun) = channel();
        let queue = Queue::start("test", 1, move |(), deadline| {
            begin.send(deadline.remaining()).is_ok() && deadline.sleep(LONG * 60)
        })
        .unwrap();
        queue.push(());
        assert_eq!(begun.recv().unwrap(), None);
        assert_eq!(queue.drain(LONG), Unfinished { left: 0, failed: 1 });
    }

    #[test]
    fn a_panic_leaves_the_rest_undone() {
        let queue = Queue::start("test", 2, |(), _| panic!("on purpose")).unwrap();
        queue.push(());
        queue.push(());
        assert_eq!(queue.drain(LONG), Unfinished { left: 2, failed: 0 });
    }
}
