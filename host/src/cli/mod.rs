//! The command line.
//!
//! Exit codes: 0 the run finished, or a callback stopped it; 1 it failed, or a check did; 2 the command, the run file or
//! the plugins are wrong and nothing was begun; 130 a signal ended it.

mod openmp;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::author;
use crate::report::{Problems, Style, render};

const EXIT_CODES: &str = "\
Exit codes:
  0    the run finished, or a callback stopped it
  1    it failed
  2    the command, the run file or the plugins are wrong; nothing was begun
  130  a signal ended it, after its end hooks";

/// Trains networks with libtorch; everything besides the training happens in plugins.
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
    /// Makes, lists, describes and checks plugins.
    #[command(subcommand)]
    Plugins(author::PluginsCommand),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Run(arguments) => {
            openmp::start_with_short_waits();
            run::run(arguments)
        }
        Command::Plugins(command) => author::run(command),
    };
    outcome.unwrap_or_else(|Problems(problems)| {
        eprint!("{}", render(&problems, Style::of_stderr()));
        ExitCode::from(2)
    })
}
