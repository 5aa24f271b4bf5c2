//! `host run`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, Parser};
use plugin_api::event::Outcome;

use super::{openmp, streams};
use crate::author::Folders;
use crate::job::{Job, Request, ResumeFrom, Verbosity, interrupted_exit_code};
use crate::report::{Problem, Problems};

const EXAMPLES: &str = "\
Examples:
  host run                                                  the built-in digits run
  host run run.toml --plugins plugins --plugins libmine.so  a run file, a folder, a library
  host run run.toml --set train.epochs=3 --plugin early-stopping
  host run run.toml --out runs/long                         started, or resumed where it stopped
  host run run.toml --try                                   one batch through every hook

Environment:
  HOST_PLUGINS  folders of plugin libraries, or libraries, for commands without `--plugins`";

/// Trains what a run file says, with the callbacks of plugin libraries.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArguments {
    /// The run file; without one, the digits example that is built in.
    run_file: Option<PathBuf>,
    #[command(flatten)]
    folders: Folders,
    /// Adds a callback after the declared ones, unless one of that name is declared.
    #[arg(long = "plugin", value_name = "KIND[=NAME]", action = ArgAction::Append)]
    plugin: Vec<String>,
    /// Overrides a key of the run file: `train.epochs=3`, `plugins.checkpoint.options.keep_last=5`.
    #[arg(long = "set", value_name = "KEY=VALUE", action = ArgAction::Append)]
    overrides: Vec<String>,
    /// The run folder [default: runs/<run name>/<start time>].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where to resume from: the newest whole checkpoint of the run folder (`auto`; the default where the run folder is
    /// given), nowhere, or a checkpoint.
    #[arg(long, value_name = "auto|never|PATH")]
    resume: Option<String>,
    /// One training and one evaluation batch through every hook and trigger; publishes nothing.
    #[arg(long = "try")]
    trial: bool,
    /// Prints the final status as JSON to stdout, instead of the run folder; or, if nothing was started, the errors.
    #[arg(long)]
    pub(super) json: bool,
    /// Shows only errors.
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Shows what the host does; twice: everything, and each call of a hook in `log.jsonl`.
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

/// Trains what a run file says, with the callbacks of plugin libraries and with this program's own parts.
#[derive(Parser)]
#[command(version = None, after_help = super::EXIT_CODES)]
pub(super) struct ProgramArguments {
    #[command(flatten)]
    pub(super) run: RunArguments,
}

/// Trains what the arguments ask for; `complete` adds the program's own parts.
pub(super) fn run(arguments: RunArguments, complete: impl FnOnce(Job) -> Job) -> Result<ExitCode, Problems> {
    openmp::start_with_short_waits();
    let verbosity = match (arguments.quiet, arguments.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, 1) => Verbosity::Verbose,
        (false, _) => Verbosity::Debug,
    };
    let mut silent = std::io::sink();
    let mut shown = std::io::stderr();
    let notes: &mut dyn Write = if arguments.quiet { &mut silent } else { &mut shown };
    let request = Request {
        run_file: arguments.run_file,
        plugins: arguments.folders.find(notes)?,
        appended: arguments.plugin,
        overrides: arguments.overrides,
        out: arguments.out,
        resume: match arguments.resume.as_deref() {
            None => ResumeFrom::Unsaid,
            Some("auto") => ResumeFrom::Auto,
            Some("never") => ResumeFrom::Never,
            Some(path) => ResumeFrom::Checkpoint(path.into()),
        },
        trial: arguments.trial,
    };
    let outcome = complete(Job::new(request)).run(verbosity)?;
    let shown = if arguments.json {
        let text = serde_json::to_string_pretty(&outcome.status)
            .map_err(|error| Problem::new("cannot write the status as JSON").with_cause(&error))?;
        writeln!(std::io::stdout(), "{text}")
    } else if arguments.trial || (!arguments.quiet && streams::stdout_is_stderr()) {
        // The console has told the run folder, or there is none.
        Ok(())
    } else {
        writeln!(std::io::stdout(), "{}", outcome.folder.display())
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
