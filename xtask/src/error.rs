//! What can go wrong in a task, each with the next step where there is one.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::libtorch::VERSION;

/// A task's failure, shown to the person who ran it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that the task needs is not installed.
    #[error("{tool} is missing: {install}")]
    MissingTool {
        /// What it is, as a person would call it.
        tool: &'static str,
        /// One sentence that says what to install.
        install: &'static str,
    },
    /// A program could not be started.
    #[error("could not start `{command}`")]
    NotStarted {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A program ended with a failure, having said why on its own standard error.
    #[error("`{command}` failed ({status})")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A file or folder could not be read, written or moved.
    #[error("could not {action} `{}`", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// A wheel that was opened without complaint turned out to be damaged.
    #[error("`{}` is damaged; it was removed, run the command again to fetch it anew", path.display())]
    DamagedWheel {
        /// The wheel.
        path: PathBuf,
        /// What is wrong with it.
        source: zip::result::ZipError,
    },
    /// pip reported success, yet the wheel is not there.
    #[error("pip left no complete wheel of `{requirement}` in `{}`", folder.display())]
    WheelNotFetched {
        /// What was asked for, as `name==version`.
        requirement: String,
        /// Where it should lie.
        folder: PathBuf,
    },
    /// The wheels do not hold a file that libtorch needs.
    #[error("the wheels hold no `{file}`, which libtorch {VERSION} needs")]
    IncompleteWheels {
        /// The file, relative to the libtorch folder.
        file: String,
    },
    /// `LIBTORCH` names something that cannot be used.
    #[error("`LIBTORCH` is set to `{}`, which {problem}; correct it, or unset it to have libtorch {VERSION} fetched", path.display())]
    UnusableLibtorch {
        /// Its value.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// `LIBTORCH_USE_PYTORCH` is set, and the installed PyTorch cannot be used.
    #[error(
        "`LIBTORCH_USE_PYTORCH` is set, but {problem}; install `torch=={VERSION}`, or unset it to have libtorch fetched"
    )]
    UnusablePyTorch {
        /// What is wrong.
        problem: String,
    },
    /// Cargo built everything without naming something that the task needs.
    #[error("Cargo reported no {what} among what it built")]
    NotBuilt {
        /// What is missing.
        what: &'static str,
    },
    /// Stages of the suite failed; their own output says why.
    #[error("failed: {}", stages.join(", "))]
    Stages {
        /// Their names.
        stages: Vec<&'static str>,
    },
}

/// The result of a task.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds to an I/O error what was tried on which path.
pub trait FileContext<T> {
    /// `action` is a verb that completes "could not … `path`".
    fn on(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> FileContext<T> for io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File { action, path: path.to_owned(), source })
    }
}
