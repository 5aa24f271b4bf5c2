//! From the start of the program to the end of the first training step, and the loading of one library.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use host::plugins::Library;
use serde_json::Value;

use crate::Result;
use crate::libraries::{COUNT, Libraries, file_name, kinds};
use crate::table::{Figure, Table, Target};
use crate::timing::{Times, time};
use crate::workload::MLP;

const STARTS: usize = 20;

pub fn measure(libraries: &Libraries, table: &mut Table) -> Result<()> {
    let mut starts = Times::default();
    for start in 0..=STARTS {
        let time = first_step(libraries, start)?;
        // The first one warms the page cache.
        if start > 0 {
            starts.push(time);
        }
    }
    table.push(&Figure {
        what: format!("exec to the end of the first training step, {COUNT} plugins"),
        best: starts.best(),
        median: starts.median(),
        unit: "s",
        target: Target::AtMost(0.5),
        from: format!("`host run`, {STARTS} times, {COUNT} libraries"),
    });

    let mut loads = Times::default();
    for copy in 0..STARTS {
        // A file that is already open would not be loaded again.
        let path = libraries.folder().join(file_name(&format!("copy{copy}")));
        std::fs::copy(libraries.noops().join(file_name("noop-0")), &path)?;
        let mut opened = None;
        loads.push(time(|| opened = Some(Library::open(&path))));
        opened.transpose().map_err(|error| error.to_string())?;
    }
    table.push(&Figure {
        what: "loading a plugin".to_owned(),
        best: loads.best() * 1e3,
        median: loads.median() * 1e3,
        unit: "ms",
        target: Target::AtMost(2.0),
        from: format!("{STARTS} libraries"),
    });
    Ok(())
}

/// Runs one step of the program; the log contains the end time of that step's epoch.
fn first_step(libraries: &Libraries, number: usize) -> Result<Duration> {
    let run_file = libraries.folder().join("startup.toml");
    std::fs::write(&run_file, MLP.run_file(&kinds()))?;
    let out = libraries.folder().join(format!("run{number}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.arg("run").arg(&run_file).args(["--set", "train.steps=1", "--quiet"]);
    command.arg("--plugins").arg(libraries.noops()).arg("--out").arg(&out);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let started = SystemTime::now();
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("`host run` failed:\n{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let log = std::fs::read_to_string(out.join("log.jsonl"))?;
    let trained = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["fields"]["hook"] == "epoch_trained")
        .and_then(|line| line["timestamp"].as_str()?.parse::<jiff::Timestamp>().ok())
        .ok_or("the log does not say when the epoch was trained")?;
    Ok(SystemTime::from(trained).duration_since(started)?)
}
