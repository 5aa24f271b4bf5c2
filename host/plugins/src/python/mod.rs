//! Plugins in Python: a process of Python opens the file, and speaks the protocol of [`process`](crate::process).
//!
//! A `*.py` in a plugins folder with the line `# host-plugin: KIND` offers kinds of its own, which are described when somebody
//! asks for them. The kind [`KIND`] runs one class of any file or package, for which an entry of the run file says which.
//!
//! Invariant: a file is executed only in a process of its own, and only if a run or a command names its kind.

#![cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "processes of their own need Linux"))]

mod kinds;
mod mark;
mod modules;
mod package;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub(crate) use mark::{is_source, kinds_of, sources_in};
pub(crate) use modules::beside;
pub(crate) use package::Package;
pub use package::files as package_files;

use crate::checksum::Checksum;
use crate::descriptor_cache::Description;
use crate::error::LoadError;
use crate::lock::Expected;

/// The kind that runs one class: `kind = "python", options = { file = "callbacks.py", class = "Mine", args = { } }`.
pub const KIND: &str = "python";

/// The program that is started unless the run file names another.
const PROGRAM: &str = "python3";

/// The Python of a run, and the package for it.
#[derive(Debug, Default)]
pub struct Python {
    program: Option<PathBuf>,
    /// Written when it is needed first.
    package: Mutex<Option<Package>>,
}

/// The class that the kind [`KIND`] runs, as the options of an entry say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// The file with the class, absolute; without one, the class is named with its package.
    pub file: Option<PathBuf>,
    /// The class; empty for the only one of the file.
    pub name: String,
    /// The framework whose methods it has; empty to find out.
    pub adapter: String,
}

/// How long a file may take to be imported, at least: packages such as PyTorch take seconds.
pub(crate) const OPENING: Duration = Duration::from_secs(120);

/// What starts a process for a plugin in Python.
#[derive(Clone, Debug)]
pub(crate) struct Starter {
    program: PathBuf,
    package: Package,
    arguments: Vec<String>,
}

impl Python {
    /// The Python of the name or path `program`; the system's `python3` without one.
    pub fn new(program: Option<PathBuf>) -> Self {
        Self { program, package: Mutex::default() }
    }

    /// What starts a process; with a class, for that only. Where only locked files may run, those beside a file are imported as they
    /// were locked.
    pub(crate) fn starter(&self, class: Option<&Class>, is_locked: bool) -> Result<Starter, LoadError> {
        let mut package = self.package.lock().unwrap_or_else(PoisonError::into_inner);
        let package = match &*package {
            Some(written) => written.clone(),
            None => package.insert(Package::write().map_err(|source| LoadError::NoPackage { source })?).clone(),
        };
        let program = self.program.clone().unwrap_or_else(|| PathBuf::from(PROGRAM));
        let mut arguments = Vec::new();
        if let Some(class) = class {
            arguments.extend(["--class".to_owned(), class.name.clone(), "--adapter".to_owned(), class.adapter.clone()]);
        }
        if is_locked {
            arguments.push("--locked".to_owned());
        }
        Ok(Starter { program, package, arguments })
    }
}

impl Starter {
    /// The command.
    pub(crate) fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.arg(self.package.folder()).args(&self.arguments);
        command
    }

    /// What it runs.
    pub(crate) fn package(&self) -> &Package {
        &self.package
    }

    /// Why it could not be started.
    pub(crate) fn not_started(&self, path: &Path, source: std::io::Error) -> LoadError {
        LoadError::NoPython { path: path.to_owned(), program: self.program.clone(), source }
    }
}

/// What the plugin at `path` says of itself, in a process that ends then; nothing that it imports counts as time of hooks.
///
/// # Errors
///
/// When there is no Python, or it cannot open the file.
pub(crate) fn describe(starter: &Starter, path: &Path, expected: Option<&Expected>) -> Result<Description, LoadError> {
    #[cfg(target_os = "linux")]
    {
        let isolation = crate::Isolation { timeout: Some(OPENING), ..Default::default() };
        let not_started = |source| starter.not_started(path, source);
        crate::process::describe_by(starter.command(), path, expected, &isolation, not_started)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (starter, expected);
        Err(LoadError::NoIsolation { path: path.to_owned() })
    }
}

/// What a source file is now: a process opens it only if it is the same then.
///
/// # Errors
///
/// When it cannot be read.
pub(crate) fn expected(path: &Path) -> Result<Expected, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let bytes = mark::read(path).map_err(unreadable)?;
    Ok(Expected { sha256: Checksum::of(&bytes), beside: Vec::new() })
}
