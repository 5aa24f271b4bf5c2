//! Where a job starts: its run folder, and the checkpoint that it resumes from.

use std::path::{Path, PathBuf};

use host_command::runs::folder::{RunFolder, by_start_time};
use host_command::runs::status::FoundRun;
use host_command::runs::unfinished::{newest_of_the_same_launch, newest_unfinished};
use host_command::runs::{control, sudden_end};

use super::messages::Reporter;
use super::request::{Request, ResumeFrom};
use super::results;
use super::warnings;
use crate::checkpoint::{self, Checkpoint, CheckpointError, Latest, find_latest, remove_temporaries};
use crate::report::{Problem, Problems};
use crate::run_file::RunOptions;

/// The place that a run starts from.
pub(super) struct Start {
    /// The run folder, owned by this process.
    pub(super) folder: RunFolder,
    /// The checkpoint to resume from.
    pub(super) resume_from: Option<PathBuf>,
    /// How the last process of this run ended, if it did not end by itself.
    pub(super) sudden_end: Option<String>,
}

impl Start {
    /// A run that resumes nothing.
    pub(super) fn fresh(folder: RunFolder) -> Self {
        Self { folder, resume_from: None, sudden_end: None }
    }

    /// Takes the run folder that `request` and the run file ask for, and finds the checkpoint to resume from.
    pub(super) fn find(request: &Request, run: &RunOptions, reporter: &Reporter) -> Result<Self, Problems> {
        let (path, fresh) = folder_path(request, run);
        if run.out.is_none() && fresh && !request.started_again && !matches!(request.resume, ResumeFrom::Never) {
            tell_of_the_last(&run.name, reporter);
        }
        let folder = RunFolder::take(&path, fresh).map_err(|error| Problem::from(&error))?;
        // Requests are for the process that trains, not for one after it.
        control::clear(folder.path())
            .map_err(|error| Problem::new("cannot remove old requests to the run").with_cause(&error))?;
        folder.remove_temporaries().map_err(|error| Problem::from(&error))?;
        let sudden_end = sudden_end(folder.path());
        if let Some(end) = &sudden_end {
            reporter.warn(&warnings::sudden_end(end));
        }
        let resume_from = match &request.resume {
            ResumeFrom::Checkpoint(path) if request.started_again && !fresh => {
                latest(&folder, reporter)?.or_else(|| Some(path.clone()))
            }
            ResumeFrom::Checkpoint(path) => Some(path.clone()),
            _ if !fresh => latest(&folder, reporter)?,
            _ => None,
        };
        Ok(Self { folder, resume_from, sudden_end })
    }
}

/// Says how the newest unfinished run of this name ended, if it did not end by itself: this run is another.
fn tell_of_the_last(name: &str, reporter: &Reporter) {
    let Some(path) = newest_unfinished(name) else { return };
    // Nothing is said about a run that goes on.
    let Ok(last) = RunFolder::take(&path, false) else { return };
    if let Some(end) = sudden_end(last.path()) {
        let problem = Problem::new(format!("the last run of this name, `{}`, {end}", path.display()));
        reporter.warn(&problem.with_hint("`--resume auto` goes on with it".to_owned()));
    }
}

/// The run folder, and whether it must be new. One that is given is that of this run if the process was started again.
fn folder_path(request: &Request, run: &RunOptions) -> (PathBuf, bool) {
    match (run.out.as_deref().map(Path::new), &request.resume) {
        (Some(out), ResumeFrom::Unsaid | ResumeFrom::Auto) => (out.to_owned(), false),
        (Some(out), ResumeFrom::Never) => (out.to_owned(), !request.started_again),
        // A checkpoint of this folder continues its run; one of another folder begins a new run.
        (Some(out), ResumeFrom::Checkpoint(path)) => (out.to_owned(), !request.started_again && !is_within(path, out)),
        (None, resume) => {
            let earlier = match resume {
                ResumeFrom::Auto => newest_unfinished(&run.name),
                // What the run was before it was started again.
                _ if request.started_again => newest_of_the_same_launch(&run.name),
                _ => None,
            };
            let is_new = earlier.is_none();
            (earlier.unwrap_or_else(|| by_start_time(&run.name)), is_new)
        }
    }
}

fn is_within(path: &Path, folder: &Path) -> bool {
    matches!((path.canonicalize(), folder.canonicalize()), (Ok(path), Ok(folder)) if path.starts_with(&folder))
}

