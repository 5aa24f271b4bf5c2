//! The commands that compute; `host_command` has the command line itself and the commands about the folders of runs.
//!
//! Exit codes: 0 it is done, and a run finished or was stopped; 1 it failed, or a check did; 2 the command, the run file or
//! the plugins are wrong and nothing was started; 128 and its number a signal ended it.

mod config;
mod jobs;
mod model;
mod openmp;
mod run;
mod streams;

use std::process::ExitCode;

use clap::Parser;
use host_command::arguments::{Arguments, Command, ComputeCommand, ProgramArguments};
use host_command::refused;

use self::run::Printed;
use crate::author;
use crate::job::Job;
use crate::report::Problems;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let json = command.writes_json();
    let outcome = match command {
        Command::Compute(command) => compute(*command),
        Command::Runs(command) => host_command::run(command),
    };
    outcome.unwrap_or_else(|problems| refused(problems, json))
}

fn compute(command: ComputeCommand) -> Result<ExitCode, Problems> {
    if matches!(command, ComputeCommand::Config(_) | ComputeCommand::Plugins(_)) {
        streams::show_what_plugins_print();
    }
    match command {
        ComputeCommand::Run(arguments) => run::run(arguments, Printed::ToLog, |job| job),
        ComputeCommand::Evaluate(arguments) => jobs::evaluate(arguments),
        ComputeCommand::Predict(arguments) => jobs::predict(arguments),
        ComputeCommand::Export(arguments) => jobs::export(arguments),
        ComputeCommand::Model(arguments) => model::show(&arguments),
        ComputeCommand::Config(command) => config::run(command),
        ComputeCommand::Plugins(command) => author::run(command),
    }
}

/// Runs the command line of a program that trains with parts of its own: it takes what `host run` takes, and `complete`
/// adds the parts to the job.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     host::cli::run_with(|job| {
///         job.batch_step(|step| {
///             let outputs = step.forward(&step.inputs().fliplr())?;
///             let loss = step.loss(&outputs, step.targets())?;
///             Ok(host::train::Computed { outputs, loss })
///         })
///     })
/// }
/// ```
pub fn run_with(complete: impl FnOnce(Job) -> Job) -> ExitCode {
    #[cfg(unix)]
    crate::dispatch::survive_file_limits();
    let ProgramArguments { run: arguments } = ProgramArguments::parse();
    let json = arguments.json;
    run::run(arguments, Printed::ToStdout, complete).unwrap_or_else(|problems| refused(problems, json))
}
