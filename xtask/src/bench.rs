//! Measures: the host's own benchmarks, and the host against PyTorch's loops.

use std::ffi::OsString;
use std::process::Command;

use crate::cargo::{Built, Cargo};
use crate::error::Result;
use crate::process;
use crate::python;
use crate::workspace::Workspace;

/// Runs both; only the comparison if that is requested, only the benchmarks if there are `arguments` for them.
pub fn run(workspace: &Workspace, cargo: &Cargo, comparison: bool, arguments: &[OsString]) -> Result<()> {
    let built = cargo.build()?;
    if !comparison {
        // The benches of the host without its unit tests, which `cargo bench` would run too.
        let mut command = cargo.command();
        command.args(["bench", "--package", "host", "--bench", "*"]).args(arguments);
        process::run(&mut command)?;
    }
    if arguments.is_empty() { compare(workspace, &built) } else { Ok(()) }
}

/// Runs the comparison, or logs why it cannot: without Python or a network, the other measurements still count.
fn compare(workspace: &Workspace, built: &Built) -> Result<()> {
    let python = match python::PYTORCH.provide(workspace) {
        Ok(python) => python,
        Err(error) => {
            eprintln!("bench: skipped the comparison with PyTorch: {}", crate::report(&error));
            return Ok(());
        }
    };
    let mut command = Command::new(python);
    command.arg(workspace.comparison()).arg("--host").arg(&built.host).arg("--plugins").arg(workspace.plugins());
    process::run(&mut command)
}
