//! The command line.
//!
//! Exit codes: 0 the run finished, or a callback stopped it; 1 it failed, or a check did; 2 the command, the run file or
//! the plugins are wrong and nothing was started; 128 and its number a signal ended it.

mod config;
mod model;
mod openmp;
mod run;
mod streams;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::author;
use crate::job::Job;
use crate::report::{Problem, ProblemJson, Problems, Style, render};

const EXIT_CODES: &str = "\
Exit codes:
  0    the run finished, or a callback stopped it
  1    it failed
  2    the command, the run file or the plugins are wrong; nothing was started
  130  Ctrl-C ended it, after its end hooks; 143 after SIGTERM, 129 after SIGHUP";

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
    let json = arguments.command.writes_json();
    let outcome = match arguments.command {
        Command::Run(arguments) => run::run(arguments, |job| job),
        Command::Model(arguments) => model::show(&arguments),
        Command::Config(command) => config::run(command),
        Command::Plugins(command) => author::run(command),
    };
    outcome.unwrap_or_else(|problems| refused(problems, json))
}

impl Command {
    /// Whether what it says is for a program, errors too.
    fn writes_json(&self) -> bool {
        match self {
            Self::Run(arguments) => arguments.json,
            Self::Model(arguments) => arguments.json,
            Self::Config(command) => command.writes_json(),
            Self::Plugins(command) => command.writes_json(),
        }
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
    let run::ProgramArguments { run: arguments } = run::ProgramArguments::parse();
    let json = arguments.json;
    run::run(arguments, complete).unwrap_or_else(|problems| refused(problems, json))
}

/// Tells people on stderr, or a program on stdout.
fn refused(Problems(problems): Problems, json: bool) -> ExitCode {
    // A stdout that is closed leaves nobody to tell.
    let told = json && print_problems(&problems, &[]).is_ok();
    if !told {
        eprint!("{}", render(&problems, Style::of_stderr()));
    }
    ExitCode::from(2)
}

/// Writes errors and warnings as `{ "valid": …, "problems": […] }`.
fn print_problems(errors: &[Problem], warnings: &[Problem]) -> Result<(), Problems> {
    #[derive(serde::Serialize)]
    struct Told<'a> {
        valid: bool,
        problems: Vec<ProblemJson<'a>>,
    }
    let errors = errors.iter().map(|problem| ProblemJson::new("error", problem));
    let warnings = warnings.iter().map(|problem| ProblemJson::new("warning", problem));
    let valid = errors.len() == 0;
    let text = serde_json::to_string_pretty(&Told { valid, problems: errors.chain(warnings).collect() });
    print(&format!("{}\n", text.map_err(|error| cannot("write the problems", &error))?))
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
