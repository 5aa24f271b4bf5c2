//! `host config`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Subcommand};

use super::print;
use crate::author::Folders;
use crate::dispatch::Dispatcher;
use crate::job::{JobPlan, Request};
use crate::report::{Problem, Problems, Style, render};
use crate::run_file;
use crate::train::TrainError;

/// `host config …`
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Checks a run file as a run would, with its data, model and plugins, and trains nothing.
    #[command(after_help = "Example:\n  host config check run.toml")]
    Check {
        /// The run file.
        run_file: PathBuf,
        #[command(flatten)]
        folders: Folders,
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
    /// Prints the JSON Schema of run files, with which editors complete and check them.
    #[command(after_help = "Example, for an editor that reads a `#:schema` line at the top of a TOML file:\n  \
                            host config schema > run.schema.json")]
    Schema,
}

impl ConfigCommand {
    /// Whether what it says is for a program.
    pub(super) fn writes_json(&self) -> bool {
        matches!(self, Self::Check { json: true, .. })
    }
}

pub(super) fn run(command: ConfigCommand) -> Result<ExitCode, Problems> {
    match command {
        ConfigCommand::Check { run_file, folders, overrides, resolved, json } => {
            let name = run_file.display().to_string();
            let plugins = folders.find(&mut std::io::stderr())?;
            let request = Request { run_file: Some(run_file), plugins, overrides, ..Request::default() };
            let mut plan = JobPlan::make(&request)?;
            std::mem::replace(&mut plan.initial_weights, Ok(None))?;
            // What only a callback itself can refuse, such as a combination of its options.
            let (instances, created) = Dispatcher::create(plan.order.clone());
            drop(instances);
            created.map_err(|failure| Problem::from(&TrainError::from(failure)))?;
            let warnings: Vec<Problem> =
                plan.rejected.iter().cloned().chain(plan.order.warnings.iter().map(Problem::new)).collect();
            if json {
                super::print_problems(&[], &warnings)?;
                return Ok(ExitCode::SUCCESS);
            }
            eprint!("{}", render(&warnings, Style::of_stderr()));
            if resolved {
                let text = plan.run_file.resolved_toml();
                print(&text.map_err(|error| super::cannot("write the resolved run file", &error))?)?;
            } else {
                print(&format!(
                    "`{name}` is valid: {}, callbacks {}\n",
                    plan.model.description(),
                    plan.order.planned.iter().map(|planned| planned.name()).collect::<Vec<_>>().join(", "),
                ))?;
                for note in &plan.data.notes {
                    print(&format!("data: {note}\n"))?;
                }
            }
        }
        ConfigCommand::Schema => {
            let text = serde_json::to_string_pretty(&run_file::schema());
            print(&format!("{}\n", text.map_err(|error| super::cannot("write the schema", &error))?))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
