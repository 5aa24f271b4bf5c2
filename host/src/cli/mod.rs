//! The command line.
//!
//! Exit codes: 0 the run finished, or a callback stopped it; 1 it failed, or a check did; 2 the command, the run file or
//! the plugins are wrong and nothing was started; 130 a signal ended it.

mod config;
mod model;
mod openmp;
mod run;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::author;
use crate::job::Job;
use crate::report::{Problem, Problems, Style, render};

const EXIT_CODES: &str = "\
Exit codes:
  0    the run finished, or a callback stopped it
  1    it failed
  2    the command, the run file or the plugins are wrong; nothing was started
  130  a signal ended it, after its end hooks";

/// Trains networks with libtorch; plugins do everything besides the training.
#[derive(Parser)]
#[command(name = "host", version, after_help = EXIT_CODES, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trains what a run file says, with the callbacks of plugin libraries.
    Run(run::RunArguments),
    /// Shows the model of a run file: nodes, shapes, parameters and cost.
    Model(model::ModelArguments),
    /// Checks run files, and prints their JSON Schema.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Creates, lists, describes and checks plugins.
    #[command(subcommand)]
    Plugins(author::PluginsCommand),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Run(arguments) => run::run(arguments, |job| job),
        Command::Model(arguments) => model::show(&arguments),
        Command::Config(command) => config::run(command),
        Command::Plugins(command) => author::run(command),
    };
    outcome.unwrap_or_else(refused)
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
    let run::ProgramArguments { run: arguments } = run::ProgramArguments::parse();
    run::run(arguments, complete).unwrap_or_else(refused)
}

fn refused(Problems(problems): Problems) -> ExitCode {
    eprint!("{}", render(&problems, Style::of_stderr()));
    ExitCode::from(2)
}

/// Writes to stdout; a reader that stopped reading, such as `head`, is not an error.
fn print(text: &str) -> Result<(), Problems> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(cannot("write to the standard output", &error))
        }
        _ => Ok(()),
    }
}

fn cannot(action: &str, error: &(dyn std::error::Error + 'static)) -> Problems {
    Problem::new(format!("cannot {action}")).with_cause(error).into()
}
