//! What other threads see of a job while it runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use host_command::runs::status::Status;

use super::closure::EpochMetrics;
use super::status::RunStatus;

/// A job, as other threads see it.
pub(super) trait Progressing: Send + Sync {
    /// From 0 to 1.
    fn progress(&self) -> f64;
    /// Unknown before the first step.
    fn remaining(&self) -> Option<Duration>;
    /// Index 0 is epoch 1.
    fn metrics(&self) -> EpochMetrics;
    /// What `status.json` says, for a job that has one.
    fn status(&self) -> Option<Status>;
}

impl Progressing for RunStatus {
    fn progress(&self) -> f64 {
        self.status().progress
    }

    fn remaining(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.status().time_left?).ok()
    }

    fn metrics(&self) -> EpochMetrics {
        let Some(history) = self.history() else { return Vec::new() };
        let mut epochs: Vec<BTreeMap<String, f64>> = Vec::new();
        for name in history.names() {
            for point in history.series(&name).unwrap_or_default() {
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

    fn status(&self) -> Option<Status> {
        Some(self.status())
    }
}

/// The progress of a job on a checkpoint.
#[derive(Debug)]
pub(super) struct BatchProgress {
    began: Instant,
    done: AtomicU64,
    /// 0 before the first.
    of: AtomicU64,
    measured: Mutex<Vec<(String, f64)>>,
}

impl BatchProgress {
    pub(super) fn new() -> Self {
        let (done, of, measured) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::default());
        Self { began: Instant::now(), done, of, measured }
    }

    /// So many batches, or tokens, are done.
    pub(super) fn note(&self, done: u64, of: u64) {
        self.of.store(of, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
    }

    /// What was measured.
    pub(super) fn measured(&self, metrics: Vec<(String, f64)>) {
        *self.measured.lock().unwrap_or_else(PoisonError::into_inner) = metrics;
    }
}

impl Progressing for BatchProgress {
    fn progress(&self) -> f64 {
        let (done, of) = (self.done.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed));
        (done as f64 / of.max(1) as f64).min(1.0)
    }

    fn remaining(&self) -> Option<Duration> {
        let progress = self.progress();
        (progress > 0.0).then(|| self.began.elapsed().mul_f64((1.0 - progress) / progress))
    }

    fn metrics(&self) -> EpochMetrics {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if measured.is_empty() { Vec::new() } else { vec![measured] }
    }

    fn status(&self) -> Option<Status> {
        None
    }
}
