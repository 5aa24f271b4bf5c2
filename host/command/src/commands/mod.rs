//! The commands about the folders of runs, and the way to those that compute.

mod attach;
mod compare;
mod completions;
mod curves;
mod list;
mod output;
mod request;
mod shell;
mod status;
mod words;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command, ComputeCommand, RunArguments, RunsCommand};
use crate::report::{Problem, ProblemJson, Problems, Style, render};
use crate::{engine, launch};

pub use output::{cannot, print, print_data, print_problems, print_refused};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let json = command.writes_json();
    let outcome = match command {
        Command::Compute(command) => match &*command {
            ComputeCommand::Run(arguments) => run_engine(arguments),
            _ => engine::become_engine(),
        },
        Command::Runs(command) => run(command),
    };
    outcome.unwrap_or_else(|problems| refused(problems, json))
}

/// Trains in this process, or in several.
fn run_engine(arguments: &RunArguments) -> Result<ExitCode, Problems> {
    let started = match arguments.processes {
        None => Ok(None),
        Some(_) => engine::find().and_then(|program| launch::run(&program, arguments)),
    };
    match started {
        Ok(None) => engine::become_engine(),
        Ok(Some(code)) => Ok(code),
        Err(problems) if arguments.json && print_refused(&problems).is_ok() => Ok(ExitCode::from(2)),
        Err(problems) => Err(problems),
    }
}

/// Runs a command about the folders of runs.
///
/// # Errors
///
/// Problems, which the caller renders.
pub fn run(command: RunsCommand) -> Result<ExitCode, Problems> {
    match command {
        RunsCommand::List(arguments) => list::run(&arguments),
        RunsCommand::Status(arguments) => status::run(&arguments),
        RunsCommand::Attach(arguments) => attach::run(&arguments),
        RunsCommand::Compare(arguments) => compare::run(&arguments),
        RunsCommand::Stop(arguments) => request::stop(&arguments),
        RunsCommand::Pause(arguments) => request::run(crate::runs::control::Action::Pause, &arguments),
        RunsCommand::Resume(arguments) => request::run(crate::runs::control::Action::Resume, &arguments),
        RunsCommand::Checkpoint(arguments) => request::run(crate::runs::control::Action::Checkpoint, &arguments),
        RunsCommand::Completions(arguments) => completions::completions(arguments.shell),
        RunsCommand::Man => completions::man(),
    }
}

/// Tells people on stderr, or a program on stdout, what is wrong; the exit code for it.
pub fn refused(Problems(problems): Problems, json: bool) -> ExitCode {
    // A stdout that is closed leaves nobody to tell.
    let told = json && print_problems(&problems, &[]).is_ok();
    if !told {
        eprint!("{}", render(&problems, Style::of_stderr()));
    }
    ExitCode::from(2)
}
