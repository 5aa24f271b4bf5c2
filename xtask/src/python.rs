//! Python virtual environments in `target`, each with the packages of a requirements file.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{FileContext, Result};
use crate::prerequisites::Python;
use crate::process;
use crate::workspace::Workspace;

/// The purpose and contents of an environment.
#[derive(Clone, Copy, Debug)]
pub struct Environment {
    /// The owner of the packages, as in "the tests' packages".
    owner: &'static str,
    /// The file that lists them, relative to the workspace's root.
    requirements: &'static str,
    /// Its folder in `target`.
    folder: &'static str,
    /// The approximate size of the download.
    size: &'static str,
}

/// Reads in tests what the host writes.
pub const TESTS: Environment =
    Environment { owner: "the tests'", requirements: "tests/requirements.txt", folder: "python", size: "290 MB" };

/// A tracking server, which is large and needed by one test.
pub const MLFLOW: Environment =
    Environment { owner: "MLflow's", requirements: "tests/requirements-mlflow.txt", folder: "mlflow", size: "150 MB" };

/// PyTorch, its models, and the frameworks that the host is compared with: for the comparison and for long tests.
pub const PYTORCH: Environment =
    Environment { owner: "PyTorch's", requirements: "tests/requirements-pytorch.txt", folder: "pytorch", size: "3 GB" };

impl Environment {
    /// Makes the environment with its packages, and returns its interpreter.
    ///
    /// # Errors
    ///
    /// When Python or pip is missing, or pip cannot get the packages.
    pub fn provide(&self, workspace: &Workspace) -> Result<PathBuf> {
        let Self { owner, requirements, folder, size } = self;
        let requirements = workspace.root().join(requirements);
        let wanted = std::fs::read_to_string(&requirements).on("read", &requirements)?;
        let folder = workspace.environment(folder);
        let interpreter = interpreter_in(&folder);
        // Written last, so that an environment that has it is complete.
        let installed = folder.join("installed-requirements.txt");

        if std::fs::read_to_string(&installed).is_ok_and(|found| found == wanted)
            && process::probe(Command::new(&interpreter).arg("--version")).is_some()
        {
            eprintln!("python: {owner} packages are in `{}`", workspace.shown(&folder));
            return Ok(interpreter);
        }
        eprintln!("python: installing {owner} packages in `{}`, about {size} to download", workspace.shown(&folder));
        let python = Python::find()?;
        // Without its own pip, which Debian has in a separate package; the pip of the outer Python installs into it.
        process::run(python.command().args(["-m", "venv", "--clear", "--without-pip"]).arg(&folder))?;
        let mut pip = python.pip();
        pip.arg("--python").arg(&interpreter).args(["install", "--quiet", "--only-binary=:all:"]);
        process::run(pip.arg("--requirement").arg(&requirements))?;
        std::fs::write(&installed, wanted).on("write", &installed)?;
        Ok(interpreter)
    }
}

fn interpreter_in(environment: &Path) -> PathBuf {
    environment.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}
