//! Peak memory of a training with no-op plugins, compared with that of a bare loop, each in its own process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use host::services::Screen;

use crate::Result;
use crate::libraries::{COUNT, Libraries, kinds};
use crate::table::{Figure, Table, Target};
use crate::workload::{self, CNN, Dark, Workload, train_bare, train_in_host};

/// The first argument of such a process; the folder of the libraries follows, if it has plugins.
pub const CHILD: &str = "--measure-memory";

/// Several epochs, so that buffers reach their full size.
const WORKLOAD: Workload = Workload { steps: 100, ..CNN };

const ROUNDS: usize = 5;
const MIB: f64 = 1024.0 * 1024.0;

pub fn measure(libraries: &Libraries, table: &mut Table) -> Result<()> {
    let (mut hosted, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        hosted.push(peak_of_child(Some(&libraries.noops()))?);
        bare.push(peak_of_child(None)?);
    }
    let (mut differences, least): (Vec<f64>, f64) = (
        hosted.iter().zip(&bare).map(|(hosted, bare)| (hosted - bare) / MIB).collect(),
        bare.iter().copied().fold(f64::INFINITY, f64::min) / MIB,
    );
    differences.sort_by(f64::total_cmp);
    table.push(&Figure {
        what: format!("peak memory with {COUNT} no-op plugins, over a bare loop"),
        best: differences[0],
        median: differences[ROUNDS / 2],
        unit: "MiB",
        target: Target::AtMost(20.0),
        from: format!("the bare loop has {least:.0} MiB"),
    });
    Ok(())
}

/// The peak of a process of this program, in bytes.
fn peak_of_child(plugins: Option<&Path>) -> Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(CHILD);
    command.args(plugins);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("measuring memory failed:\n{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// The work of such a process: it trains, and prints its peak.
pub fn child(arguments: &[String]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    match arguments {
        [libraries] => {
            let plan = WORKLOAD.plan(folder.path(), vec![PathBuf::from(libraries)], &kinds())?;
            workload::prepare(&plan)?;
            let screen: Arc<dyn Screen> = Arc::new(Dark);
            train_in_host(&plan, &screen)?;
        }
        _ => {
            let plan = WORKLOAD.plan(folder.path(), Vec::new(), &[])?;
            workload::prepare(&plan)?;
            train_bare(&plan, WORKLOAD.steps)?;
        }
    }
    println!("{}", resident("VmHWM")?);
    Ok(())
}

/// The resident set of this process in bytes, from Linux: the present one (`VmRSS`), or the largest so far (`VmHWM`).
pub fn resident(name: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = line.ok_or_else(|| format!("no `{name}` in `/proc/self/status`"))?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024.0)
}
