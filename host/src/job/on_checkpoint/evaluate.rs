//! `evaluate`: the metrics of a checkpoint over a split, or over other data.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::super::handle::Link;
use super::super::log::Verbosity;
use super::super::results::EVALUATIONS;
use super::super::status::number;
use super::outputs::{self, Work, refuse_existing};
use super::plan::{CheckpointPlan, DataChoice};
use super::session::{self, Prepared, make_folder};
use super::{CheckpointJobOutcome, CheckpointRequest};
use crate::data::{OTHER, Wanted};
use crate::report::{Problems, table, terminal};
use crate::services::Screen as _;

/// The file of the result.
const FILE: &str = "evaluation.json";

/// What to evaluate.
#[derive(Clone, Debug, Default)]
pub struct EvaluateRequest {
    /// Which checkpoint.
    pub job: CheckpointRequest,
    /// Other data, of the run's format.
    pub data: Option<PathBuf>,
    /// A split of the run's data; that of `[eval]` if neither is given.
    pub split: Option<String>,
}

const WORK: Work = Work { job: "evaluate", verb: "evaluating", unit: "batch" };

/// Evaluates; writes `evaluation.json` and shows its metrics.
pub(super) fn evaluate(
    request: &EvaluateRequest,
    verbosity: Verbosity,
    link: &Link,
) -> Result<CheckpointJobOutcome, Problems> {
    let console = session::console(verbosity);
    let choice = match &request.data {
        Some(path) => DataChoice::Other(path.clone(), Wanted::Required),
        None => DataChoice::Own,
    };
    let plan = CheckpointPlan::make(&request.job, &choice)?;
    let split = request.data.as_ref().map(|_| OTHER).or(request.split.as_deref());
    let evaluation = plan.evaluation(split)?;
    let folder = outputs::folder(request.job.out.as_deref(), &plan.located, EVALUATIONS);
    let path = folder.join(FILE);
    refuse_existing(std::slice::from_ref(&path), request.job.force)?;
    make_folder(&folder)?;

    let samples = plan.data.splits.get(&*evaluation.split).map_or(0, |split| split.len());
    let mut result = json!({
        "run": plan.run_file.run.name,
        "checkpoint": plan.located.path.display().to_string(),
        "epoch": plan.resume.position().epoch,
        "step": plan.resume.position().global_step,
        "data": request.data.as_ref().map(|path| path.display().to_string()),
        "split": &*evaluation.split,
        "samples": samples,
        "host_version": env!("CARGO_PKG_VERSION"),
    });
    let mut prepared = Prepared::new(plan, &folder, &console, link, WORK)?;
    let outcome = prepared.run(|trainer| trainer.evaluate_once(&evaluation));

    let session = &prepared.trainer.session;
    let arrays = session.history().latest_arrays();
    let mut metrics = Map::new();
    let names = std::iter::once("loss".into()).chain(evaluation.metrics.iter().map(|metric| metric.name()));
    for name in names {
        let full = format!("{}_{name}", evaluation.split);
        let array = || arrays.get(&full).map(|array| rows(&array.shape, &array.values));
        if let Some(value) = session.metrics().value(&full).map(number).or_else(array) {
            metrics.insert(name.into_owned(), value);
        }
    }
    if outcome != plugin_api::event::Outcome::Finished {
        return Ok(CheckpointJobOutcome { outcome, folder, files: Vec::new(), result });
    }
    prepared
        .progress
        .measured(metrics.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect());
    let rows: Vec<[String; 2]> = metrics
        .iter()
        .filter(|(_, value)| !value.is_array())
        .map(|(name, value)| [name.clone(), shown(value)])
        .collect();
    let mut text = Vec::new();
    let _ = table::write(["METRIC", "VALUE"], &rows, terminal::stderr_width(), &mut text);
    console.line(String::from_utf8_lossy(&text).trim_end());
    if metrics.values().any(Value::is_array) {
        console.line(&format!("tables of numbers, such as a confusion matrix, are in `{FILE}`"));
    }
    result["metrics"] = Value::Object(metrics);
    let text = serde_json::to_vec_pretty(&result).map_err(|error| session::cannot("write the evaluation", &error))?;
    session::write(&path, &text)?;
    console.line(&format!("{samples} samples of `{}`: {}", evaluation.split, path.display()));
    Ok(CheckpointJobOutcome { outcome, folder, files: vec![path], result })
}

fn shown(value: &Value) -> String {
    match value.as_f64() {
        Some(value) => format!("{value:.6}"),
        None => value.as_str().unwrap_or_default().to_owned(),
    }
}

/// An array as nested lists.
fn rows(shape: &[usize], values: &[f32]) -> Value {
    match shape {
        [] => values.first().map_or(Value::Null, |value| number(f64::from(*value))),
        [_] => values.iter().map(|value| number(f64::from(*value))).collect(),
        [_, rest @ ..] => {
            let length = rest.iter().product::<usize>().max(1);
            values.chunks(length).map(|values| rows(rest, values)).collect()
        }
    }
}
