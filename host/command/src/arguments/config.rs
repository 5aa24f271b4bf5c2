//! `host config`.

use std::path::PathBuf;

use clap::{ArgAction, Subcommand, ValueEnum};

use super::folders::{Folders, Locking};

/// `host config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Checks a run file as a run would, with its data, model and plugins, and trains nothing.
    #[command(after_help = "Example:\n  host config check run.toml")]
    Check {
        /// The run file.
        run_file: PathBuf,
        /// Where the plugin libraries are.
        #[command(flatten)]
        folders: Folders,
        /// Whether only libraries of a lock are opened.
        #[command(flatten)]
        locking: Locking,
        /// Overrides a key of the run file: `train.epochs=3`.
        #[arg(long = "set", value_name = "KEY=VALUE", action = ArgAction::Append)]
        overrides: Vec<String>,
        /// Prints the run file with every default written out.
        #[arg(long, conflicts_with = "json")]
        resolved: bool,
        /// Prints what is wrong as JSON: `severity`, `message`, `causes`, `hint`, `file`, `line`, `column` and `pointer`.
        #[arg(long)]
        json: bool,
    },
    /// Prints the JSON Schema of run files, with which editors complete and check them, or of what a run tells programs.
    #[command(
        after_help = "Examples, the first for an editor that reads a `#:schema` line at the top of a TOML file:\n  \
                            host config schema > run.schema.json\n  \
                            host config schema events   the lines of `host run --json`\n  \
                            host config schema status   `status.json`"
    )]
    Schema {
        /// Whose schema.
        #[arg(value_enum, default_value_t)]
        of: SchemaOf,
    },
}

/// What has a JSON Schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// A run file.
    #[default]
    RunFile,
    /// A line of `host run --json`.
    Events,
    /// `status.json`.
    Status,
}

impl ConfigCommand {
    /// Whether what it says is for a program.
    pub fn writes_json(&self) -> bool {
        matches!(self, Self::Check { json: true, .. })
    }
}
