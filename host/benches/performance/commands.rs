//! Commands that only look: they start without libtorch.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;
use crate::libraries::Libraries;
use crate::table::{Figure, Table, Target};
use crate::timing::{Times, time};

/// Runs in the folder that is listed.
const RUNS: usize = 1000;

const STARTS: usize = 20;

/// The most milliseconds of such a command.
const MOST: f64 = 50.0;

pub fn measure(libraries: &Libraries, table: &mut Table) -> Result<()> {
    let runs = libraries.folder().join("runs");
    for index in 0..RUNS {
        make_run(&runs.join(format!("run{index:04}")), index)?;
    }
    let (all, one) = (runs.display().to_string(), runs.join("run0000").display().to_string());
    for arguments in [&["--version"][..], &["--help"], &["completions", "bash"], &["status", &one], &["list", &all]] {
        let mut times = Times::default();
        for _ in 0..STARTS {
            let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
            command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
            let mut status = None;
            times.push(time(|| status = Some(command.status())));
            if !status.transpose()?.is_some_and(|status| status.success()) {
                return Err(format!("{command:?} failed").into());
            }
        }
        let what = match arguments[0] {
            "list" => format!("host list, {RUNS} runs"),
            name => format!("host {name}"),
        };
        table.push(&Figure {
            what,
            best: times.best() * 1e3,
            median: times.median() * 1e3,
            unit: "ms",
            target: Target::AtMost(MOST),
            from: format!("{STARTS} starts"),
        });
    }
    Ok(())
}

/// A run that has finished, as its process leaves it.
fn make_run(folder: &Path, index: usize) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(".host-run"), "")?;
    let metrics: Vec<String> =
        (0..10).map(|metric| format!("\"val_metric{metric}_loss\": 0.{index}{metric}")).collect();
    let best: Vec<String> =
        (0..10).map(|metric| format!("\"val_metric{metric}_loss\": {{ \"value\": 0.{index}{metric} }}")).collect();
    let status = format!(
        "{{ \"run\": \"r\", \"state\": \"finished\", \"progress\": 1.0, \"metrics\": {{ {} }}, \"best\": {{ {} }} }}",
        metrics.join(", "),
        best.join(", ")
    );
    Ok(std::fs::write(folder.join("status.json"), status)?)
}
