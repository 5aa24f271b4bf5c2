//! What the host's own kinds cost: ten of them at each step, and the default ones over epochs of a few milliseconds.

use std::path::PathBuf;
use std::sync::Arc;

use host::services::Screen;

use crate::Result;
use crate::libraries::{Libraries, build_package};
use crate::table::{Figure, Table, Target};
use crate::timing::take_turns;
use crate::workload::{self, CNN, Dark, MLP, Workload, train_epochs_in_host, train_in_host};

/// Kinds that people combine: those that watch, schedule and measure.
const TEN: [&str; 10] = [
    "print-metrics",
    "json-lines",
    "csv",
    "early-stopping",
    "terminate-on-nan",
    "lr-schedule",
    "reduce-on-plateau",
    "moving-average",
    "throughput",
    "time-limit",
];

const DEFAULT: [&str; 4] = ["progress", "print-metrics", "json-lines", "checkpoint"];

/// The MLP for 2,000 epochs of 23 steps.
const EPOCHS: Workload = Workload { steps: 46_000, ..MLP };

pub fn measure(libraries: &Libraries, table: &mut Table) -> Result<()> {
    let screen: Arc<dyn Screen> = Arc::new(Dark);
    let built: Vec<PathBuf> = ["standard", "checkpoint"].map(build_package).into_iter().collect::<Result<_>>()?;
    let plan = |workload: &Workload, kinds: &[&str]| {
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        workload.plan(libraries.folder(), built.clone(), &kinds)
    };
    for (workload, rounds) in [(Workload { steps: 4 * MLP.steps, ..MLP }, 20), (Workload { steps: 115, ..CNN }, 20)] {
        let (with, without) = (plan(&workload, &TEN)?, plan(&workload, &[])?);
        workload::prepare(&without)?;
        let [hosted, alone] =
            take_turns(rounds, [&mut || train_in_host(&with, &screen), &mut || train_in_host(&without, &screen)])?;
        table.push(&Figure {
            what: format!("{}: steps per second with ten of the host's kinds, against none", workload.name),
            best: alone.best() / hosted.best(),
            median: alone.median_ratio(&hosted),
            unit: "×",
            target: Target::AtLeast(0.98),
            from: TEN.join(", "),
        });
    }

    let (with, without) = (plan(&EPOCHS, &DEFAULT)?, plan(&EPOCHS, &[])?);
    let [hosted, alone] =
        take_turns(3, [&mut || train_epochs_in_host(&with, &screen), &mut || train_epochs_in_host(&without, &screen)])?;
    table.push(&Figure {
        what: "MLP: 2,000 epochs with the default plugins, against none, without the last save".to_owned(),
        best: alone.best() / hosted.best(),
        median: alone.median_ratio(&hosted),
        unit: "×",
        target: Target::AtLeast(0.95),
        from: format!("{:.2} ms an epoch against {:.2} ms", hosted.best() / 2.0, alone.best() / 2.0),
    });
    Ok(())
}
