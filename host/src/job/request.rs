//! What is asked of a job.

use std::path::PathBuf;

use host_command::arguments::{Change, Locking};
use host_command::launch::Launch;

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The run file; `None` is the built-in digits run.
    pub run_file: Option<PathBuf>,
    /// Folders and library files.
    pub plugins: Vec<PathBuf>,
    /// Whether only libraries of a lock are opened; a run file may ask for it, too.
    pub locking: Locking,
    /// Further instances, `KIND[=NAME]`.
    pub appended: Vec<String>,
    /// Kinds that run in processes of their own; `all` is every one.
    pub isolated: Vec<String>,
    /// `KEY=VALUE` overrides.
    pub overrides: Vec<String>,
    /// The run folder.
    pub out: Option<PathBuf>,
    /// Where to resume from.
    pub resume: ResumeFrom,
    /// Changes since the checkpoint that are accepted.
    pub accepted: Vec<Change>,
    /// One batch of everything; publishes nothing.
    pub trial: bool,
    /// Whether the process was started again after a failure, to go on with the run: in the given folder, or in the one that it
    /// had before.
    pub started_again: bool,
    /// Which process of the run this is, if it has several.
    pub launch: Option<Launch>,
}

/// Where a run resumes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResumeFrom {
    /// Not specified: as `Auto` with a given run folder, else a new run unless the process was started again.
    #[default]
    Unsaid,
    /// The newest whole checkpoint of the run folder, or of the newest unfinished run of this name.
    Auto,
    /// A new run: a folder that holds a run is an error.
    Never,
    /// This checkpoint.
    Checkpoint(PathBuf),
}
