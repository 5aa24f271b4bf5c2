//! The command line.

use std::process::ExitCode;

use clap::Parser;

use crate::author;
use crate::report::{Style, render};

#[derive(Debug, Parser)]
#[command(name = "host", version)]
enum Command {
    /// Lists, describes, checks and makes plugins.
    #[command(subcommand)]
    Plugins(author::PluginsCommand),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let Command::Plugins(command) = Command::parse();
    match author::run(command) {
        Ok(code) => code,
        Err(problems) => {
            eprint!("{}", render(&problems.0, Style::of_stderr()));
            ExitCode::FAILURE
        }
    }
}
