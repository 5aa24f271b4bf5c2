//! `host run`.

use std::io::Write;
use std::process::ExitCode;

use host_command::arguments::{RunArguments, Shown};
use host_command::stdout::Stdout;
use host_command::{cannot, print_refused};
use plugin_api::event::Outcome;

use super::{openmp, streams};
use crate::author;
use crate::distributed::{Launch, launch};
use crate::job::{Job, Request, ResumeFrom, Verbosity, interrupted_exit_code, torchelastic};
use crate::report::{Problem, Problems};

/// Where what is printed in this process goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Printed {
    /// To the log: only plugins print.
    ToLog,
    /// To stdout: it belongs to the program that trains.
    ToStdout,
}

/// Trains what the arguments ask for; `complete` adds the program's own parts.
pub(super) fn run(
    arguments: RunArguments,
    printed: Printed,
    complete: impl FnOnce(Job) -> Job,
) -> Result<ExitCode, Problems> {
    if arguments.processes.is_some()
        && let Some(code) = in_several_processes(&arguments)?
    {
        return Ok(code);
    }
    openmp::start_with_short_waits();
    if printed == Printed::ToLog {
        streams::log_what_plugins_print();
    }
    let launch = launch::of_this_process();
    // Of several processes, the first one speaks for all.
    let speaks = !matches!(&launch, Ok(Some(launch)) if launch.rank > 0);
    let arguments = if speaks { arguments } else { silenced(arguments) };
    let json = arguments.json;
    let launch = launch.map_err(|error| Problem::from(&error).into());
    let trained = launch.and_then(|launch| train(arguments, launch, complete));
    if let Err(Problems(problems)) = &trained {
        let (first, hints) = problems.first().map(|first| (first.message(), first.hints().join("; "))).unzip();
        torchelastic::tell(first.unwrap_or_default(), "refused", &hints.unwrap_or_default());
    }
    match trained {
        // An event a line, whatever happens; without a stdout, people are told.
        Err(problems) if json && print_refused(&problems).is_ok() => Ok(ExitCode::from(2)),
        trained => trained,
    }
}

/// Starts this program in several processes and watches them, if the arguments ask for more than one. `host` does this before it
/// becomes the program that computes; here are programs of one's own.
fn in_several_processes(arguments: &RunArguments) -> Result<Option<ExitCode>, Problems> {
    let program = std::env::current_exe().map_err(|error| cannot("find this program", &error))?;
    match host_command::launch::run(&program, arguments) {
        Err(problems) if arguments.json && print_refused(&problems).is_ok() => Ok(Some(ExitCode::from(2))),
        started => started,
    }
}

/// The arguments of a process that shows only errors, on stderr.
fn silenced(arguments: RunArguments) -> RunArguments {
    RunArguments { json: false, shown: Shown { quiet: true, verbose: 0 }, ..arguments }
}

fn train(
    arguments: RunArguments,
    launch: Option<Launch>,
    complete: impl FnOnce(Job) -> Job,
) -> Result<ExitCode, Problems> {
    let (quiet, verbosity) = (arguments.shown.quiet, verbosity(arguments.shown));
    let is_first = launch.as_ref().is_none_or(|launch| launch.rank == 0);
    // Whoever starts a process again means the run to go on, without the folder being given.
    let started_again = launch::restarts_of_this_process() > 0;
    let mut silent = std::io::sink();
    let mut shown = std::io::stderr();
    let notes: &mut dyn Write = if quiet { &mut silent } else { &mut shown };
    let request = Request {
        run_file: arguments.run_file,
        plugins: author::find_plugins(arguments.folders, notes)?,
        locking: arguments.locking,
        appended: arguments.plugin,
        isolated: arguments.isolate,
        overrides: arguments.overrides,
        out: arguments.out,
        resume: match arguments.resume.as_deref() {
            None => ResumeFrom::Unsaid,
            Some("auto") => ResumeFrom::Auto,
            Some("never") => ResumeFrom::Never,
            Some(path) => ResumeFrom::Checkpoint(path.into()),
        },
        accepted: arguments.accept,
        trial: arguments.trial,
        started_again,
        launch,
    };
    let job = complete(Job::new(request));
    let outcome = if arguments.json { job.run_with_events(verbosity) } else { job.run(verbosity) }?;
    let shown = if arguments.json || !is_first {
        // The last event is the final status; of several processes, the first one tells the folder.
        Ok(())
    } else if arguments.trial || (!quiet && streams::stdout_is_stderr()) {
        // The console has told the run folder, or there is none.
        Ok(())
    } else {
        Stdout.write_all(format!("{}\n", outcome.folder.display()).as_bytes())
    };
    if let Err(error) = shown {
        // The run has ended; a reader that is gone does not change its outcome.
        tracing::warn!(%error, "cannot write to stdout");
    }
    Ok(match outcome.outcome {
        Outcome::Finished | Outcome::Stopped => ExitCode::SUCCESS,
        Outcome::Interrupted => ExitCode::from(interrupted_exit_code()),
        _ => ExitCode::FAILURE,
    })
}

/// How much is shown.
pub(super) fn verbosity(shown: Shown) -> Verbosity {
    match (shown.quiet, shown.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, 1) => Verbosity::Verbose,
        (false, _) => Verbosity::Debug,
    }
}
