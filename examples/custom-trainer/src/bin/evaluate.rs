//! Evaluates the best checkpoint of a run and shows how far it is: `evaluate runs/digits`.
//!
//! A job on a thread of its own, as a program with a window or a web page of its own would use it.

use std::process::ExitCode;
use std::time::Duration;

use host::job::{CheckpointJob, CheckpointRequest, EvaluateRequest, Verbosity};
use host::report::{Style, render};

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: evaluate RUN_FOLDER");
        return ExitCode::from(2);
    };
    let job = CheckpointRequest { path: path.into(), force: true, ..CheckpointRequest::default() };
    let job = CheckpointJob::Evaluate(EvaluateRequest { job, ..EvaluateRequest::default() });
    let handle = match job.start(Verbosity::Quiet) {
        Ok(handle) => handle,
        Err(error) => {
            eprintln!("the system gives no thread: {error}");
            return ExitCode::FAILURE;
        }
    };
    while !handle.is_finished() {
        eprint!("\r{:3.0} %", handle.progress() * 100.0);
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("\r{:3.0} %", handle.progress() * 100.0);
    for (name, value) in handle.metrics().into_iter().flatten() {
        println!("{name} {value}");
    }
    let failed = handle.is_failed();
    match handle.join() {
        Ok(_) if failed => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(problems) => {
            eprint!("{}", render(&problems.0, Style::of_stderr()));
            ExitCode::from(2)
        }
    }
}
