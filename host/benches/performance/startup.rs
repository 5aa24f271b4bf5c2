//! From the start of the program to the end of the first training step, and the loading of one library.

use std::path::{Path, PathBuf};
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
    for (plugins, what, target) in [
        (true, format!("exec to the end of the first training step, {COUNT} plugins"), 0.3),
        (false, "the same without plugins".to_owned(), 0.25),
    ] {
        let mut starts = Times::default();
        for start in 0..=STARTS {
            let time = first_step(libraries, start, plugins)?;
            // The first one warms the page cache.
            if start > 0 {
                starts.push(time);
            }
        }
        table.push(&Figure {
            what,
            best: starts.best(),
            median: starts.median(),
            unit: "s",
            target: Target::AtMost(target),
            from: format!("`host run`, {STARTS} times"),
        });
    }

    for (what, library, target) in [
        ("loading a plugin", libraries.noops().join(file_name("noop-0")), 2.0),
        ("loading a plugin in C", build_c(libraries)?, 1.0),
    ] {
        let loads = load(libraries, &library)?;
        table.push(&Figure {
            what: what.to_owned(),
            best: loads.best() * 1e3,
            median: loads.median() * 1e3,
            unit: "ms",
            target: Target::AtMost(target),
            from: format!("{STARTS} libraries"),
        });
    }
    Ok(())
}

/// The times in which copies of a library are loaded.
fn load(libraries: &Libraries, library: &Path) -> Result<Times> {
    let mut loads = Times::default();
    let name = library.file_stem().ok_or("a library has a name")?.to_string_lossy();
    for copy in 0..STARTS {
        // A file that is already open would not be loaded again.
        let path = libraries.folder().join(file_name(&format!("{name}-copy{copy}")));
        std::fs::copy(library, &path)?;
        let mut opened = None;
        loads.push(time(|| opened = Some(Library::open(&path))));
        opened.transpose().map_err(|error| error.to_string())?;
    }
    Ok(loads)
}

/// The example in C.
fn build_c(libraries: &Libraries) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let library = libraries.folder().join(file_name("norm-limit"));
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O2", "-I"]).arg(root.join("plugin-api/include")).arg("-o").arg(&library);
    let status = command.arg(root.join("examples/c-plugin/norm_limit.c")).arg("-lm").status()?;
    if !status.success() {
        return Err(format!("{command:?} failed").into());
    }
    Ok(library)
}

/// Runs one step of the program; the log contains the end time of that step's epoch.
fn first_step(libraries: &Libraries, number: usize, plugins: bool) -> Result<Duration> {
    let run_file = libraries.folder().join("startup.toml");
    let kinds = if plugins { kinds() } else { Vec::new() };
    std::fs::write(&run_file, MLP.run_file(&kinds))?;
    let out = libraries.folder().join(format!("run{number}-{plugins}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.arg("run").arg(&run_file).args(["--set", "train.steps=1", "--quiet"]);
    command.arg("--plugins").arg(libraries.noops()).arg("--out").arg(&out);
    command.env("HOST_CACHE", libraries.folder().join("cache"));
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
        .find(|line| line["target"] == "epoch")
        .and_then(|line| line["timestamp"].as_str()?.parse::<jiff::Timestamp>().ok())
        .ok_or("the log does not say when the epoch ended")?;
    Ok(SystemTime::from(trained).duration_since(started)?)
}
