//! Runs a job: log, run folder, model, callbacks, training, status.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host_command::runs::folder::{CONSOLE_FILE, RunFolder};
use host_command::runs::{self, CRASH_FILE};
use plugin_api::event::Outcome;
use plugin_api::protocol::RunInfo;
use sha2::{Digest, Sha256};

use super::builtin;
use super::changes;
use super::events::Events;
use super::handle::Link;
use super::interrupt;
use super::log::{Log, Verbosity};
use super::messages::{self, Reporter};
use super::plan::JobPlan;
use super::program::Program;
use super::ranks;
use super::request::Request;
use super::start::Start;
use super::status::{RunError, RunStatus, StatusOutputs};
use super::torchelastic;
use super::warnings;
use crate::checkpoint::{self, Checkpoint};
use crate::config::Every;
use crate::console::Console;
use crate::data::DataDescription;
use crate::dispatch::{
    Dispatcher, Exit, Failure, HookLimits, HookTime, OnError, OnHang, Order, SavedState, ScheduleState,
};
use crate::distributed::{DistributedError, ProcessGroup};
use crate::model::{InitialWeights, ModelFile};
use crate::report::{Problem, Problems};
use crate::services::Screen;

use crate::torch::{self, buckets::BucketSizes, products::Products};
use crate::train::kernels::{Kernels, Resumed};
use crate::train::optimizer::Optimizer;
use crate::train::{
    Ended, Fingerprints, NotFinite, Parts, Precision, Purpose, Requests, Resume, Session, TrainError, Trainer,
};

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
pub(super) fn run(
    request: &Request,
    program: Program,
    verbosity: Verbosity,
    events: Events,
    link: &Link,
) -> Result<JobOutcome, Problems> {
    let console = Arc::new(Console::new(verbosity == Verbosity::Quiet));
    let log = Log::start(&console, events, verbosity);
    let reporter = Reporter { console: Arc::clone(&console), events };
    let mut plan = JobPlan::with(request, program)?;
    let group = ranks::join(request.launch.as_ref(), &plan.run_file.distributed)?;
    ranks::choose(&mut plan.order, &group);
    let rank_end = group.rank_end();
    let outcome = run_joined(request, plan, group, &Shown { console, log, reporter }, link);
    // The other ranks are told why this one ends.
    match &outcome {
        Ok(job) if job.outcome == Outcome::Failed => {
            rank_end.fail(job.status["reason"].as_str().unwrap_or_default());
        }
        Ok(_) => rank_end.leave(),
        Err(Problems(problems)) => rank_end.fail(problems.first().map_or("refused", Problem::message)),
    }
    outcome
}

/// How a job shows what it does.
struct Shown {
    console: Arc<Console>,
    log: Log,
    reporter: Reporter,
}

