//! From a checkpoint to everything that a job on it needs: checked, with nothing created.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::Device;

use super::super::isolation;
use super::super::learning::{self, Fitted};
use super::super::model::{self, PlannedModel};
use super::super::plan::{self, evaluation};
use super::super::python;
use super::CheckpointRequest;
use super::locate::Located;
use crate::checkpoint::{Checkpoint, InUse};
use crate::config::{Document, Every};
use crate::data::{self, Data, DataDescription, OtherData, Sources, Wanted};
use crate::dispatch::{self, Order};
use crate::model::ModelOptions;
use crate::plugins::{Python, lock};
use crate::report::{Problem, Problems};
use crate::run_file::{self, EvalOptions, RunFile};
use crate::train::{self, Batches, EvaluationPlan, Resume, TrainingPlan};

/// Which data a job works on.
#[derive(Clone, Debug)]
pub(super) enum DataChoice {
    /// The run's own.
    Own,
    /// The run's own if it can be read; a job that does not need samples goes on without them.
    OwnIfPresent,
    /// Other data, of the run's format.
    Other(PathBuf, Wanted),
    /// None: the job makes its own.
    None,
}

/// Everything that a job on a checkpoint needs.
pub(super) struct CheckpointPlan {
    pub(super) located: Located,
    pub(super) checkpoint: Checkpoint,
    /// Keeps the run's retention from removing it.
    pub(super) _in_use: InUse,
    pub(super) resume: Resume,
    pub(super) run_file: RunFile,
    pub(super) document: Document,
    pub(super) order: Order,
    pub(super) description: DataDescription,
    pub(super) data: Data,
    /// Of other data: whether it has targets, and where its samples come from.
    pub(super) other: Option<(bool, Sources)>,
    pub(super) model: PlannedModel,
    pub(super) plan: TrainingPlan,
    pub(super) device: Device,
    pub(super) rejected: Vec<Problem>,
}

impl CheckpointPlan {
    /// Reads and checks everything.
    pub(super) fn make(request: &CheckpointRequest, choice: &DataChoice) -> Result<Self, Problems> {
        let located = Located::find(&request.path, request.checkpoint.as_deref())?;
        let in_use = InUse::of(&located.path).map_err(|error| Problem::from(&error))?;
        let checkpoint = Checkpoint::open(&located.path).map_err(|error| Problem::from(&error))?;
        let resume = Resume::read_model(&checkpoint).map_err(|error| Problem::from(&error))?;
        let text = without_callbacks(resume.run_file(), &located.path)?;
        let name = located.path.join("run.toml").display().to_string();
        let run_file::Loaded { mut run_file, document } =
            run_file::load(&name, &text, &request.appended, &request.overrides)?;
        let description = description(&checkpoint, &located)?;
        // The files of the model may have moved since.
        for (file, path) in run_file.model.files_mut() {
            if let Some(own) = checkpoint.model_file(file.saved_name()) {
                *path = own;
            }
        }

        let locking = &request.locking;
        let lock = locking.locked.then(|| lock::path(locking.lock.as_deref(), None));
        let isolated = isolation::of(&run_file, &[]);
        let mut catalogue = isolation::catalogue(&request.plugins, lock.as_deref(), &isolated, &run_file.plugins)?;
        let python = Python::new(run_file.run.python.clone());
        python::open(&mut catalogue, &python, &document, &run_file.plugins, &located.path)?;
        let rejected: Vec<Problem> =
            catalogue.rejected().iter().map(|rejected| Problem::from(&rejected.error)).collect();
        let order =
            dispatch::order(&document, &run_file.plugins, false, &catalogue, &isolated).map_err(|mut found| {
                found.extend(rejected.iter().cloned());
                Problems(found)
            })?;
        run_file.plugins = order.planned.iter().map(|planned| planned.options.clone()).collect();

        // Of the built-in run the data lies beside the run file.
        let base = located.run_folder.clone().unwrap_or_else(|| located.path.clone());
        let (data, other) = read_data(&run_file, &document, &description, &base, choice, &resume)?;
        let device = plan::device(run_file.run.device, &document)?;
        let model = model::plan(None, &run_file.model.files(), &run_file, &document, &data, device)?;
        let fitted = Fitted { model: &model, target: &data.target, positive: data.positive };
        let loss = learning::loss(&document, &run_file.train, None)?;
        let mut problems = learning::check(&document, &run_file.train, Some(fitted));
        let metrics =
            learning::metrics(&document, "/train/metrics", &run_file.train.metrics, Some(fitted), &mut problems);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let plan = TrainingPlan {
            // Nothing is trained.
            length: train::Length::Steps(resume.position().global_step.max(1)),
            start_epoch: 1,
            batches: Batches {
                size: run_file.train.batch_size,
                accumulate: run_file.train.accumulate,
                order: data::Order::Sequential,
                drop_last: false,
            },
            loss,
            metrics,
            schedule: run_file.train.schedule(),
            clip_gradient_norm: None,
            precision: run_file.train.precision,
            seed: run_file.run.seed,
            freeze: ModelOptions::default().frozen_first(),
            evaluation: None,
            evaluate_every: Every::EPOCH,
            test: None,
            known: Default::default(),
            trial: false,
        };
        Ok(Self {
            located,
            checkpoint,
            _in_use: in_use,
            resume,
            run_file,
            document,
            order,
            description,
            data,
            other,
            model,
            plan,
            device,
            rejected: catalogue.warnings(),
        })
    }

