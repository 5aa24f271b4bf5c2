//! Runs a job: log, run folder, model, callbacks, training, status.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use plugin_api::event::Outcome;
use plugin_api::protocol::RunInfo;
use sha2::{Digest, Sha256};

use super::builtin;
use super::changes;
use super::folder::RunFolder;
use super::interrupt;
use super::log::{Log, Verbosity};
use super::messages;
use super::plan::JobPlan;
use super::previous::{self, CRASH_FILE};
use super::program::Program;
use super::request::Request;
use super::start::Start;
use super::status::{StatusFile, StatusOutputs};
use super::warnings;
use crate::checkpoint::Checkpoint;
use crate::console::Console;
use crate::data::DataDescription;
use crate::dispatch::{Dispatcher, Failure, HookTime, OnError, Order, ScheduleState};
use crate::distributed::SingleProcess;
use crate::model::InitialWeights;
use crate::report::{Problem, Problems};
use crate::services::Screen;
use crate::torch;
use crate::train::optimizer::Optimizer;
use crate::train::{Ended, Fingerprints, NotFinite, Parts, Resume, Session, TrainError, Trainer};

/// How a job that started ended.
#[derive(Debug)]
pub struct JobOutcome {
    /// Its outcome.
    pub outcome: Outcome,
    /// The run folder.
    pub folder: PathBuf,
    /// The content of `status.json`.
    pub status: serde_json::Value,
}

/// Trains what `request` asks for with what the program brings itself; see [`Job::run`](super::Job::run).
pub(super) fn run(request: &Request, program: Program, verbosity: Verbosity) -> Result<JobOutcome, Problems> {
    let console = Arc::new(Console::new(verbosity == Verbosity::Quiet));
    let log = Log::start(&console, verbosity);
    let mut plan = JobPlan::with(request, program)?;
    for problem in &plan.rejected {
        messages::warn(&console, problem);
    }
    for warning in &plan.order.warnings {
        tracing::warn!("{warning}");
    }
    let trial_folder;
    let start = if request.trial {
        trial_folder = tempfile::tempdir().map_err(|error| system("make a folder for the trial", &error))?;
        RunFolder::take(trial_folder.path(), false).map(Start::fresh).map_err(|error| Problem::from(&error).into())
    } else {
        Start::find(request, &plan.run_file.run, &console)
    };
    let Start { folder, resume_from, sudden_end } = start?;
    #[cfg(unix)]
    crate::dispatch::watch_crashes(&folder.path().join(CRASH_FILE));
    log.open(folder.path()).map_err(|error| system("open `log.jsonl` in the run folder", &error))?;
    let resume = match resume_from {
        None => None,
        Some(path) => {
            let checkpoint = Checkpoint::open(&path).map_err(|error| Problem::from(&error))?;
            Some(Resume::read(&checkpoint).map_err(|error| Problem::from(&error))?)
        }
    };
    let fingerprints = Fingerprints {
        data: plan.data.fingerprint().map_err(|error| Problem::new(error.to_string()))?,
        torchscript: plan.run_file.model.torchscript.as_deref().map(digest).transpose()?,
    };
    let changes = match &resume {
        Some(resume) => changes::check(resume, &plan.run_file, &fingerprints)?,
        None => Vec::new(),
    };
    let resolved = plan.run_file.resolved_toml().map_err(|error| system("write the resolved run file", &error))?;
    let status =
        Rc::new(StatusFile::new(folder.path().join("status.json"), &plan.run_file.run.name, Arc::clone(&console)));
    messages::announce(&console, &plan, &folder, resume.as_ref());
    for change in changes {
        console.line(&format!("since the checkpoint: {change}"));
    }
    let mut warnings: Vec<Problem> = sudden_end.iter().map(|end| previous::warning(end)).collect();
    if let Some(warning) = warnings::weights_are_lost(&plan.order)
        && !request.trial
    {
        messages::warn(&console, &warning);
        warnings.push(warning);
    }
    let kept =
        resume.as_ref().map_or_else(Default::default, |resume| (resume.plugins().clone(), resume.schedules().clone()));
    let order = plan.order.clone();
    let initial_weights = match &resume {
        Some(_) => None,
        None => std::mem::replace(&mut plan.initial_weights, Ok(None))?,
    };
    if let Some(weights) = &initial_weights {
        console.line(&weights.report());
    }
    let data_text: Arc<str> = DataDescription::new(&plan.data)
        .text()
        .map_err(|error| system("write the description of the data", &error))?
        .into();
    // A checkpoint that does not fit is refused here, before anything in its folder is overwritten.
    let origin = Origin {
        sudden_end,
        initial_weights,
        resume,
        fingerprints,
        data_text: Arc::clone(&data_text),
        run_file: resolved.as_str().into(),
    };
    let session = session(plan, origin, &folder, Rc::clone(&status), &console, request.trial)
        .map_err(|error| Problem::from(&error))?;
    // The file that was given stays as its author wrote it.
    if !request.run_file.as_ref().is_some_and(|given| is_same_file(given, &folder.path().join("run.toml"))) {
        folder.write("run.toml", resolved.as_bytes()).map_err(|error| Problem::from(&error))?;
    }
    folder.write("data.json", data_text.as_bytes()).map_err(|error| Problem::from(&error))?;
    if request.run_file.is_none() {
        // Beside the resolved run file, which names it and must itself be runnable.
        folder.write(builtin::DATA_FILE, builtin::DATA).map_err(|error| Problem::from(&error))?;
    }
    status.write();

    let ended = train(session, order, &kept, &status, request.trial);
    #[cfg(unix)]
    crate::dispatch::forget_crash_file();
    console.clear();
    let (outcome, reason) = (ended.ended.outcome, ended.ended.reason.clone());
    let error = ended.ended.error.as_ref().map(|error| {
        let problem = Problem::from(error);
        messages::fail(&console, &problem);
        std::iter::once(problem.message().to_owned())
            .chain(problem.causes().iter().cloned())
            .collect::<Vec<_>>()
            .join(": ")
    });
    // The log leaves the first of these to the end of the run; here the run had already ended for another reason.
    let stopping = ended.failures.iter().find(|failure| failure.on_error == OnError::Stop);
    if let (Some(failure), Some(error)) = (stopping, &ended.ended.error)
        && failure.to_string() != error.to_string()
    {
        messages::fail(&console, &Problem::from(failure));
    }
    warnings.extend(warnings::losses(&ended.not_finite));
    status.warn(&warnings);
    status.end(outcome, &reason, error, &ended.failures, &ended.times);
    messages::conclude(&console, &status.status(), &folder, &ended, &warnings, request.trial);
    let status = serde_json::to_value(status.status()).map_err(|error| system("write the status", &error))?;
    Ok(JobOutcome { outcome, folder: folder.path().to_owned(), status })
}

