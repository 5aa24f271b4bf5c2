//! A job of any closure, with the handle's questions: for work that is no training and is shown beside trainings.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The metrics of each epoch; index 0 is epoch 1.
pub type EpochMetrics = Vec<Vec<(String, f64)>>;

/// A job of a closure.
///
/// ```
/// use host::job::ClosureJob;
///
/// let job = ClosureJob::new(3, || vec![vec![("rows".to_owned(), 3.0)]]);
/// let steps = job.clone();
/// job.start(move || {
///     for step in 1..=3 {
///         if steps.is_stopping() {
///             return Err("stopped".into());
///         }
///         steps.update(step);
///     }
///     Ok(())
/// })?;
/// job.join()?;
/// assert!(job.is_finished() && !job.is_failed());
/// assert_eq!(job.progress(), 1.0);
/// assert_eq!(job.metrics()[0][0].0, "rows");
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
///
/// Cloning is cheap; every clone is the same job.
#[derive(Clone)]
pub struct ClosureJob(Arc<Inner>);

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Inner {
    total_steps: u64,
    step: AtomicU64,
    metrics: Box<dyn Fn() -> EpochMetrics + Send + Sync>,
    is_stopping: AtomicBool,
    counts_as_finished: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    began: Option<Instant>,
    has_ended: bool,
    failure: Option<String>,
    thread: Option<JoinHandle<()>>,
}

impl ClosureJob {
    /// A job of `total_steps`; `metrics` gives what [`Self::metrics`] returns.
    pub fn new(total_steps: u64, metrics: impl Fn() -> EpochMetrics + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            total_steps,
            step: AtomicU64::new(0),
            metrics: Box::new(metrics),
            is_stopping: AtomicBool::new(false),
            counts_as_finished: AtomicBool::new(false),
            state: Mutex::default(),
        }))
    }

    /// Follows a thread that runs already: it should call [`Self::update`], and the job ends with it.
    pub fn register_thread(&self, thread: JoinHandle<Result<(), Failure>>) {
        let job = self.clone();
        self.begin();
        let watcher = std::thread::spawn(move || {
            let result = thread.join().unwrap_or_else(|_| Err("its thread panicked".into()));
            job.end(result);
        });
        self.state().thread = Some(watcher);
    }

    /// Runs `work` on a thread of its own.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(&self, work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name("job".to_owned()).spawn(work)?;
        self.register_thread(thread);
        Ok(())
    }

    /// The steps that are done.
    pub fn update(&self, step: u64) {
        self.0.step.store(step, Ordering::Relaxed);
    }

    /// From 0 to 1.
    pub fn progress(&self) -> f64 {
        if self.0.counts_as_finished.load(Ordering::Relaxed) && self.is_finished() {
            return 1.0;
        }
        (self.0.step.load(Ordering::Relaxed) as f64 / self.0.total_steps.max(1) as f64).min(1.0)
    }

    /// Whether the work has ended, however it did.
    pub fn is_finished(&self) -> bool {
        self.state().has_ended
    }

    /// Whether the work failed.
    pub fn is_failed(&self) -> bool {
        self.state().failure.is_some()
    }

    /// The time that is left, estimated from the speed so far; unknown before the first step.
    pub fn remaining(&self) -> Option<Duration> {
        let (began, done) = (self.state().began?, self.progress());
        (done > 0.0).then(|| began.elapsed().mul_f64((1.0 - done) / done))
    }

    /// What the closure of [`Self::new`] gives.
    pub fn metrics(&self) -> EpochMetrics {
        (self.0.metrics)()
    }

    /// Asks the work to end; it sees that in [`Self::is_stopping`].
    pub fn stop(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Asks the work to end as finished: an error that it ends with from now on is none.
    pub fn force_finish(&self) {
        self.0.counts_as_finished.store(true, Ordering::Relaxed);
        self.stop();
    }

    /// Whether somebody asked the work to end.
    pub fn is_stopping(&self) -> bool {
        self.0.is_stopping.load(Ordering::Relaxed)
    }

    /// Waits for the end; returns at once if nothing was started.
    ///
    /// # Errors
    ///
    /// What the work failed with.
    pub fn join(&self) -> Result<(), Failure> {
        let thread = self.state().thread.take();
        if let Some(thread) = thread {
            // The watcher itself has nothing that panics.
            let _ = thread.join();
        }
        match &self.state().failure {
            Some(failure) => Err(failure.clone().into()),
            None => Ok(()),
        }
    }

    fn begin(&self) {
        *self.state() = State { began: Some(Instant::now()), ..State::default() };
    }

    fn end(&self, result: Result<(), Failure>) {
        let counts_as_finished = self.0.counts_as_finished.load(Ordering::Relaxed);
        let mut state = self.state();
        state.has_ended = true;
        state.failure = result.err().filter(|_| !counts_as_finished).map(|error| error.to_string());
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ClosureJob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClosureJob").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_and_a_forced_end_is_none() {
        let job = ClosureJob::new(4, Vec::new);
        assert_eq!((job.progress(), job.remaining()), (0.0, None));
        let steps = job.clone();
        job.start(move || {
            steps.update(2);
            Err("no rows left".into())
        })
        .unwrap();
        assert_eq!(job.join().unwrap_err().to_string(), "no rows left");
        assert!(job.is_finished() && job.is_failed());
        assert!(job.progress() == 0.5 && job.remaining().is_some());

        let forced = job.clone();
        job.start(move || {
            while !forced.is_stopping() {
                std::thread::yield_now();
            }
            Err("interrupted".into())
        })
        .unwrap();
        job.force_finish();
        assert!(job.join().is_ok() && !job.is_failed() && job.progress() == 1.0);
    }

    #[test]
    fn a_panic_is_a_failure() {
        let job = ClosureJob::new(1, Vec::new);
        job.start(|| std::panic::panic_any("on purpose")).unwrap();
        assert_eq!(job.join().unwrap_err().to_string(), "its thread panicked");
    }
}
