//! Which plugins run in processes of their own: as the run file and the command line say.

use std::path::{Path, PathBuf};

use crate::config::{self, Every, PluginOptions};
use crate::dispatch::Isolated;
use crate::plugins::{Catalogue, Isolation};
use crate::report::{Problem, Problems, did_you_mean};
use crate::run_file::RunFile;

/// The word of the command line for every kind.
const ALL: &str = "all";

/// What a run file says, and `named`, the kinds of the command line.
pub(super) fn of(run_file: &RunFile, named: &[String]) -> Isolated {
    let timeout = match run_file.run.hook_timeout {
        Some(Every::Time(time)) => Some(time),
        _ => None,
    };
    let (all, kinds): (Vec<String>, Vec<String>) = named.iter().cloned().partition(|kind| kind == ALL);
    let by_run_file = run_file.run.isolation == config::Isolation::Process;
    Isolated { all: by_run_file, all_named: !all.is_empty(), kinds, timeout }
}

/// The kinds of the folders; with a lock, of what it lists. Where a plugin is isolated, no library runs in this process to describe itself: which of them has
/// the kind is not known before.
pub(super) fn catalogue(
    paths: &[PathBuf],
    lock: Option<&Path>,
    isolated: &Isolated,
    declared: &[PluginOptions],
) -> Result<Catalogue, Problems> {
    let isolation = Isolation { timeout: isolated.timeout, ..Isolation::default() };
    let catalogue = Catalogue::load_with(paths, lock, isolated.any(declared).then_some(&isolation));
    catalogue.map_err(|error| Problem::from(&error).into())
}

/// Refuses kinds on the command line that no library offers.
pub(super) fn check(named: &[String], catalogue: &Catalogue) -> Result<(), Problems> {
    let offered = || catalogue.kinds().iter().map(|kind| kind.descriptor().kind.as_str());
    let wrong = named.iter().filter(|name| *name != ALL && !offered().any(|kind| kind == *name));
    let problems: Vec<Problem> = wrong
        .map(|name| {
            let hint = did_you_mean(name, offered());
            let hint = hint.unwrap_or_else(|| "`host plugins list` shows the kinds; `all` is every one".to_owned());
            Problem::new(format!("no library offers the kind `{name}`, which `--isolate` names")).with_hint(hint)
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}