/// A training that ended, and what its callbacks cost.
pub(super) struct EndedJob {
    pub(super) ended: Ended,
    failures: Vec<Failure>,
    not_finite: Vec<NotFinite>,
    /// The costliest first.
    pub(super) times: Vec<HookTime>,
    pub(super) seconds: f64,
}

/// What callbacks and schedules saved in the checkpoint that a run resumes from.
type Kept = (BTreeMap<String, Vec<u8>>, BTreeMap<String, ScheduleState>);

fn train(session: Session, order: Order, kept: &Kept, status: &StatusFile, trial: bool) -> EndedJob {
    let began = std::time::Instant::now();
    let (dispatcher, created) = Dispatcher::create(order);
    let mut trainer = Trainer { session, dispatcher };
    let ready = created.map_err(TrainError::from).and_then(|()| trainer.set_up(&kept.0, &kept.1));
    let ended = match ready {
        Ok(()) if trial => trainer.run_trial(),
        Ok(()) => trainer.run(),
        Err(error) => failed(error),
    };
    let ended = trainer.tear_down(ended);
    status.take_position(&trainer.session);
    let waited = trainer.session.waited_for_data();
    tracing::info!(seconds = waited.as_secs_f64(), "the loop waited for data");
    let not_finite = trainer.session.losses_not_finite();
    let dispatcher = &trainer.dispatcher;
    let (failures, times) = (dispatcher.failures().to_vec(), dispatcher.times());
    EndedJob { ended, failures, not_finite, times, seconds: began.elapsed().as_secs_f64() }
}

fn failed(error: TrainError) -> Ended {
    Ended { outcome: Outcome::Failed, reason: error.to_string(), error: Some(error) }
}

/// Where a training comes from; its checkpoints hold the texts.
struct Origin {
    /// How the last process of the run ended, if it did not end by itself.
    sudden_end: Option<String>,
    initial_weights: Option<InitialWeights>,
    resume: Option<Resume>,
    fingerprints: Fingerprints,
    /// The description of the data, as JSON.
    data_text: Arc<str>,
    /// The resolved run file.
    run_file: Arc<str>,
}

fn session(
    plan: JobPlan,
    origin: Origin,
    folder: &RunFolder,
    status: Rc<StatusFile>,
    console: &Arc<Console>,
    trial: bool,
) -> Result<Session, TrainError> {
    let interrupt = interrupt::watch(console)
        .map_err(|source| TrainError::System { action: "cannot watch for signals", source })?;
    let Origin { sudden_end, initial_weights, resume, fingerprints, data_text, run_file } = origin;
    let threads = resume.as_ref().map_or(plan.threads, Resume::threads);
    tch::set_num_threads(threads as i32);
    torch::keep_freed_memory();
    torch::set_deterministic_algorithms(matches!(plan.device, tch::Device::Cpu))?;
    torch::manual_seed(plan.plan.seed);
    let mut network = plan.model.into_network(plan.plan.seed, plan.device)?;
    if let Some(weights) = initial_weights {
        weights.write_into(&mut network)?;
    }
    let optimizer = Optimizer::new(&plan.run_file.train.optimizer, network.parameters())?;
    let info = RunInfo {
        name: plan.run_file.run.name.clone(),
        folder: folder.path().display().to_string(),
        run_file: serde_json::to_string(&plan.run_file).unwrap_or_default(),
        host_version: env!("CARGO_PKG_VERSION").to_owned(),
        device: match plan.device {
            tch::Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        },
        resumed_from: resume.as_ref().map(|resume| resume.path().display().to_string()),
        previous_end: sudden_end,
        trial,
        ..RunInfo::default()
    };
    let mut session = Session::new(Parts {
        plan: plan.plan,
        network,
        optimizer,
        data: plan.data,
        fingerprints,
        data_text,
        info,
        outputs: Box::new(StatusOutputs(status)),
        interrupt,
        group: Box::new(SingleProcess),
        run_file,
        resume,
    })?;
    if let Some(step) = plan.batch_step {
        session.set_batch_step(step);
    }
    Ok(session)
}

fn is_same_file(first: &Path, second: &Path) -> bool {
    matches!((first.canonicalize(), second.canonicalize()), (Ok(first), Ok(second)) if first == second)
}

/// The digest of a file.
fn digest(path: &Path) -> Result<String, Problem> {
    let bytes = std::fs::read(path).map_err(|error| system(&format!("read `{}`", path.display()), &error))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn system(action: &str, error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::new(format!("cannot {action}")).with_cause(error)
}
