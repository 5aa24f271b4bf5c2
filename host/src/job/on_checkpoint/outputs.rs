//! Where a job's results go, and what it shows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::progress::BatchProgress;
use super::locate::Located;
use crate::console::Console;
use crate::report::{Problem, Problems};
use crate::services::Screen;
use crate::train::{RunOutputs, Session};

/// The folder of the results: the one that was given; in a run folder one named after the job and the checkpoint; for a bare
/// checkpoint the working folder.
pub(super) fn folder(given: Option<&Path>, located: &Located, of_job: &str) -> PathBuf {
    match (given, &located.run_folder) {
        (Some(out), _) => out.to_owned(),
        (None, Some(run)) if !located.is_bare => run.join(of_job).join(located.name()),
        _ => PathBuf::from("."),
    }
}

/// Refuses to replace results, unless that is wanted.
pub(super) fn refuse_existing(paths: &[PathBuf], force: bool) -> Result<(), Problems> {
    match paths.iter().find(|path| path.exists()) {
        Some(path) if !force => Err(Problem::new(format!("`{}` exists already", path.display()))
            .with_hint("choose another folder: `--out DIR`, or replace it: `--force`".to_owned())
            .into()),
        _ => Ok(()),
    }
}

/// What a job does, in words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Its command.
    pub(super) job: &'static str,
    /// `evaluating`.
    pub(super) verb: &'static str,
    /// What is counted: `batch`.
    pub(super) unit: &'static str,
}

/// The outputs of a job: its progress on the terminal, and what callbacks publish.
pub(super) struct JobOutputs {
    pub(super) console: Arc<Console>,
    pub(super) progress: Arc<BatchProgress>,
    pub(super) work: Work,
    pub(super) published: Arc<Published>,
}

/// Kind and path of what callbacks published.
#[derive(Default)]
pub(super) struct Published(Mutex<Vec<(String, String)>>);

impl Published {
    pub(super) fn all(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl RunOutputs for JobOutputs {
    fn screen(&self) -> Arc<dyn Screen> {
        Arc::clone(&self.console) as Arc<dyn Screen>
    }

    fn artifact(&self, kind: &str, path: &str) {
        let mut published = self.published.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.push((kind.to_owned(), path.to_owned()));
    }

    fn measured(&self, _: &str, _: &Session) {}

    fn batch(&self, done: u64, of: u64) {
        self.progress.note(done, of);
        let Work { verb, unit, .. } = self.work;
        let progress = done as f64 / of.max(1) as f64;
        self.console.status("job", &format!("{verb}: {unit} {done}/{of}"), Some(progress));
    }

    fn progress(&self, _: &Session) {}
}
