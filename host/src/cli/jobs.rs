//! `host evaluate`, `host predict` and `host export`.

use std::io::Write;
use std::process::ExitCode;

use host_command::arguments::{CheckpointArguments, EvaluateArguments, ExportArguments, PredictArguments, Shown};
use host_command::{cannot, print, print_data};
use plugin_api::event::Outcome;

use super::{openmp, run, streams};
use crate::author;
use crate::job::{
    CheckpointJob, CheckpointJobOutcome, CheckpointRequest, Continuation, EvaluateRequest, ExportRequest,
    PredictRequest, PredictedFrom, interrupted_exit_code,
};
use crate::report::Problems;

pub(super) fn evaluate(arguments: EvaluateArguments) -> Result<ExitCode, Problems> {
    openmp::start_with_short_waits();
    streams::log_what_plugins_print();
    let (json, shown) = (arguments.job.json, arguments.job.shown);
    let request = EvaluateRequest { job: request(arguments.job)?, data: arguments.data, split: arguments.split };
    let outcome = CheckpointJob::Evaluate(request).run(run::verbosity(shown))?;
    let file = outcome.files.first().map(|path| path.display().to_string());
    conclude(&outcome, json, shown, file)
}

pub(super) fn predict(arguments: PredictArguments) -> Result<ExitCode, Problems> {
    openmp::start_with_short_waits();
    streams::log_what_plugins_print();
    let (json, shown) = (arguments.job.json, arguments.job.shown);
    let from = match (arguments.prompt, arguments.data) {
        (Some(prompt), _) => PredictedFrom::Text(Continuation {
            prompt,
            tokens: arguments.tokens,
            temperature: arguments.temperature,
            seed: arguments.seed,
        }),
        (None, path) => {
            PredictedFrom::Data { path: path.unwrap_or_default(), format: arguments.format, draw: arguments.draw }
        }
    };
    let is_text = matches!(from, PredictedFrom::Text(_));
    let request = PredictRequest { job: request(arguments.job)?, from };
    let outcome = CheckpointJob::Predict(request).run(run::verbosity(shown))?;
    if is_text && !json && outcome.outcome == Outcome::Finished {
        // The text is the answer, wherever stderr leads.
        let text = outcome.result.get("text").and_then(serde_json::Value::as_str).unwrap_or_default();
        print_data(&format!("{text}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = outcome.files.first().map(|path| path.display().to_string());
    conclude(&outcome, json, shown, file)
}

pub(super) fn export(arguments: ExportArguments) -> Result<ExitCode, Problems> {
    openmp::start_with_short_waits();
    streams::log_what_plugins_print();
    let (json, shown) = (arguments.job.json, arguments.job.shown);
    let request = ExportRequest { job: request(arguments.job)?, data: arguments.data };
    let outcome = CheckpointJob::Export(request).run(run::verbosity(shown))?;
    let exports = outcome.result.get("exports").and_then(serde_json::Value::as_array);
    let exports: Vec<&str> = exports.into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    let exports = Some(exports.join("\n")).filter(|exports| !exports.is_empty());
    conclude(&outcome, json, shown, exports)
}

fn request(arguments: CheckpointArguments) -> Result<CheckpointRequest, Problems> {
    let mut silent = std::io::sink();
    let mut stderr = std::io::stderr();
    let notes: &mut dyn Write = if arguments.shown.quiet { &mut silent } else { &mut stderr };
    // Without a callback no library is needed, and none is searched for.
    let plugins = match arguments.plugin.is_empty() && arguments.folders.paths.is_empty() {
        true => Vec::new(),
        false => author::find_plugins(arguments.folders, notes)?,
    };
    Ok(CheckpointRequest {
        path: arguments.path,
        checkpoint: arguments.checkpoint,
        plugins,
        locking: arguments.locking,
        appended: arguments.plugin,
        overrides: arguments.overrides,
        out: arguments.out,
        force: arguments.force,
    })
}

/// Prints the result for a program, or what was written where the console has not told it on the same stream.
fn conclude(
    outcome: &CheckpointJobOutcome,
    json: bool,
    shown: Shown,
    written: Option<String>,
) -> Result<ExitCode, Problems> {
    if json {
        let text = serde_json::to_string_pretty(&outcome.result).map_err(|error| cannot("write the result", &error))?;
        print_data(&format!("{text}\n"))?;
    } else if shown.quiet || !streams::stdout_is_stderr() {
        print(&written.map(|written| format!("{written}\n")).unwrap_or_default())?;
    }
    Ok(match outcome.outcome {
        Outcome::Finished => ExitCode::SUCCESS,
        Outcome::Interrupted => ExitCode::from(interrupted_exit_code()),
        _ => ExitCode::FAILURE,
    })
}