    /// The evaluation of `split`: the metrics of `[eval]`, or those of the training without it.
    pub(super) fn evaluation(&self, split: Option<&str>) -> Result<EvaluationPlan, Problems> {
        let own = self.run_file.eval.clone();
        let eval = own.unwrap_or_else(|| EvalOptions::with_metrics(self.run_file.train.metrics.clone()));
        let split = split.map_or(eval.split.clone(), str::to_owned);
        let eval = EvalOptions { split, ..eval };
        let fitted = Fitted { model: &self.model, target: &self.data.target, positive: self.data.positive };
        let mut problems = Vec::new();
        let plan = evaluation(
            &self.document,
            &eval,
            Some(&self.data),
            Some(fitted),
            self.run_file.train.loss.as_ref(),
            &mut problems,
        );
        match plan {
            Some(plan) if problems.is_empty() => Ok(plan),
            _ => Err(Problems(problems)),
        }
    }

    /// Samples of a batch.
    pub(super) fn batch_size(&self) -> usize {
        self.run_file.eval.as_ref().map_or(self.run_file.train.batch_size, |eval| eval.batch_size)
    }
}

/// The run file without its callbacks and without its folder: a job takes those that its command names.
fn without_callbacks(text: &str, checkpoint: &Path) -> Result<String, Problems> {
    let unreadable = |error: &(dyn std::error::Error + 'static)| {
        Problem::new(format!("cannot read the run file of the checkpoint `{}`", checkpoint.display())).with_cause(error)
    };
    let mut table: toml::Table = text.parse().map_err(|error| unreadable(&error))?;
    table.remove("plugins");
    table.remove("distributed");
    if let Some(run) = table.get_mut("run").and_then(toml::Value::as_table_mut) {
        run.remove("out");
        run.insert("by_default".to_owned(), false.into());
    }
    Ok(toml::to_string(&table).map_err(|error| unreadable(&error))?)
}

/// What the model was trained on.
fn description(checkpoint: &Checkpoint, located: &Located) -> Result<DataDescription, Problems> {
    let text = checkpoint.data().map_err(|error| Problem::from(&error))?;
    let text = text.ok_or_else(|| {
        Problem::new(format!("the checkpoint `{}` does not say what it was trained on", located.path.display()))
            .with_hint("an older version wrote it: go on with the run for an epoch, and use that checkpoint".to_owned())
    })?;
    DataDescription::parse(&text).map_err(|error| {
        Problem::new(format!("cannot read what the checkpoint `{}` was trained on", located.path.display()))
            .with_cause(&error)
            .into()
    })
}

type ReadData = (Data, Option<(bool, Sources)>);

fn read_data(
    run_file: &RunFile,
    document: &Document,
    description: &DataDescription,
    base: &Path,
    choice: &DataChoice,
    resume: &Resume,
) -> Result<ReadData, Problems> {
    let described = || Data::described(description).about(&run_file.data);
    let wrong = |error: data::DataError| plan::data_problem(document, &error);
    match choice {
        DataChoice::None => Ok((described().map_err(wrong)?, None)),
        DataChoice::Other(path, wanted) => {
            // The file that the command names is at fault, not a place in the run file, nor an option of it.
            let hint =
                |error: &data::DataError| error.hint().filter(|hint| !hint.contains("`[data]`")).map(Cow::into_owned);
            let other = OtherData::read(&run_file.data, description, path, *wanted)
                .map_err(|error| Problem::new(error.to_string()).with_hint(hint(&error)));
            let OtherData { data, has_targets, sources } = other?;
            Ok((data.about(&run_file.data).map_err(wrong)?, Some((has_targets, sources))))
        }
        DataChoice::Own | DataChoice::OwnIfPresent => {
            let own = own_data(run_file, document, base, resume);
            match own {
                Ok(data) => Ok((data, None)),
                Err(problem) if matches!(choice, DataChoice::OwnIfPresent) => {
                    let mut data = described().map_err(wrong)?;
                    data.notes.push(format!("the run's data is left out: {}", problem.message()));
                    Ok((data, None))
                }
                Err(problem) => Err(problem.into()),
            }
        }
    }
}

/// The run's data, if it is still what the run was trained on.
fn own_data(run_file: &RunFile, document: &Document, base: &Path, resume: &Resume) -> Result<Data, Problem> {
    let data = Data::load(&run_file.data, data::Source::Folder(base), run_file.run.seed)
        .map_err(|error| plan::data_problem(document, &error))?;
    let now = data.fingerprint().map_err(|error| Problem::new(error.to_string()))?;
    match resume.data_fingerprint() {
        Some(then) if then != now => Err(Problem::new(
            "the run's data has changed since the checkpoint: other rows, another order, or other values",
        )
        .with_hint("give the data to work on: `--data PATH`".to_owned())),
        _ => Ok(data),
    }
}

/// What is told about the checkpoint and the data.
pub(super) fn announce(plan: &CheckpointPlan, console: &crate::console::Console) {
    use crate::services::Screen as _;
    let position = plan.resume.position();
    console.line(&format!(
        "checkpoint `{}` of run `{}`: epoch {}, step {}",
        plan.located.path.display(),
        plan.run_file.run.name,
        position.epoch,
        position.global_step
    ));
    if let Some(earlier) = plan.checkpoint.earlier_weights() {
        console.line(&format!("its weights are those of epoch {}, which were restored", earlier.position.epoch));
    }
    for note in &plan.data.notes {
        console.line(&format!("data: {note}"));
    }
}

/// The network with the checkpoint's weights is made in the session.
pub(super) fn run_file_text(plan: &CheckpointPlan) -> Arc<str> {
    plan.resume.run_file().into()
}