/// The same, with the other processes of the run joined.
fn run_joined(
    request: &Request,
    mut plan: JobPlan,
    group: ProcessGroup,
    shown: &Shown,
    link: &Link,
) -> Result<JobOutcome, Problems> {
    let Shown { console, log, reporter } = shown;
    let events = reporter.events;
    for problem in &plan.rejected {
        reporter.warn(problem);
    }
    for warning in &plan.order.warnings {
        tracing::warn!("{warning}");
    }
    let trial_folder;
    let start = if request.trial {
        trial_folder = tempfile::tempdir().map_err(|error| system("make a folder for the trial", &error))?;
        let taken = RunFolder::take(trial_folder.path(), false).map(Start::fresh);
        taken.map_err(|error| Problem::from(&error).into())
    } else {
        ranks::start(&group, || Start::find(request, &plan.run_file.run, reporter))
    };
    let Start { folder, resume_from, sudden_end } = start?;
    #[cfg(unix)]
    crate::dispatch::watch_crashes(&folder.path().join(CRASH_FILE));
    log.open(folder.path()).map_err(|error| system("open `log.jsonl` in the run folder", &error))?;
    if !request.trial {
        console.keep_in(&folder.path().join(CONSOLE_FILE));
    }
    let resume = match resume_from {
        None => None,
        Some(path) => {
            let checkpoint = Checkpoint::open(&path).map_err(|error| Problem::from(&error))?;
            if checkpoint::is_misnamed(&checkpoint) {
                let position = checkpoint.position();
                let message = format!(
                    "the checkpoint `{}` is of epoch {} and step {}, which its name does not say: it was renamed or copied",
                    path.display(),
                    position.epoch,
                    position.global_step
                );
                reporter.warn(&Problem::new(message));
            }
            Some(Resume::read(&checkpoint).map_err(|error| Problem::from(&error))?)
        }
    };
    let Resumed { kernels, warning } = Kernels::new(plan.products).of_run(resume.as_ref());
    let is_on_cpu = matches!(plan.device, tch::Device::Cpu);
    if let Some(warning) = warning.filter(|_| is_on_cpu) {
        reporter.warn(&Problem::new(warning));
    }
    let model_files = plan.model_files.iter().map(|(file, path)| Ok((*file, read(path)?)));
    let model_files = model_files.collect::<Result<Vec<_>, Problem>>()?;
    let fingerprints = Fingerprints {
        data: plan.data.fingerprint().map_err(|error| Problem::new(error.to_string()))?,
        module: digest(&model_files),
    };
    let changes = match &resume {
        Some(resume) => changes::check(resume, &plan.run_file, &fingerprints, &request.accepted)?,
        None => Vec::new(),
    };
    let resolved = plan.run_file.resolved_toml().map_err(|error| system("write the resolved run file", &error))?;
    let name = &plan.run_file.run.name;
    let mut status = RunStatus::new(&folder, name, Arc::clone(console), events, link.requests.clone());
    if !group.is_single() {
        status.is_of_rank(group.rank(), group.world_size());
    }
    let status = Arc::new(status);
    link.show(Arc::clone(&status) as _);
    events.start(folder.path(), name, resume.as_ref().map(Resume::path));
    messages::announce(console, &plan, &folder, resume.as_ref(), kernels.products);
    if let Some(launch) = &request.launch {
        console.line(&ranks::description(launch));
    }
    if let Some(resume) = resume.as_ref().filter(|resume| resume.world_size() != group.world_size()) {
        let (then, now) = (resume.world_size(), group.world_size());
        let message = format!(
            "the checkpoint is of {then} {} and the run has {now}: sums are rounded in another order, and dropout draws others",
            if then == 1 { "process" } else { "ranks" }
        );
        reporter.warn(&Problem::new(message));
    }
    for ((_, read), (_, own)) in plan.model_files.iter().zip(plan.run_file.model.files()) {
        if read != own {
            console.line(&format!("model: `{}` is not there, and the checkpoint's copy of it is used", own.display()));
        }
    }
    for change in changes {
        console.line(&format!("since the checkpoint: {change}"));
    }
    let mut warnings: Vec<Problem> = sudden_end.iter().map(|end| warnings::sudden_end(end)).collect();
    if let Some(warning) = warnings::weights_are_lost(&plan.order)
        && !request.trial
        && group.rank() == 0
    {
        reporter.warn(&warning);
        warnings.push(warning);
    }
    let kept =
        resume.as_ref().map_or_else(Default::default, |resume| (resume.plugins().clone(), resume.schedules().clone()));
    let order = plan.order.clone();
    let time = |every: Every| if let Every::Time(time) = every { Some(time) } else { None };
    let limits = HookLimits {
        warning: time(plan.run_file.run.hook_warning),
        timeout: plan.run_file.run.hook_timeout.and_then(time),
    };
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
        products: kernels.products,
        fingerprints,
        data_text: Arc::clone(&data_text),
        run_file: resolved.as_str().into(),
        model_files,
        group,
    };
    let outputs = Outputs { folder: folder.path(), status: &status, console, requests: &link.requests };
    let session = session(plan, origin, &outputs, request.trial).map_err(|error| Problem::from(&error))?;
    // The file that was given stays as its author wrote it.
    if !request.run_file.as_ref().is_some_and(|given| is_same_file(given, &folder.path().join("run.toml"))) {
        folder.write("run.toml", resolved.as_bytes()).map_err(|error| Problem::from(&error))?;
    }
    folder.write("model.json", data_text.as_bytes()).map_err(|error| Problem::from(&error))?;
    if request.run_file.is_none() {
        // Beside the resolved run file, which names it and must itself be runnable.
        folder.write(builtin::DATA_FILE, builtin::DATA).map_err(|error| Problem::from(&error))?;
    }
    status.write_now();
    // Nothing refuses the run any more, and its report tells how the last process ended.
    runs::forget(folder.path());

    let follower = status.follow(&session).map_err(|error| system("start the thread of the status", &error))?;

    // Nothing from here to the end of the training returns early, which would be told as an exit.
    crate::dispatch::watch_exits(on_exit(&status, reporter));
    let hooks = Hooks { order, limits, on_hang: on_hang(&status, reporter) };
    let ended = train(session, hooks, &kept, &status, request.trial);
    crate::dispatch::forget_exits();
    #[cfg(unix)]
    {
        crate::dispatch::forget_crash_file();
        crate::console::settle_what_is_printed();
    }
    console.clear();
    let (outcome, reason) = (ended.ended.outcome, ended.ended.reason.clone());
    if let Some(TrainError::Distributed(error)) = &ended.ended.error
        && error.is_of_another()
    {
        torchelastic::let_the_culprit_be_first();
    }
    let error = ended.ended.error.as_ref().map(|error| {
        let problem = Problem::from(error);
        reporter.fail(&problem);
        let chain = std::iter::once(problem.message()).chain(problem.causes().iter().map(String::as_str));
        let message = chain.collect::<Vec<_>>().join(": ");
        torchelastic::tell(&message, error.kind(), &problem.hints().join("; "));
        RunError { kind: error.kind(), message }
    });
    // The log leaves the first of these to the end of the run; here the run had already ended for another reason.
    let stopping = ended.failures.iter().find(|failure| failure.on_error == OnError::Stop);
    if let (Some(failure), Some(error)) = (stopping, &ended.ended.error)
        && failure.to_string() != error.to_string()
    {
        reporter.fail(&Problem::from(failure));
    }
    for warning in warnings::losses(&ended.not_finite) {
        events.warning(&warning);
        warnings.push(warning);
    }
    status.warn(&warnings);
    status.end(outcome, &reason, error, &ended.failures, &ended.times);
    drop(follower);
    messages::conclude(console, &status.status(), &folder, &ended, &warnings, request.trial);
    let status = status.status();
    events.end(&status);
    let status = serde_json::to_value(status).map_err(|error| system("write the status", &error))?;
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
type Kept = (BTreeMap<String, SavedState>, BTreeMap<String, ScheduleState>);

