//! `host model`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

const EXAMPLES: &str = "\
Examples:
  host model run.toml
  host model run.toml --set 'model.layers.0.out_features=256'
  host model run.toml --json | jq '.nodes[].name'
  host model --explain-export    how to export a model from PyTorch";

/// What `host model` takes.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ModelArguments {
    /// The run file; without one, the digits example that is built in.
    pub run_file: Option<PathBuf>,
    /// Overrides a key of the run file.
    #[arg(long = "set", value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub overrides: Vec<String>,
    /// Prints the graph as JSON, as plugins get it.
    #[arg(long)]
    pub json: bool,
    /// Shows the lines of Python that export a model of PyTorch for `[model] exported`, and what to know.
    #[arg(long, conflicts_with_all = ["run_file", "overrides", "json"])]
    pub explain_export: bool,
}
