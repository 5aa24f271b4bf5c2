//! What each command takes. One definition serves the command line, its help, completions and the man page.

mod check;
mod config;
mod folders;
mod jobs;
mod model;
mod packages;
mod plugins;
mod run;
mod runs;

use clap::{Parser, Subcommand};

pub use check::{Check, Scope, Tier};
pub use config::{ConfigCommand, SchemaOf};
pub use folders::{Folders, Locking};
pub use jobs::{CheckpointArguments, EvaluateArguments, ExportArguments, PredictArguments, PredictionFormat};
pub use model::ModelArguments;
pub use packages::{AddOptions, IndexOptions, Origin, PackageOptions, PluginsPlace, RemoveOptions, UpdateOptions};
pub use plugins::{CheckKind, CheckOptions, Language, NewOptions, PluginsCommand};
pub use run::{Change, ProgramArguments, RunArguments, Shown};
pub use runs::{
    AttachArguments, CompareArguments, CompletionsArguments, ListArguments, RequestArguments, RunArgument, Shell,
    StatusArguments, StopArguments,
};

/// The exit codes of all commands.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    it is done; a run finished, or was stopped
  1    it failed; the run to steer is not running
  2    the command, the run file or the plugins are wrong; nothing was started
  130  Ctrl-C ended it, after its end hooks; 143 after SIGTERM, 129 after SIGHUP";

/// Trains networks with libtorch; plugins do everything besides the training.
#[derive(Debug, Parser)]
#[command(name = "host", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Those that compute.
    #[command(flatten)]
    Compute(Box<ComputeCommand>),
    /// Those about the folders of runs.
    #[command(flatten)]
    Runs(RunsCommand),
}

/// The commands that load plugins or libtorch.
#[derive(Debug, Subcommand)]
pub enum ComputeCommand {
    /// Trains what a run file says, with the callbacks of plugin libraries.
    Run(RunArguments),
    /// Measures a saved model on a split of its data, or on other data.
    Evaluate(EvaluateArguments),
    /// Writes what a saved model says about data, with or without targets.
    Predict(PredictArguments),
    /// Exports a saved model with export plugins.
    Export(ExportArguments),
    /// Shows the model of a run file: nodes, shapes, parameters and cost.
    Model(ModelArguments),
    /// Checks run files, and prints their JSON Schema.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Creates, lists, describes and checks plugins.
    #[command(subcommand)]
    Plugins(PluginsCommand),
}

/// The commands that only read the folders of runs, or leave a request there.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// Lists runs with their state, progress, best metrics and age.
    List(ListArguments),
    /// Shows where a run is.
    Status(StatusArguments),
    /// Shows what a running run prints, from another terminal.
    Attach(AttachArguments),
    /// Compares runs: the settings that differ, and the best and last metrics.
    Compare(CompareArguments),
    /// Stops a run at its next safe point, with its end hooks.
    Stop(StopArguments),
    /// Pauses a run at its next safe point.
    Pause(RequestArguments),
    /// Goes on with a paused run.
    Resume(RequestArguments),
    /// Has a run take a checkpoint at its next safe point.
    Checkpoint(RequestArguments),
    /// Prints a script that completes commands in a shell.
    Completions(CompletionsArguments),
    /// Prints the man page.
    Man,
}

impl Command {
    /// Whether what it says is for a program, errors too.
    pub fn writes_json(&self) -> bool {
        match self {
            Self::Compute(command) => command.writes_json(),
            Self::Runs(command) => command.writes_json(),
        }
    }
}

impl ComputeCommand {
    fn writes_json(&self) -> bool {
        match self {
            Self::Run(arguments) => arguments.json,
            Self::Evaluate(arguments) => arguments.job.json,
            Self::Predict(arguments) => arguments.job.json,
            Self::Export(arguments) => arguments.job.json,
            Self::Model(arguments) => arguments.json,
            Self::Config(command) => command.writes_json(),
            Self::Plugins(command) => command.writes_json(),
        }
    }
}

impl RunsCommand {
    fn writes_json(&self) -> bool {
        match self {
            Self::List(arguments) => arguments.json,
            Self::Status(arguments) => arguments.json,
            Self::Compare(arguments) => arguments.json,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_change_has_one_name() {
        for change in <Change as clap::ValueEnum>::value_variants() {
            let value = clap::ValueEnum::to_possible_value(change).unwrap();
            assert_eq!(value.get_name(), change.name());
        }
    }
}
