//! `host plugins check`: drives every kind of a library through a simulated run.
//!
//! The parent loads the library in a child process and reads which kinds it has; then it checks each kind in a child
//! of its own ([`child`]). A child announces each step before it takes it ([`progress`]), so that the parent
//! knows in which check, and in which hook, a child died. [`kind`] has the checks themselves, [`simulation`]
//! the order of events, [`services`] and [`world`] the answers to the hooks.

mod badge;
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

use host_command::arguments::{CheckOptions, Tier};
use serde::Serialize;

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

impl Checked {
    /// The highest tier of which no check failed; `None` if one of the lowest did.
    pub fn tier(&self) -> Option<Tier> {
        let failed = self.findings.iter().filter(|finding| finding.verdict == Verdict::Failed);
        match failed.map(|finding| finding.check.tier()).min() {
            None => Some(Tier::Full),
            Some(Tier::Full) => Some(Tier::Basic),
            Some(Tier::Basic) => None,
        }
    }
}

/// What `--json` writes.
#[derive(Serialize)]
struct Report<'a> {
    /// The version of the host that checked.
    host: &'static str,
    /// Its version of the plugin ABI.
    abi: String,
    /// What built the library; empty if it was not loaded.
    library: &'a str,
    tier: Option<Tier>,
    /// A line of Markdown.
    badge: String,
    findings: &'a [Finding],
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

/// Checks a library and writes the findings; the exit code is 1 when it does not reach the tier that is asked for.
pub(super) fn run(options: &CheckOptions, color: bool, out: &mut dyn Write) -> Result<ExitCode, Problems> {
    let checked = check(options)?;
    if options.json {
        let report = Report {
            host: badge::HOST,
            abi: badge::abi(),
            library: &checked.library,
            tier: checked.tier(),
            badge: badge::badge(checked.tier()),
            findings: &checked.findings,
        };
        serde_json::to_writer_pretty(&mut *out, &report).map_err(|error| cannot_write(error.into()))?;
        writeln!(out).map_err(cannot_write)?;
    } else if options.badge {
        writeln!(out, "{}", badge::badge(checked.tier())).map_err(cannot_write)?;
    } else {
        report::write(&options.file, &checked, color, out).map_err(cannot_write)?;
    }
    Ok(if checked.tier() < Some(options.tier) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
