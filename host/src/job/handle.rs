//! A job on a thread of its own, and what other threads see of it and ask of it.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use host_command::runs::status::Status;
use plugin_api::event::Outcome;
use plugin_api::protocol::Control;

use super::closure::EpochMetrics;
use super::progress::Progressing;
use super::results::Ending;
use super::run::JobOutcome;
use crate::report::{Problem, Problems};
use crate::train::Requests;

/// What a job and its handle share.
#[derive(Clone, Default)]
pub(super) struct Link {
    pub(super) requests: Requests,
    seen: Arc<OnceLock<Arc<dyn Progressing>>>,
    has_failed: Arc<OnceLock<bool>>,
}

impl Link {
    /// The job can be seen from now on.
    pub(super) fn show(&self, job: Arc<dyn Progressing>) {
        // A job shows itself once.
        let _ = self.seen.set(job);
    }
}

/// A job that runs on a thread of its own; see [`Job::start`](super::Job::start) and
/// [`CheckpointJob::start`](super::CheckpointJob::start). Any thread may ask it. A handle that is dropped leaves the job running.
pub struct JobHandle<O = JobOutcome> {
    link: Link,
    thread: JoinHandle<Result<O, Problems>>,
}

impl<O: Ending + Send + 'static> JobHandle<O> {
    /// Runs `job` on a thread of its own.
    pub(super) fn start(job: impl FnOnce(&Link) -> Result<O, Problems> + Send + 'static) -> std::io::Result<Self> {
        let link = Link::default();
        let of_job = link.clone();
        let thread = std::thread::Builder::new().name("job".to_owned()).spawn(move || {
            let ended = job(&of_job);
            let failed = ended.as_ref().map_or(true, |ended| ended.outcome() == Outcome::Failed);
            let _ = of_job.has_failed.set(failed);
            ended
        })?;
        Ok(Self { link, thread })
    }
}

impl<O> JobHandle<O> {
    fn seen(&self) -> Option<&Arc<dyn Progressing>> {
        self.link.seen.get()
    }

    /// From 0 to 1.
    pub fn progress(&self) -> f64 {
        self.seen().map_or(0.0, |job| job.progress())
    }

    /// Whether the job has ended, however it did.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Whether the job failed, or could not begin. [`Self::join`] tells why.
    pub fn is_failed(&self) -> bool {
        // Without a word of it, its thread has panicked.
        self.link.has_failed.get().copied().unwrap_or_else(|| self.thread.is_finished())
    }

    /// The time that is left, estimated from the speed so far; unknown before the first step.
    pub fn remaining(&self) -> Option<Duration> {
        self.seen()?.remaining()
    }

    /// The metrics of each epoch so far, by name; index 0 is epoch 1, and an epoch without metrics has an empty list. Of a
    /// metric that was measured several times in an epoch, the last value. An evaluation has one list: what it measured.
    pub fn metrics(&self) -> EpochMetrics {
        self.seen().map(|job| job.metrics()).unwrap_or_default()
    }

    /// Asks for the end at the next safe point, with the end hooks; the job ends as `stopped`. A job on a checkpoint that is
    /// stopped leaves no results.
    pub fn stop(&self, reason: &str) {
        self.link.requests.ask(Control::Stop, "program", reason);
    }

    /// Asks for the end at the next safe point, with the end hooks, as if everything planned were done; the job ends as
    /// `finished`. The results of a job on a checkpoint are those of the batches until then.
    pub fn force_finish(&self) {
        self.link.requests.finish("program", "");
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// What prevented the job from beginning; see [`Job::run`](super::Job::run) and
    /// [`CheckpointJob::run`](super::CheckpointJob::run).
    pub fn join(self) -> Result<O, Problems> {
        self.thread.join().unwrap_or_else(|_| Err(Problem::new("the job's thread panicked").into()))
    }
}

impl JobHandle<JobOutcome> {
    /// What `status.json` says; `None` before there is a run folder.
    pub fn status(&self) -> Option<Status> {
        self.seen()?.status()
    }
}

impl<O> fmt::Debug for JobHandle<O> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JobHandle").field("progress", &self.progress()).finish_non_exhaustive()
    }
}