/// The newest whole checkpoint of a run folder, in whichever of its folders: an instance with a name of its own writes into
/// `checkpoints-NAME`. Folders whose checkpoints are all damaged are an error, since a run that began again would replace
/// them.
fn latest(folder: &RunFolder, reporter: &Reporter) -> Result<Option<PathBuf>, Problems> {
    let usual = folder.path().join(checkpoint::FOLDER);
    for path in remove_temporaries(&usual).map_err(|error| Problem::from(&error))? {
        tracing::info!(path = %path.display(), "removed what an interrupted write left");
    }
    let found = latest_of_each(folder.path()).map_err(|error| Problem::from(&error))?;
    let is_damaged = found.iter().any(|latest| !latest.skipped.is_empty());
    for skipped in found.iter().flat_map(|latest| &latest.skipped) {
        let path = skipped.path.display();
        let problem = Problem::new(format!("the checkpoint `{path}` is skipped")).with_cause(&skipped.error);
        reporter.warn(&problem);
    }
    let newest = newest(found);
    if newest.is_none() && is_damaged {
        let message = format!("none of the checkpoints in `{}` can be used", usual.display());
        let hint = "begin the run again in another folder: `--out DIR`, or remove these checkpoints";
        return Err(Problem::new(message).with_hint(hint.to_owned()).into());
    }
    Ok(newest.map(|checkpoint| checkpoint.path().to_owned()))
}

/// The newest whole checkpoint in each folder of a run folder that has some, the usual one first; and in the folder elsewhere
/// that the run's status names, if an instance writes there.
fn latest_of_each(run_folder: &Path) -> Result<Vec<Latest>, CheckpointError> {
    let usual = run_folder.join(checkpoint::FOLDER);
    let mut found = vec![find_latest(&usual)?];
    let others = std::fs::read_dir(run_folder).into_iter().flatten().flatten().map(|entry| entry.path());
    // What cannot be read is not one of ours; results of jobs are in folders that are named after checkpoints, too.
    let is_other = |path: &PathBuf| *path != usual && path.is_dir() && !holds_results(path);
    found.extend(others.filter(is_other).filter_map(|path| find_latest(&path).ok()));
    let told = FoundRun::read(run_folder).and_then(|run| Some(run.status.artifacts.get("last_checkpoint")?.clone()));
    let told = told.as_ref().and_then(|path| Some(run_folder.join(path.as_str()?)));
    if let Some(folder) = told.as_deref().and_then(Path::parent).filter(|folder| !is_child(folder, run_folder)) {
        found.extend(find_latest(folder).ok());
    }
    Ok(found)
}

/// Whether `folder` is directly in `run_folder`, where each folder is looked at.
fn is_child(folder: &Path, run_folder: &Path) -> bool {
    folder.parent() == Some(run_folder)
}

/// The newest of them; of the same step, the first, which is the usual one.
fn newest(found: Vec<Latest>) -> Option<Checkpoint> {
    found.into_iter().filter_map(|latest| latest.checkpoint).reduce(|newest, other| {
        let is_newer = other.position().global_step > newest.position().global_step;
        if is_newer { other } else { newest }
    })
}

/// A file of the model in the checkpoint that a run would go on from, for one whose own file is gone.
pub(super) fn saved_model_file(request: &Request, run: &RunOptions, name: &str) -> Option<PathBuf> {
    let checkpoint = match (&request.resume, folder_path(request, run)) {
        (ResumeFrom::Checkpoint(path), (folder, false)) if request.started_again => {
            newest(latest_of_each(&folder).ok()?).or_else(|| Checkpoint::open(path).ok())?
        }
        (ResumeFrom::Checkpoint(path), _) => Checkpoint::open(path).ok()?,
        (_, (folder, false)) => newest(latest_of_each(&folder).ok()?)?,
        _ => return None,
    };
    checkpoint.model_file(name)
}

/// Whether a folder of the run folder has what `host evaluate`, `predict` and `export` write.
fn holds_results(path: &Path) -> bool {
    path.file_name().is_some_and(|name| results::FOLDERS.iter().any(|folder| name == *folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_folder_is_that_of_the_run_that_is_started_again() {
        let run: RunOptions =
            serde_json::from_value(serde_json::json!({"name": "a", "out": "runs/a"})).expect("options");
        let is_fresh = |resume: ResumeFrom, started_again| {
            let (path, fresh) = folder_path(&Request { resume, started_again, ..Request::default() }, &run);
            assert_eq!(path, Path::new("runs/a"));
            fresh
        };
        let pretrained = || ResumeFrom::Checkpoint("pretrained/checkpoints/last".into());
        assert_eq!([is_fresh(ResumeFrom::Never, false), is_fresh(ResumeFrom::Never, true)], [true, false]);
        assert_eq!([is_fresh(pretrained(), false), is_fresh(pretrained(), true)], [true, false]);
        assert_eq!([is_fresh(ResumeFrom::Auto, false), is_fresh(ResumeFrom::Auto, true)], [false, false]);
    }
}
