//! A job on a thread of its own, and what other threads see of it and ask of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use host_command::runs::status::{State, Status};
use plugin_api::protocol::Control;

use super::run::JobOutcome;
use super::status::RunStatus;
use crate::report::{Problem, Problems};
use crate::train::Requests;

/// What a job and its handle share.
#[derive(Clone, Default)]
pub(super) struct Link {
    pub(super) requests: Requests,
    /// Once the job has a run folder.
    pub(super) status: Arc<OnceLock<Arc<RunStatus>>>,
}

/// A job that runs on a thread of its own; see [`Job::start`](super::Job::start). Any thread may ask it. A handle that is
/// dropped leaves the job running.
pub struct JobHandle {
    link: Link,
    thread: JoinHandle<Result<JobOutcome, Problems>>,
}

impl JobHandle {
    pub(super) fn new(link: Link, thread: JoinHandle<Result<JobOutcome, Problems>>) -> Self {
        Self { link, thread }
    }

    /// From 0 to 1.
    pub fn progress(&self) -> f64 {
        self.status().map_or(0.0, |status| status.progress)
    }

    /// Whether the job has ended, however it did.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Whether the job failed, or could not begin. [`Self::join`] tells why.
    pub fn is_failed(&self) -> bool {
        let failed = self.status().is_some_and(|status| status.state == State::Failed);
        failed || (self.thread.is_finished() && self.link.status.get().is_none())
    }

    /// The time that is left, estimated from the speed so far; unknown before the first step.
    pub fn remaining(&self) -> Option<Duration> {
        let left = self.status()?.time_left?;
        Duration::try_from_secs_f64(left).ok()
    }

    /// What `status.json` says; `None` before there is a run folder.
    pub fn status(&self) -> Option<Status> {
        self.link.status.get().map(|status| status.status())
    }

    /// The metrics of each epoch so far, by name; index 0 is epoch 1, and an epoch without metrics has an empty list. Of a
    /// metric that was measured several times in an epoch, the last value.
    pub fn metrics(&self) -> Vec<Vec<(String, f64)>> {
        let history = self.link.status.get().and_then(|status| status.history());
        let mut epochs: Vec<BTreeMap<String, f64>> = Vec::new();
        for name in history.iter().flat_map(|history| history.names()) {
            let Some(points) = history.as_ref().and_then(|history| history.series(&name).ok()) else { continue };
            for point in points {
                let Some(index) = point.position.epoch.checked_sub(1) else { continue };
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                if epochs.len() <= index {
                    epochs.resize(index + 1, BTreeMap::new());
                }
                epochs[index].insert(name.clone(), point.value);
            }
        }
        epochs.into_iter().map(|metrics| metrics.into_iter().collect()).collect()
    }

    /// Asks for the end at the next safe point, with the end hooks; the job ends as `stopped`.
    pub fn stop(&self, reason: &str) {
        self.link.requests.ask(Control::Stop, "program", reason);
    }

    /// Asks for the end at the next safe point, with the end hooks, as if everything planned were done; the job ends as
    /// `finished`.
    pub fn force_finish(&self) {
        self.link.requests.finish("program", "");
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// What prevented the job from beginning; see [`Job::run`](super::Job::run).
    pub fn join(self) -> Result<JobOutcome, Problems> {
        self.thread.join().unwrap_or_else(|_| Err(Problem::new("the job's thread panicked").into()))
    }
}

impl fmt::Debug for JobHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JobHandle").field("progress", &self.progress()).finish_non_exhaustive()
    }
}
