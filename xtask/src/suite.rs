//! Everything that must hold before a change is accepted, in stages.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cargo::Cargo;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{prerequisites, process};

/// How the tests are run.
#[derive(Debug)]
pub struct TestOptions<'a> {
    /// Whether to run the long tests too.
    pub long: bool,
    /// The interpreter that has the packages of `tests/requirements.txt`.
    pub python: &'a Path,
    /// The interpreter with MLflow's server, if it could be installed.
    pub mlflow: Option<&'a Path>,
    /// The interpreter that has the packages of `tests/requirements-pytorch.txt`: for long tests, if it could be made.
    pub pytorch: Option<&'a Path>,
    /// Arguments for `cargo test`.
    pub arguments: &'a [OsString],
}

struct Outcome {
    stage: &'static str,
    passed: bool,
    time: Duration,
}

/// Provides the programs that tests use, then runs every stage, cheap ones first, whatever the result of earlier ones; then
/// prints a table.
pub fn run(workspace: &Workspace, cargo: &Cargo, options: &TestOptions<'_>) -> Result<()> {
    prerequisites::provide_programs(workspace);
    let outcomes = [
        stage("format", || check_format(workspace, cargo)),
        stage("build", || cargo.build().map(drop)),
        stage("clippy", || process::run(&mut clippy(cargo))),
        stage("test", || process::run(&mut test(cargo, options))),
        stage("docs", || process::run(&mut document(cargo))),
    ];
    eprintln!("\n{}", table(&outcomes));
    verdict(&outcomes)
}

/// Returns the names of the failed stages.
fn verdict(outcomes: &[Outcome]) -> Result<()> {
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).map(|outcome| outcome.stage).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::Stages { stages: failed }) }
}

fn stage(name: &'static str, run: impl FnOnce() -> Result<()>) -> Outcome {
    eprintln!("\n== {name}");
    let start = Instant::now();
    let outcome = run();
    if let Err(error) = &outcome {
        eprintln!("{name}: {}", crate::report(error));
    }
    Outcome { stage: name, passed: outcome.is_ok(), time: start.elapsed() }
}

fn check_format(workspace: &Workspace, cargo: &Cargo) -> Result<()> {
    let mut outcome = process::run(cargo.command().args(["fmt", "--all", "--", "--check"]));
    for manifest in workspace.projects()?.into_iter().chain(workspace.peer_projects()?) {
        let mut command = cargo.command();
        command.arg("fmt").arg("--manifest-path").arg(manifest).args(["--", "--check"]);
        outcome = outcome.and(process::run(&mut command));
    }
    outcome
}

fn clippy(cargo: &Cargo) -> Command {
    let mut command = cargo.command();
    command.args(["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    command
}

fn test(cargo: &Cargo, options: &TestOptions<'_>) -> Command {
    let mut command = cargo.command();
    // All failures of one go: a run of these is long.
    command.args(["test", "--release", "--workspace", "--no-fail-fast"]).args(options.arguments);
    if options.long {
        command.env("HOST_TEST_LONG", "1");
    }
    command.env("HOST_TEST_PYTHON", options.python);
    if let Some(python) = options.mlflow {
        command.env("HOST_TEST_MLFLOW", python);
    }
    if let Some(python) = options.pytorch {
        command.env("HOST_TEST_PYTORCH", python);
    }
    command
}

fn document(cargo: &Cargo) -> Command {
    let mut flags = std::env::var_os("RUSTDOCFLAGS").unwrap_or_default();
    flags.push(" -Dwarnings");
    let mut command = cargo.command();
    command.args(["doc", "--release", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", flags);
    command
}

fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!("{:<10}{:<10}{:>8}\n", "stage", "result", "seconds");
    for outcome in outcomes {
        let result = if outcome.passed { "ok" } else { "FAILED" };
        text.push_str(&format!("{:<10}{:<10}{:>8.1}\n", outcome.stage, result, outcome.time.as_secs_f64()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_stage_is_in_the_table_and_in_the_verdict() {
        let passed = stage("format", || Ok(()));
        assert!(verdict(std::slice::from_ref(&passed)).is_ok());

        let failed = stage("clippy", || Err(Error::NotBuilt { what: "anything" }));
        let outcomes = [passed, failed];
        let table = table(&outcomes);
        let row = |name| table.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(row("format").contains("ok") && row("clippy").contains("FAILED"), "{table}");
        let message = verdict(&outcomes).unwrap_err().to_string();
        assert_eq!(message, "failed: clippy");
    }
}
