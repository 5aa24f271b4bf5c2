//! Runs a job: run folder, log, model, callbacks, training, and the summary at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use plugin_api::event::Outcome;
use plugin_api::protocol::RunInfo;

use super::builtin;
use super::folder::{RunFolder, by_start_time, newest_unfinished};
use super::interrupt;
use super::log::{Log, Verbosity};
use super::plan::JobPlan;
use super::program::Program;
use super::request::{Request, ResumeFrom};
use super::status::{StatusFile, StatusOutputs};
use crate::checkpoint::{Checkpoint, find_latest, remove_temporaries};
use crate::console::Console;
use crate::dispatch::{Dispatcher, Failure, HookTime, Order, ScheduleState};
use crate::distributed::SingleProcess;
use crate::model::InitialWeights;
use crate::report::{Problem, Problems, Style, render};
use crate::services::Screen;
use crate::torch;
use crate::train::optimizer::Optimizer;
use crate::train::{Ended, Parts, Resume, Session, TrainError, Trainer};

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
        tell(&console, "warning", std::slice::from_ref(problem));
    }
    for warning in &plan.order.warnings {
        tracing::warn!("{warning}");
    }
    let trial_folder;
    let (folder, resume_from) = if request.trial {
        trial_folder = tempfile::tempdir().map_err(|error| system("make a folder for the trial", &error))?;
        (RunFolder::take(trial_folder.path(), false), None)
    } else {
        let (path, fresh) = folder_path(request, plan.run_file.run.out.as_deref().map(Path::new), &plan);
        let folder = RunFolder::take(&path, fresh);
        let resume_from = match (&folder, &request.resume) {
            (Ok(_), ResumeFrom::Checkpoint(path)) => Some(path.clone()),
            (Ok(folder), _) if !fresh => latest(folder, &console)?,
            _ => None,
        };
        (folder, resume_from)
    };
    let folder = folder.map_err(|error| Problem::from(&error))?;
    log.open(folder.path()).map_err(|error| system("open `log.jsonl` in the run folder", &error))?;
    let resume = match resume_from {
        None => None,
        Some(path) => {
            let checkpoint = Checkpoint::open(&path).map_err(|error| Problem::from(&error))?;
            Some(Resume::read(&checkpoint).map_err(|error| Problem::from(&error))?)
        }
    };
    let resolved = plan.run_file.resolved_toml().map_err(|error| system("write the resolved run file", &error))?;
    let status =
        Rc::new(StatusFile::new(folder.path().join("status.json"), &plan.run_file.run.name, Arc::clone(&console)));
    announce(&console, &plan, &folder, resume.as_ref());
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
    // A checkpoint that does not fit is refused here, before anything in its folder is overwritten.
    let session =
        session(plan, initial_weights, &folder, resume, resolved.as_str().into(), Rc::clone(&status), request.trial)
            .map_err(|error| Problem::from(&error))?;
    folder.write("run.toml", resolved.as_bytes()).map_err(|error| Problem::from(&error))?;
    if request.run_file.is_none() {
        // Beside the resolved run file, which names it and must itself be runnable.
        folder.write(builtin::DATA_FILE, builtin::DATA).map_err(|error| Problem::from(&error))?;
    }
    status.write();

    let ended = train(session, order, &kept, &status, request.trial);
    console.clear();
    let (outcome, reason) = (ended.ended.outcome, ended.ended.reason.clone());
    let error = ended.ended.error.as_ref().map(|error| {
        let problem = Problem::from(error);
        tell(&console, "error", std::slice::from_ref(&problem));
        std::iter::once(problem.message().to_owned())
            .chain(problem.causes().iter().cloned())
            .collect::<Vec<_>>()
            .join(": ")
    });
    status.end(outcome, &reason, error, &ended.failures, &ended.times);
    conclude(&console, &status, &folder, &ended, request.trial);
    let status = serde_json::to_value(status.status()).map_err(|error| system("write the status", &error))?;
    Ok(JobOutcome { outcome, folder: folder.path().to_owned(), status })
}

/// A training that ended, and what its callbacks cost.
struct EndedJob {
    ended: Ended,
    failures: Vec<Failure>,
    times: Vec<HookTime>,
    seconds: f64,
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
    let dispatcher = &trainer.dispatcher;
    let (failures, times) = (dispatcher.failures().to_vec(), dispatcher.times());
    EndedJob { ended, failures, times, seconds: began.elapsed().as_secs_f64() }
}

fn failed(error: TrainError) -> Ended {
    Ended { outcome: Outcome::Failed, reason: error.to_string(), error: Some(error) }
}

fn session(
    plan: JobPlan,
    initial_weights: Option<InitialWeights>,
    folder: &RunFolder,
    resume: Option<Resume>,
    resolved: Arc<str>,
    status: Rc<StatusFile>,
    trial: bool,
) -> Result<Session, TrainError> {
    let interrupt = interrupt::watch().map_err(|error| TrainError::System {
        action: "cannot watch for signals",
        source: std::io::Error::other(error),
    })?;
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
        plan: serde_json::to_string(&plan.run_file).unwrap_or_default(),
        host_version: env!("CARGO_PKG_VERSION").to_owned(),
        device: match plan.device {
            tch::Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        },
        resumed_from: resume.as_ref().map(|resume| resume.path().display().to_string()),
        trial,
        ..RunInfo::default()
    };
    let mut session = Session::new(Parts {
        plan: plan.plan,
        network,
        optimizer,
        data: plan.data,
        info,
        outputs: Box::new(StatusOutputs(status)),
        interrupt,
        group: Box::new(SingleProcess),
        run_file: resolved,
        resume,
    })?;
    if let Some(step) = plan.batch_step {
        session.set_batch_step(step);
    }
    Ok(session)
}

