//! Starts the processes of a run on this machine and watches them: `host run --processes`.
//!
//! Rank 0 has the console. What the others write to stderr comes through this process, with their names before it. They all
//! end with this process, whatever ends it.

mod ended;
mod ranks;
mod relay;
mod signals;
#[cfg(test)]
mod tests;
mod watch;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::report::{Problem, Problems};
use ranks::Ranks;
use watch::Watched;

/// The exit code of a run that was refused: it would be again.
const REFUSED: u8 = 2;

/// What is started.
#[derive(Debug)]
pub(super) struct Job {
    /// The program of each rank.
    pub(super) program: PathBuf,
    /// Its arguments, without its name.
    pub(super) arguments: Vec<OsString>,
    /// How many ranks there are.
    pub(super) world_size: usize,
    /// How often all of them are started again after a failure.
    pub(super) restarts: u32,
}

/// How long ranks that should end may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// By themselves, after another one has failed: they tell which one.
    after_failure: Duration,
    /// By themselves, after rank 0 has done everything.
    after_rank_zero: Duration,
    /// After SIGTERM, before SIGKILL.
    after_sigterm: Duration,
}

const PATIENCE: Patience = Patience {
    after_failure: Duration::from_secs(10),
    after_rank_zero: Duration::from_secs(60),
    after_sigterm: Duration::from_secs(10),
};

/// What the threads of this process tell the one that watches.
enum Event {
    /// A signal came to this process.
    Signal(i32),
    /// A rank wrote a line to stderr; without its end.
    Line(usize, Vec<u8>),
    /// Nobody writes to the stderr of a rank any more.
    Closed,
}

/// Runs a job to its end; the exit code is that of the first rank that failed.
///
/// # Errors
///
/// A program that cannot be started, or a system that has no socket, signals or threads left.
pub(super) fn run(job: &Job) -> Result<ExitCode, Problems> {
    let (sender, events) = channel();
    signals::listen(sender.clone()).map_err(|error| Problem::new("cannot watch for signals").with_cause(&error))?;
    run_with(job, PATIENCE, (&sender, &events), &mut std::io::stderr()).map(ExitCode::from)
}

fn run_with(
    job: &Job,
    patience: Patience,
    (sender, events): (&Sender<Event>, &Receiver<Event>),
    shown: &mut dyn Write,
) -> Result<u8, Problems> {
    let mut restart = 0;
    loop {
        let ranks = Ranks::start(job, restart, sender)?;
        let Watched { failure, is_asked_for } = watch::watch(ranks, patience, events, shown);
        let Some(failure) = failure else { return Ok(0) };
        let code = failure.code();
        let is_again = restart < job.restarts && !is_asked_for && code != REFUSED;
        // Someone who reads nothing more does not end the run.
        if is_again {
            restart += 1;
            let (size, most) = (job.world_size, job.restarts);
            let _ = writeln!(shown, "{failure}; starting all {size} ranks again ({restart} of {most})");
            continue;
        }
        if !is_asked_for && !failure.is_told() {
            let _ = writeln!(shown, "{failure}");
        }
        return Ok(code);
    }
}
