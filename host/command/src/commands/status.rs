//! `host status`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::output::{cannot, print, print_as_it_is, print_data, print_json};
use super::{request, words};
use crate::arguments::StatusArguments;
use crate::report::{Problems, terminal};
use crate::runs::ranks::{FoundRank, ranks_of};
use crate::runs::status::{FoundRun, State, Status};
use crate::stdout::Stdout;

/// How often `--watch` looks.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run(arguments: &StatusArguments) -> Result<ExitCode, Problems> {
    let mut found = request::find(&arguments.run.run)?;
    let on_terminal = Stdout.is_terminal();
    let mut lines_before = 0;
    loop {
        if arguments.json && arguments.watch {
            let text = serde_json::to_string(&json(&found)).map_err(|error| cannot("write the status", &error))?;
            print_data(&format!("{text}\n"))?;
        } else if arguments.json {
            print_json(&json(&found))?;
        } else {
            let text = text(&found, terminal::stdout_width().unwrap_or(80));
            // In place of what was shown before.
            let up =
                if on_terminal && lines_before > 0 { format!("\u{1b}[{lines_before}A\u{1b}[J") } else { String::new() };
            print_as_it_is(&up)?;
            print(&text)?;
            lines_before = text.lines().count();
        }
        if !arguments.watch || !found.is_live() {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(INTERVAL);
        found = request::find(&found.folder)?;
    }
}

/// `status.json` with the state that was found, and with that of each rank if there are several.
fn json(found: &FoundRun) -> serde_json::Value {
    let mut value = serde_json::to_value(&found.status).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("folder".to_owned(), found.folder.display().to_string().into());
        object.insert("stale".to_owned(), found.is_stale.into());
        object.insert("age".to_owned(), found.age.as_secs_f64().into());
        let ranks = ranks_of(found);
        if !ranks.is_empty() {
            object.insert("ranks".to_owned(), serde_json::to_value(ranks).unwrap_or_default());
        }
    }
    value
}

fn text(found: &FoundRun, width: usize) -> String {
    let Status { run, state, reason, stopped_by, error, warnings, position, progress, elapsed, time_left, .. } =
        &found.status;
    let mut lines = vec![format!("run `{run}` in {}", found.folder.display())];
    let by = stopped_by.as_ref().map(|by| format!(" by `{by}`")).unwrap_or_default();
    let why = reason.as_ref().filter(|_| error.is_none()).map(|reason| format!(": {reason}")).unwrap_or_default();
    let shown = if *state == State::Stopped { String::new() } else { by };
    let age = if found.is_live() && found.age < Duration::from_secs(10) {
        String::new()
    } else {
        format!(", last seen {}", words::ago(found.age))
    };
    lines.push(format!("{state}{shown}{why}{age}"));
    lines.extend(error.iter().map(|error| format!("error: {error}")));
    let left = time_left.map(|left| format!(", {} left", words::duration(left))).unwrap_or_default();
    lines.push(format!(
        "{:.0} %: epoch {}, step {}, {}{left}",
        progress * 100.0,
        position.epoch,
        position.global_step,
        words::duration(*elapsed)
    ));
    let ranks = ranks_of(found);
    if found.is_live() && ranks.is_empty() {
        let machine = &found.status.machine;
        let on = if found.status.of_process().is_here() { String::new() } else { format!(" on {machine}") };
        lines.push(format!("process {}{on}, since {}", found.status.process, found.status.started));
    }
    if found.is_live() && !ranks.is_empty() {
        lines.push(format!("{} ranks, since {}", ranks.len(), found.status.started));
    }
    lines.extend(ranks.iter().map(line_of_rank));
    let mut text = String::new();
    for line in lines.iter().chain(&warnings.iter().map(|warning| format!("warning: {warning}")).collect::<Vec<_>>()) {
        for part in terminal::wrap(line, width) {
            let _ = writeln!(text, "{part}");
        }
    }
    text + &metrics(&found.status)
}

/// What a rank does, where, and who it is: `rank 1: running, step 84, process 4711 on node2`.
fn line_of_rank(rank: &FoundRank) -> String {
    let FoundRank { rank, state, process, machine, step, age, error, .. } = rank;
    let mut line = format!("rank {rank}: {state}");
    let Some(process) = process else { return line + ", has not written a status yet" };
    let machine = machine.as_ref().filter(|machine| !machine.is_empty()).map(|machine| format!(" on {machine}"));
    let _ = write!(line, ", step {step}, process {process}{}", machine.unwrap_or_default());
    // One that lives writes each second.
    if let Some(age) = age.filter(|age| state.is_live() && *age >= 10.0) {
        let _ = write!(line, ", last seen {}", words::ago(Duration::from_secs_f64(age)));
    }
    if let Some(error) = error {
        let _ = write!(line, ": {error}");
    }
    line
}

/// A line for each metric: the latest value, and the best one.
fn metrics(status: &Status) -> String {
    let widest = status.metrics.keys().map(String::len).max().unwrap_or_default();
    let mut text = String::new();
    for (name, value) in &status.metrics {
        let best =
            status.best.get(name).map(|best| format!("  best {} in epoch {}", words::number(best.value), best.epoch));
        let _ = writeln!(text, "  {name:widest$}  {:>10}{}", words::metric(value), best.unwrap_or_default());
    }
    text
}
