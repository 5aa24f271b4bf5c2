//! The errors of a task, each with the next step if there is one.

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
        /// Its name for people.
        tool: &'static str,
        /// A sentence that says what to install.
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
    /// A program failed, and has reported the reason on its standard error.
    #[error("`{command}` failed ({status})")]
    Failed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: ExitStatus,
    },
    /// A file or folder could not be read, written or moved.
    #[error("could not {action} `{}`", path.display())]
    File {
        /// The action, as a verb.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A wheel that could be opened turned out to be damaged.
    #[error("`{}` is damaged and was removed; run the command again to download it", path.display())]
    DamagedWheel {
        /// The wheel.
        path: PathBuf,
        /// The damage.
        source: zip::result::ZipError,
    },
    /// pip reported success, but the wheel is missing.
    #[error("pip left no complete wheel of `{requirement}` in `{}`", folder.display())]
    WheelNotFetched {
        /// The requirement, as `name==version`.
        requirement: String,
        /// Its expected folder.
        folder: PathBuf,
    },
    /// The wheels do not contain a file that libtorch needs.
    #[error("the wheels do not contain `{file}`, which libtorch {VERSION} needs")]
    IncompleteWheels {
        /// The file, relative to the libtorch folder.
        file: String,
    },
    /// `LIBTORCH` names something that cannot be used.
    #[error("`LIBTORCH` is set to `{}`, which {problem}; correct it, or unset it to download libtorch {VERSION}", path.display())]
    UnusableLibtorch {
        /// Its value.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// `LIBTORCH_USE_PYTORCH` is set, and the installed PyTorch cannot be used.
    #[error(
        "`LIBTORCH_USE_PYTORCH` is set, but {problem}; install `torch=={VERSION}`, or unset it to download libtorch"
    )]
    UnusablePyTorch {
        /// What is wrong.
        problem: String,
    },
    /// Cargo built everything without reporting something that the task needs.
    #[error("Cargo did not report a {what} among the build results")]
    NotBuilt {
        /// What is missing.
        what: &'static str,
    },
    /// Stages of the suite failed; their own output has the reasons.
    #[error("failed: {}", stages.join(", "))]
    Stages {
        /// Their names.
        stages: Vec<&'static str>,
    },
}

/// The result of a task.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds the action and the path to an I/O error.
pub trait FileContext<T> {
    /// `action` is a verb that completes "could not … `path`".
    fn on(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> FileContext<T> for io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File { action, path: path.to_owned(), source })
    }
}