/// The run folder, and whether it must be new.
fn folder_path(request: &Request, out: Option<&Path>, plan: &JobPlan) -> (PathBuf, bool) {
    match (out, &request.resume) {
        (Some(out), ResumeFrom::Unsaid | ResumeFrom::Auto) => (out.to_owned(), false),
        (Some(out), ResumeFrom::Never) => (out.to_owned(), true),
        // A checkpoint of this folder continues its run; one of another folder begins a new run.
        (Some(out), ResumeFrom::Checkpoint(path)) => (out.to_owned(), !is_within(path, out)),
        (None, ResumeFrom::Auto) => match newest_unfinished(&plan.run_file.run.name) {
            Some(path) => (path, false),
            None => (by_start_time(&plan.run_file.run.name), true),
        },
        (None, _) => (by_start_time(&plan.run_file.run.name), true),
    }
}

fn is_within(path: &Path, folder: &Path) -> bool {
    matches!((path.canonicalize(), folder.canonicalize()), (Ok(path), Ok(folder)) if path.starts_with(&folder))
}

/// The newest whole checkpoint of a run folder.
fn latest(folder: &RunFolder, console: &Arc<Console>) -> Result<Option<PathBuf>, Problems> {
    let checkpoints = folder.path().join("checkpoints");
    for path in remove_temporaries(&checkpoints).map_err(|error| Problem::from(&error))? {
        tracing::info!(path = %path.display(), "removed what an interrupted write left");
    }
    let latest = find_latest(&checkpoints).map_err(|error| Problem::from(&error))?;
    for skipped in &latest.skipped {
        let path = skipped.path.display();
        let problem = Problem::new(format!("the checkpoint `{path}` is skipped")).with_cause(&skipped.error);
        tell(console, "warning", &[problem]);
    }
    Ok(latest.checkpoint.map(|checkpoint| checkpoint.path().to_owned()))
}

fn announce(console: &Arc<Console>, plan: &JobPlan, folder: &RunFolder, resume: Option<&Resume>) {
    let device = match plan.device {
        tch::Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    };
    let threads = match resume {
        Some(resume) if resume.threads() != plan.threads => format!("{} (from the checkpoint)", resume.threads()),
        _ => format!("{} ({})", plan.threads, plan.threads_reason),
    };
    let run = &plan.run_file.run;
    console.line(&format!("run `{}`: {device}, threads {threads}, seed {}", run.name, run.seed));
    let splits: Vec<String> = plan.data.splits.iter().map(|(name, split)| format!("{name} {}", split.len())).collect();
    console.line(&format!("model: {}; data: {}", plan.model.description(), splits.join(", ")));
    let names: Vec<&str> = plan.order.planned.iter().map(|planned| planned.name()).collect();
    let available = match plan.order.available.as_slice() {
        [] => String::new(),
        kinds => format!("; also available: {}", kinds.join(", ")),
    };
    console.line(&format!("callbacks, in order: {}{available}", names.join(", ")));
    if let Some(resume) = resume {
        console.line(&format!(
            "resuming after epoch {}, step {} from {}",
            resume.position().epoch,
            resume.position().global_step,
            resume.path().display()
        ));
    }
    for planned in &plan.order.planned {
        let descriptor = planned.kind.descriptor();
        tracing::info!(
            plugin = planned.name(),
            kind = descriptor.kind,
            version = descriptor.version,
            library = %planned.kind.path().display(),
            hooks = descriptor.hooks.join(" "),
            "callback"
        );
    }
    tracing::info!(folder = %folder.path().display(), "run folder");
}

fn conclude(console: &Arc<Console>, status: &StatusFile, folder: &RunFolder, ended: &EndedJob, trial: bool) {
    let status = status.status();
    let reason = match &status.reason {
        Some(reason) if ended.ended.error.is_none() => format!(" ({reason})"),
        _ => String::new(),
    };
    let steps = status.position.in_words();
    console.line(&format!("{}{reason}: {steps} in {:.1} s", ended.ended.outcome.name(), ended.seconds));
    // The loop did not wait for what ran in the background.
    let held: Vec<_> = ended.times.iter().filter(|time| !time.background).collect();
    if let Some(slowest) = held.first() {
        let all: f64 = held.iter().map(|time| time.total.as_secs_f64()).sum();
        console.line(&format!(
            "callbacks took {all:.2} s in all, most of it `{}` in `{}`: {:.2} s over {} calls",
            slowest.instance,
            slowest.hook,
            slowest.total.as_secs_f64(),
            slowest.calls
        ));
    }
    if trial {
        console.line("this was a trial: nothing is kept");
    } else {
        console.line(&format!("results: {}", folder.path().display()));
    }
}

/// Tells problems on the console.
fn tell(console: &Arc<Console>, severity: &str, problems: &[Problem]) {
    console.write(format!("{severity}: {}", render(problems, Style::of_stderr()).trim_start()).as_bytes());
}

fn system(action: &str, error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::new(format!("cannot {action}")).with_cause(error)
}
