//! The Python virtual environment whose packages read in tests what the host writes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{FileContext, Result};
use crate::prerequisites::Python;
use crate::process;
use crate::workspace::Workspace;

/// Leaves an environment with the packages of `tests/requirements.txt`, and returns its interpreter;
/// `None` when there is no such file.
pub fn provide(workspace: &Workspace) -> Result<Option<PathBuf>> {
    let requirements = workspace.root().join("tests/requirements.txt");
    if !requirements.is_file() {
        return Ok(None);
    }
    let wanted = std::fs::read_to_string(&requirements).on("read", &requirements)?;
    let folder = workspace.python();
    let interpreter = interpreter_in(&folder);
    // Written last, so that an environment that has it is complete.
    let installed = folder.join("installed-requirements.txt");

    if std::fs::read_to_string(&installed).is_ok_and(|found| found == wanted)
        && process::probe(Command::new(&interpreter).arg("--version")).is_some()
    {
        eprintln!("python: the tests' packages are in `{}`", workspace.shown(&folder));
        return Ok(Some(interpreter));
    }
    eprintln!("python: installing the tests' packages in `{}`", workspace.shown(&folder));
    let python = Python::find()?;
    // Without a pip of its own, which Debian keeps in a package that few have; ours installs into it.
    process::run(python.command().args(["-m", "venv", "--clear", "--without-pip"]).arg(&folder))?;
    let mut pip = python.pip();
    pip.arg("--python").arg(&interpreter).args(["install", "--quiet", "--only-binary=:all:"]);
    process::run(pip.arg("--requirement").arg(&requirements))?;
    std::fs::write(&installed, wanted).on("write", &installed)?;
    Ok(Some(interpreter))
}

fn interpreter_in(environment: &Path) -> PathBuf {
    environment.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}
