//! `host plugins check`: drives every kind of a library through a simulated run.
//!
//! The parent loads the library in a child process and reads which kinds it has; then it checks each kind in a child
//! of its own ([`child`]). A child announces each step before it takes it ([`progress`]), so that the parent
//! knows in which check, and in which hook, a child died. [`kind`] has the checks themselves, [`simulation`]
//! the order of events, [`services`] and [`world`] the answers to the hooks.

mod child;
mod findings;
mod kind;
mod model;
mod options;
mod progress;
mod report;
mod services;
mod simulation;
mod tensors;
mod world;

use std::io::Write;
use std::process::ExitCode;

use host_command::arguments::CheckOptions;

use super::output::cannot_write;
use crate::report::Problems;

pub(super) use child::run_kind;
pub use findings::{Finding, Verdict};

/// What a library's checks found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What built the library, and how long it took to load; empty when it was not loaded.
    pub library: String,
    /// One finding for each check of each kind, in order.
    pub findings: Vec<Finding>,
}

/// Checks a library.
///
/// # Errors
///
/// Options that cannot be read, or a child process that cannot be started. An error of the library is a
/// finding, not an error.
pub fn check(options: &CheckOptions) -> Result<Checked, Problems> {
    let given = options::given(&options.set)?;
    if options.in_process { Ok(child::check_here(options, &given)) } else { child::check_apart(options) }
}

/// Checks a library and writes the findings; the exit code is 1 when a check failed.
pub(super) fn run(options: &CheckOptions, color: bool, out: &mut dyn Write) -> Result<ExitCode, Problems> {
    let checked = check(options)?;
    if options.json {
        serde_json::to_writer_pretty(&mut *out, &checked.findings).map_err(|error| cannot_write(error.into()))?;
        writeln!(out).map_err(cannot_write)?;
    } else {
        report::write(&options.file, &checked, color, out).map_err(cannot_write)?;
    }
    let failed = checked.findings.iter().any(|finding| finding.verdict == Verdict::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
