//! `predict`: what a checkpoint says about data, with or without targets.

use std::path::PathBuf;

use host_command::arguments::PredictionFormat;
use plugin_api::event::Outcome;
use serde_json::json;

use super::super::handle::Link;
use super::super::learning::Fitted;
use super::super::log::Verbosity;
use super::super::results::PREDICTIONS;
use super::drawing::Drawings;
use super::outputs::{self, Work, refuse_existing};
use super::plan::{CheckpointPlan, DataChoice};
use super::predictions::{Prediction, PredictionFile, file_name};
use super::session::{self, Prepared, make_folder};
use super::text;
use super::{CheckpointJobOutcome, CheckpointRequest};
use crate::data::{OTHER, Samples, Target, Wanted};
use crate::report::{Problem, Problems};
use crate::services::Screen as _;
use crate::train::{Meaning, PredictedBatch, TrainError, targets};

/// What to predict.
#[derive(Clone, Debug)]
pub struct PredictRequest {
    /// Which checkpoint.
    pub job: CheckpointRequest,
    /// Of what.
    pub from: PredictedFrom,
}

/// What is predicted from.
#[derive(Clone, Debug)]
pub enum PredictedFrom {
    /// The samples of other data of the run's format.
    Data {
        /// Where it is.
        path: PathBuf,
        /// The format of the predictions.
        format: PredictionFormat,
        /// Whether images are drawn with their predictions.
        draw: bool,
    },
    /// A text that is continued.
    Text(Continuation),
}

/// How a text is continued.
#[derive(Clone, Debug)]
pub struct Continuation {
    /// Its beginning.
    pub prompt: String,
    /// How many tokens are added.
    pub tokens: u64,
    /// 0 takes the likeliest token, 1 draws by the model's probabilities.
    pub temperature: f64,
    /// The seed of what is drawn; that of the run if not given.
    pub seed: Option<u64>,
}

const WORK: Work = Work { job: "predict", verb: "predicting", unit: "batch" };

/// Predicts. The predictions of data appear in one file when they are whole; a text goes to stdout and into `text.txt`.
pub(super) fn predict(
    request: &PredictRequest,
    verbosity: Verbosity,
    link: &Link,
) -> Result<CheckpointJobOutcome, Problems> {
    match &request.from {
        PredictedFrom::Data { path, format, draw } => of_data(&request.job, path, *format, *draw, (verbosity, link)),
        PredictedFrom::Text(continuation) => text::continue_text(&request.job, continuation, verbosity, link),
    }
}

fn of_data(
    job: &CheckpointRequest,
    path: &std::path::Path,
    format: PredictionFormat,
    draw: bool,
    (verbosity, link): (Verbosity, &Link),
) -> Result<CheckpointJobOutcome, Problems> {
    let console = session::console(verbosity);
    let plan = CheckpointPlan::make(job, &DataChoice::Other(path.to_owned(), Wanted::IfPresent))?;
    if matches!(plan.description.samples, Samples::Characters { .. } | Samples::Bytes) {
        return Err(Problem::new("this model continues texts")
            .with_hint("give it the beginning of one: `--prompt 'To be'`".to_owned())
            .into());
    }
    if matches!(&plan.data.target, Target::Classes { shape, .. } if !shape.is_empty()) {
        return Err(Problem::new(
            "this model gives a class at each position of a sample, and predictions have one for each sample",
        )
        .with_hint("`host evaluate` measures it".to_owned())
        .into());
    }
    let fitted = Fitted { model: &plan.model, target: &plan.data.target, positive: plan.data.positive };
    if let Some(misfit) = fitted.misfit() {
        return Err(Problem::new(format!("the model's outputs are no predictions of its targets: {misfit}"))
            .with_hint("`host evaluate` measures its loss".to_owned())
            .into());
    }
    let width = plan.model.output_shape().iter().product::<i64>();
    let loss = plan.run_file.train.loss.as_ref();
    let meaning = Meaning::of(&plan.data.target, usize::try_from(width).unwrap_or(0), loss);
    let folder = outputs::folder(job.out.as_deref(), &plan.located, PREDICTIONS);
    refuse_existing(&[folder.join(file_name(format))], job.force)?;
    let drawings = match draw {
        true => Some(Drawings::new(&folder, &plan.description, job.force)?),
        false => None,
    };
    make_folder(&folder)?;
    let (has_targets, sources) = match &plan.other {
        Some((has_targets, sources)) => (*has_targets, sources.clone()),
        None => return Err(Problem::new("there is no data to predict from").into()),
    };
    let cannot_write = |error: std::io::Error| {
        session::cannot(&format!("write `{}`", folder.join(file_name(format)).display()), &error)
    };
    let mut file = PredictionFile::create(&folder, format, &meaning).map_err(cannot_write)?;
    let batch_size = plan.batch_size();
    let (checkpoint, run) = (plan.located.path.display().to_string(), plan.run_file.run.name.clone());

    let mut prepared = Prepared::new(plan, &folder, &console, link, WORK)?;
    let (mut next, mut right) = (0u64, 0u64);
    let outcome = prepared.run(|trainer| {
        trainer.predict_once(OTHER, batch_size, &mut |batch: PredictedBatch<'_>| {
            let system = |source| TrainError::System { action: "cannot write the predictions", source };
            let numbers = meaning.numbers(batch.outputs)?;
            let known = targets(&meaning, batch.targets, has_targets)?;
            for (row, (numbers, targets)) in numbers.iter().zip(known).enumerate() {
                let source = sources.of(usize::try_from(next).unwrap_or(usize::MAX));
                let chosen = meaning.chosen(numbers);
                right +=
                    u64::from(chosen.is_some_and(|(name, _)| targets.first().is_some_and(|target| target == name)));
                if let Some(drawings) = &drawings {
                    drawings.draw(next, &source, &batch.inputs.f_get(row as i64)?, chosen).map_err(system)?;
                }
                let prediction = Prediction { index: next, source, targets, numbers };
                file.add(&meaning, &prediction).map_err(system)?;
                next += 1;
            }
            Ok(())
        })
    });
    drop(prepared);
    let mut result = json!({
        "run": run, "checkpoint": checkpoint, "data": path.display().to_string(), "samples": next,
    });
    if outcome != Outcome::Finished {
        return Ok(CheckpointJobOutcome { outcome, folder, files: Vec::new(), result });
    }
    let path = file.finish().map_err(cannot_write)?;
    console.line(&format!("{next} samples: {}", path.display()));
    if has_targets && meaning.chosen(&[0.0]).is_some() {
        console.line(&format!("{right} of {next} predictions are the targets"));
    }
    result["file"] = json!(path.display().to_string());
    let mut files = vec![path];
    if let Some(drawings) = drawings {
        console.line(&format!("drawings: {}", drawings.folder().display()));
        result["drawings"] = json!(drawings.folder().display().to_string());
        files.push(drawings.folder().to_owned());
    }
    Ok(CheckpointJobOutcome { outcome, folder, files, result })
}
