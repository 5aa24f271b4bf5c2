//! Trains the digits with the plugins that were just built.

use std::ffi::OsString;
use std::process::Command;

use crate::cargo::Cargo;
use crate::error::Result;
use crate::workspace::Workspace;

/// The run file of the demo, relative to the workspace's root.
const RUN_FILE: &str = "examples/digits/run.toml";

/// Builds everything and replaces itself by `host run`, which prints where its results are.
pub fn run(workspace: &Workspace, cargo: &Cargo, arguments: &[OsString]) -> Result<()> {
    let built = cargo.build()?;
    let plugins = workspace.plugins();
    let mut host = Command::new(&built.host);
    host.current_dir(workspace.root()).args(["run", RUN_FILE, "--plugins"]);
    host.arg(plugins.strip_prefix(workspace.root()).unwrap_or(&plugins)).args(arguments);
    eprintln!("demo: {}", crate::process::line(&host));
    hand_over(&mut host)
}

/// Replaces this process by the program: only it then gets an interrupt from the keyboard, and ends its run in order.
#[cfg(unix)]
fn hand_over(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let source = command.exec();
    Err(crate::error::Error::NotStarted { command: crate::process::line(command), source })
}

#[cfg(not(unix))]
fn hand_over(command: &mut Command) -> Result<()> {
    crate::process::run(command)
}