/// The callbacks of a run, and how long their hooks may take.
struct Hooks {
    order: Order,
    limits: HookLimits,
    on_hang: Box<OnHang>,
}

/// Ends the process because of a hook that holds up the loop: nobody can wait for its end.
fn on_hang(status: &Arc<RunStatus>, reporter: &Reporter) -> Box<OnHang> {
    let (status, reporter) = (Arc::clone(status), reporter.clone());
    Box::new(move |plugin, hook, taken| {
        let message = format!("plugin `{plugin}` did not return from `{hook}` within {taken}");
        reporter.console.clear();
        let problem = Problem::new(message.clone())
            .with_hint("`hook_timeout` in `[run]` says how long a hook may take".to_owned());
        reporter.fail(&problem);
        torchelastic::tell(&message, "plugin", "");
        let error = RunError { kind: "plugin", message: message.clone() };
        status.end(Outcome::Failed, &message, Some(error), &[], &[]);
        reporter.events.end(&status.status());
        end_process();
    })
}

/// Tells of a plugin that ends the process: the run has failed, whatever code it gave.
fn on_exit(status: &Arc<RunStatus>, reporter: &Reporter) -> impl FnOnce(Exit) + Send + 'static {
    let (status, reporter) = (Arc::clone(status), reporter.clone());
    move |Exit { hook, code }| {
        let who = match hook {
            Some((plugin, hook)) => format!("plugin `{plugin}` ended the process in `{hook}`"),
            None => "something ended the process outside of any hook".to_owned(),
        };
        let with = code.map_or_else(String::new, |code| format!(", with the exit code {code}"));
        let message = format!("{who}{with}");
        reporter.console.clear();
        let hint = "a plugin must not call `exit`: it stops a run with `run.stop(…)`, or returns an error".to_owned();
        reporter.fail(&Problem::new(message.clone()).with_hint(hint));
        #[cfg(unix)]
        crate::console::settle_what_is_printed();
        torchelastic::tell(&message, "plugin", "");
        let error = RunError { kind: "plugin", message: message.clone() };
        status.end(Outcome::Failed, &message, Some(error), &[], &[]);
        reporter.events.end(&status.status());
    }
}

/// Ends the process at once: what runs at an ordinary exit could wait for the thread that does not return.
fn end_process() -> ! {
    #[cfg(unix)]
    // SAFETY: it does not return, and nothing of this process is used after it.
    unsafe {
        libc::_exit(1)
    }
    #[cfg(not(unix))]
    std::process::exit(1)
}

fn train(session: Session, hooks: Hooks, kept: &Kept, status: &RunStatus, trial: bool) -> EndedJob {
    let began = std::time::Instant::now();
    let Hooks { order, limits, on_hang } = hooks;
    let (mut dispatcher, created) = Dispatcher::create(order);
    if let Err(error) = dispatcher.watch(limits, on_hang) {
        tracing::warn!(%error, "nobody watches how long hooks take");
    }
    let mut trainer = Trainer { session, dispatcher };
    let ready = created.map_err(TrainError::from).and_then(|()| trainer.set_up(&kept.0, &kept.1));
    let ended = match ready {
        Ok(()) if trial => trainer.run_trial(),
        Ok(()) => trainer.run(),
        Err(error) => failed(error),
    };
    let ended = trainer.tear_down(ended);
    status.take_measured(&trainer.session);
    if ended.error.is_some() {
        trainer.session.abandon_ranks();
    }
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
    products: Products,
    fingerprints: Fingerprints,
    /// The description of the data, as JSON.
    data_text: Arc<str>,
    /// The resolved run file.
    run_file: Arc<str>,
    /// The files of a model that is not made of layers.
    model_files: Vec<(ModelFile, Arc<[u8]>)>,
    /// The processes of the run.
    group: ProcessGroup,
}

