//! `host list`.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::process::ExitCode;

use plugin_api::Direction;
use serde::Serialize;

use super::output::{cannot, print, print_json};
use super::words;
use crate::arguments::ListArguments;
use crate::report::{Problem, Problems, did_you_mean, table, terminal};
use crate::runs::status::{BestStatus, FoundRun, runs_in};

/// The keys of `--sort` besides the names of metrics.
const KEYS: [&str; 4] = ["age", "name", "state", "progress"];

/// So many best metrics are shown for a run.
const SHOWN_METRICS: usize = 3;

/// A run in `--json`.
#[derive(Serialize)]
struct Listed<'a> {
    folder: String,
    run: &'a str,
    state: &'static str,
    stale: bool,
    progress: f64,
    epoch: u64,
    step: u64,
    /// Seconds since the status was written.
    age: f64,
    best: &'a std::collections::BTreeMap<String, BestStatus>,
    error: Option<&'a str>,
}

pub(super) fn run(arguments: &ListArguments) -> Result<ExitCode, Problems> {
    if !arguments.folder.is_dir() {
        return Err(Problem::new(format!("there is no folder `{}`", arguments.folder.display()))
            .with_hint("give the folder that holds your runs".to_owned())
            .into());
    }
    let mut runs = read_all(&runs_in(&arguments.folder));
    sort(&mut runs, arguments)?;
    if arguments.json {
        print_json(&runs.iter().map(listed).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if runs.is_empty() {
        print(&format!("no runs in `{}`\n", arguments.folder.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 5]> = runs.iter().map(|run| row(run, &arguments.sort)).collect();
    let mut text = Vec::new();
    table::write(["RUN", "STATE", "DONE", "AGE", "BEST"], &rows, terminal::stdout_width(), &mut text)
        .map_err(|error| cannot("write the table", &error))?;
    print(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the statuses, on all cores: there may be thousands, each in a file of its own.
fn read_all(folders: &[PathBuf]) -> Vec<FoundRun> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let share = folders.len().div_ceil(cores).max(1);
    let read = |folders: &[PathBuf]| folders.iter().filter_map(|folder| FoundRun::read(folder)).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let threads: Vec<_> = folders.chunks(share).map(|folders| scope.spawn(move || read(folders))).collect();
        // Reading does not panic; a share that did would be missing.
        threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    })
}

fn sort(runs: &mut [FoundRun], arguments: &ListArguments) -> Result<(), Problems> {
    let key = arguments.sort.as_str();
    match key {
        "age" => runs.sort_by_key(|run| run.age),
        // They come sorted by their folders.
        "name" => {}
        "state" => runs.sort_by_key(|run| run.status.state.name()),
        "progress" => runs.sort_by(|a, b| b.status.progress.total_cmp(&a.status.progress)),
        metric => {
            let known: Vec<&str> = runs.iter().flat_map(|run| run.status.best.keys().map(String::as_str)).collect();
            if !runs.is_empty() && !known.contains(&metric) {
                let near = did_you_mean(metric, known.into_iter().chain(KEYS));
                return Err(Problem::new(format!("no run has a best value of `{metric}`"))
                    .with_hint(near.unwrap_or_else(|| format!("sort by {} or a metric", KEYS.join(", "))))
                    .into());
            }
            let direction = Direction::of_metric(metric).unwrap_or_default();
            let value = |run: &FoundRun| run.status.best.get(metric).map_or(f64::NAN, |best| best.value);
            runs.sort_by(|a, b| match (value(a), value(b)) {
                (a, b) if direction.better(a, b) => Ordering::Less,
                (a, b) if direction.better(b, a) => Ordering::Greater,
                _ => Ordering::Equal,
            });
        }
    }
    if arguments.reverse {
        runs.reverse();
    }
    Ok(())
}

fn listed(run: &FoundRun) -> Listed<'_> {
    Listed {
        folder: run.folder.display().to_string(),
        run: &run.status.run,
        state: run.status.state.name(),
        stale: run.is_stale,
        progress: run.status.progress,
        epoch: run.status.position.epoch,
        step: run.status.position.global_step,
        age: run.age.as_secs_f64(),
        best: &run.status.best,
        error: run.status.error.as_deref(),
    }
}

fn row(run: &FoundRun, sorted_by: &str) -> [String; 5] {
    let best = &run.status.best;
    // The metric that was asked for first, then those of evaluations.
    let mut names: Vec<&String> = best.keys().collect();
    names.sort_by_key(|name| (*name != sorted_by, name.starts_with("train_"), name.as_str()));
    let shown = names.iter().take(SHOWN_METRICS).map(|name| format!("{name} {}", words::number(best[*name].value)));
    [
        run.folder.display().to_string(),
        if run.is_stale { "killed".to_owned() } else { run.status.state.name().to_owned() },
        format!("{:.0} %", run.status.progress * 100.0),
        words::duration(run.age.as_secs_f64()),
        shown.collect::<Vec<_>>().join(", "),
    ]
}
