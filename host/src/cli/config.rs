//! `host config`.

use std::process::ExitCode;

use host_command::arguments::{ConfigCommand, SchemaOf};
use host_command::runs::event::RunEvent;
use host_command::runs::status::Status;
use host_command::{cannot, print, print_data, print_problems};

use crate::author;
use crate::dispatch::Dispatcher;
use crate::job::{JobPlan, Request};
use crate::report::{Problem, Problems, Style, render};
use crate::run_file;
use crate::train::TrainError;

pub(super) fn run(command: ConfigCommand) -> Result<ExitCode, Problems> {
    match command {
        ConfigCommand::Check { run_file, folders, locking, overrides, resolved, json } => {
            let name = run_file.display().to_string();
            let plugins = author::find_plugins(folders, &mut std::io::stderr())?;
            let request = Request { run_file: Some(run_file), plugins, locking, overrides, ..Request::default() };
            let mut plan = JobPlan::make(&request)?;
            let initial_weights = std::mem::replace(&mut plan.initial_weights, Ok(None))?;
            // What only a callback itself can refuse, such as a combination of its options.
            let (instances, created) = Dispatcher::create(plan.order.clone());
            drop(instances);
            created.map_err(|failure| Problem::from(&TrainError::from(failure)))?;
            let warnings: Vec<Problem> =
                plan.rejected.iter().cloned().chain(plan.order.warnings.iter().map(Problem::new)).collect();
            if json {
                print_problems(&[], &warnings)?;
                return Ok(ExitCode::SUCCESS);
            }
            eprint!("{}", render(&warnings, Style::of_stderr()));
            if resolved {
                let text = plan.run_file.resolved_toml();
                print_data(&text.map_err(|error| cannot("write the resolved run file", &error))?)?;
            } else {
                print(&format!(
                    "`{name}` is valid: {}, callbacks {}\n",
                    plan.model.description(),
                    plan.order.planned.iter().map(|planned| planned.name()).collect::<Vec<_>>().join(", "),
                ))?;
                for note in &plan.data.notes {
                    print(&format!("data: {note}\n"))?;
                }
                if let Some(weights) = initial_weights {
                    print(&format!("{}\n", weights.report()))?;
                }
            }
        }
        ConfigCommand::Schema { of } => {
            let schema = match of {
                SchemaOf::RunFile => run_file::schema(),
                SchemaOf::Events => RunEvent::schema(),
                SchemaOf::Status => Status::schema(),
            };
            let text = serde_json::to_string_pretty(&schema);
            print_data(&format!("{}\n", text.map_err(|error| cannot("write the schema", &error))?))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