/// Where a training's results go, and who asks something of it.
struct Outputs<'a> {
    folder: &'a Path,
    status: &'a Arc<RunStatus>,
    console: &'a Arc<Console>,
    requests: &'a Requests,
}

fn session(plan: JobPlan, origin: Origin, outputs: &Outputs<'_>, trial: bool) -> Result<Session, TrainError> {
    let Outputs { folder, status, console, requests } = *outputs;
    let interrupt = interrupt::watch(console, plan.run_file.run.checkpoint_signal, requests)
        .map_err(|source| TrainError::System { action: "cannot watch for signals", source })?;
    let Origin { sudden_end, initial_weights, resume, products, fingerprints, data_text, run_file, model_files, group } =
        origin;
    let threads = resume.as_ref().map_or(plan.threads, Resume::threads);
    let program_state = resume.as_ref().and_then(Resume::program_state);
    tch::set_num_threads(threads as i32);
    torch::keep_freed_memory();
    torch::set_deterministic_algorithms(matches!(plan.device, tch::Device::Cpu))?;
    torch::set_tf32(plan.plan.precision == Precision::Tf32)?;
    torch::manual_seed(plan.plan.seed);
    let mut network = plan.model.into_network(plan.plan.seed, plan.device)?;
    if let Some(weights) = initial_weights {
        weights.write_into(&mut network).map_err(Box::new)?;
    }
    let options = &plan.run_file.distributed;
    if let Some(statistics) = group.statistics().filter(|_| options.sync_batch_norm)
        && !network.synchronize(statistics)
    {
        return Err(DistributedError::Statistics.into());
    }
    if group.rank() > 0 {
        // Each rank draws numbers of its own; the initial weights are those of rank zero.
        torch::manual_seed(plan.plan.seed.wrapping_add(group.rank() as u64));
    }
    let optimizer = Optimizer::new(&plan.run_file.train.optimizer, &network.trained())?;
    let info = RunInfo {
        name: plan.run_file.run.name.clone(),
        folder: folder.display().to_string(),
        run_file: serde_json::to_string(&plan.run_file).unwrap_or_default(),
        host_version: env!("CARGO_PKG_VERSION").to_owned(),
        device: torch::device_name(plan.device),
        resumed_from: resume.as_ref().map(|resume| resume.path().display().to_string()),
        previous_end: sudden_end,
        job: "train".to_owned(),
        trial,
        rank: group.rank() as u64,
        world_size: group.world_size() as u64,
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
        outputs: Box::new(StatusOutputs(Arc::clone(status))),
        interrupt,
        requests: requests.clone(),
        group,
        bucket_sizes: BucketSizes { first: options.first_bucket_bytes() as u64, other: options.bucket_bytes() as u64 },
        run_file,
        model_files,
        resume,
        purpose: Purpose::Train,
        products,
    })?;
    if let Some(step) = plan.batch_step {
        session.set_batch_step(step);
    }
    if let (Some(load), Some(state)) = (plan.load_state, program_state) {
        load(&state).map_err(|error| TrainError::Program { part: "state", message: error.to_string() })?;
    }
    if let Some(save) = plan.save_state {
        session.set_program_state(save);
    }
    Ok(session)
}

fn is_same_file(first: &Path, second: &Path) -> bool {
    matches!((first.canonicalize(), second.canonicalize()), (Ok(first), Ok(second)) if first == second)
}

fn read(path: &Path) -> Result<Arc<[u8]>, Problem> {
    let bytes = std::fs::read(path).map_err(|error| system(&format!("read `{}`", path.display()), &error))?;
    Ok(bytes.into())
}

/// The digests of the files of a model; `None` if it has none.
fn digest(files: &[(ModelFile, Arc<[u8]>)]) -> Option<String> {
    let digests =
        files.iter().map(|(_, bytes)| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect());
    let digests: Vec<String> = digests.collect();
    (!digests.is_empty()).then(|| digests.join(" "))
}

fn system(action: &str, error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::new(format!("cannot {action}")).with_cause(error)
}
