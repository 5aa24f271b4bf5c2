//! `host stop`, `pause`, `resume` and `checkpoint`: requests to the process of a run.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::output::{cannot, print};
use super::words;
use crate::arguments::{RequestArguments, StopArguments};
use crate::report::{Problem, Problems, Style, render};
use crate::runs::control::{self, Action, ControlRequest};
use crate::runs::folder::is_owned;
use crate::runs::status::{FoundRun, find_run};

/// How long a command waits for the run to read its request: a step may take minutes.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// After so long it says that it waits.
pub(super) const SAY_AFTER: Duration = Duration::from_secs(2);

pub(super) fn stop(arguments: &StopArguments) -> Result<ExitCode, Problems> {
    if arguments.now { stop_now(arguments) } else { run(Action::Stop, &arguments.request) }
}

/// Leaves a request and waits until the run has read it.
pub(super) fn run(action: Action, arguments: &RequestArguments) -> Result<ExitCode, Problems> {
    let found = find(&arguments.run.run)?;
    if !found.is_live() {
        return Ok(not_running(&found));
    }
    let request = ControlRequest { action, by: user(), reason: arguments.reason.clone() };
    let path = control::leave(&found.folder, &request)
        .map_err(|error| cannot(&format!("leave a request in `{}`", found.folder.display()), &error))?;
    let began = Instant::now();
    let mut said = false;
    while !arguments.no_wait && path.exists() {
        if is_owned(&found.folder) == Some(false) {
            // It ended before it came to the request, which must not meet the next process.
            let _ = std::fs::remove_file(&path);
            return Ok(FoundRun::read(&found.folder).map_or(ExitCode::FAILURE, |found| not_running(&found)));
        }
        if began.elapsed() > PATIENCE {
            let problem = Problem::new(format!("`{}` has not read the request yet", found.folder.display()))
                .with_hint("it will at its next safe point; `host status` shows where it is".to_owned());
            eprint!("{}", render(&[problem], Style::of_stderr()));
            return Ok(ExitCode::FAILURE);
        }
        if began.elapsed() > SAY_AFTER && !std::mem::replace(&mut said, true) {
            eprintln!("waiting for the next safe point of `{}`", found.folder.display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let done = match action {
        Action::Stop => "is stopping",
        Action::Pause => "pauses",
        Action::Resume => "goes on",
        Action::Checkpoint => "takes a checkpoint",
    };
    let folder = found.folder.display();
    match arguments.no_wait {
        true => print(&format!("the request to {} is left for `{folder}`\n", action.name()))?,
        false => print(&format!("`{folder}` {done}\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends SIGTERM to the process that trains.
#[cfg(unix)]
fn stop_now(arguments: &StopArguments) -> Result<ExitCode, Problems> {
    let found = find(&arguments.request.run.run)?;
    if !found.is_live() {
        return Ok(not_running(&found));
    }
    let process = found.status.of_process();
    let folder = found.folder.display();
    if !process.runs_here() || is_owned(&found.folder) != Some(true) {
        let id = process.id;
        let here = if process.is_here() { String::new() } else { format!(" on `{}`", process.machine) };
        return Err(Problem::new(format!(
            "whether process {id}{here} is the one that trains in `{folder}` is not sure"
        ))
        .with_hint("without `--now` the run stops at its next safe point, wherever it runs".to_owned())
        .into());
    }
    let id = libc::pid_t::try_from(process.id).map_err(|error| cannot("send the signal", &error))?;
    // SAFETY: it passes numbers only. The process was told apart from others by its start time and the lock.
    if unsafe { libc::kill(id, libc::SIGTERM) } != 0 {
        return Err(cannot(&format!("send SIGTERM to process {id}"), &std::io::Error::last_os_error()));
    }
    print(&format!("SIGTERM was sent to process {id}, which trains in `{folder}`\n"))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(not(unix))]
fn stop_now(_arguments: &StopArguments) -> Result<ExitCode, Problems> {
    Err(Problem::new("`--now` needs signals, which this system does not have")
        .with_hint("without `--now` the run stops at its next safe point".to_owned())
        .into())
}

/// The run at a path.
pub(super) fn find(path: &Path) -> Result<FoundRun, Problems> {
    find_run(path).and_then(|folder| FoundRun::read(&folder)).ok_or_else(|| {
        let there = if path.is_dir() { "holds no run" } else { "is no folder" };
        Problem::new(format!("`{}` {there}", path.display()))
            .with_hint("give a run folder; `host list` shows those in `runs`".to_owned())
            .into()
    })
}

/// Says that no process of the run lives; the exit code for it.
pub(super) fn not_running(found: &FoundRun) -> ExitCode {
    let status = &found.status;
    let how = match &status.error {
        Some(error) if found.is_stale => error.clone(),
        _ => format!("it is {}", status.state),
    };
    let folder = found.folder.display();
    let problem = Problem::new(format!("`{folder}` is not running: {how} ({})", words::ago(found.age)));
    eprint!("{}", render(&[problem], Style::of_stderr()));
    ExitCode::FAILURE
}

/// Who asks.
fn user() -> String {
    ["USER", "LOGNAME", "USERNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| "user".to_owned())
}
