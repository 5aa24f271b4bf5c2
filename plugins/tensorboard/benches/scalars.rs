//! Scalars per second into event files, side by side: this plugin, `torch.utils.tensorboard` and `tensorboardX`, in
//! turns.
//!
//! `HOST_BENCH_PYTHON` names a Python with `torch`, `tensorboard` and `tensorboardX`; without it, only this plugin is
//! measured. Each round ends when everything is in the file.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tensorboard::{EventFile, scalar};

const ROUNDS: usize = 5;
/// Enough for at least a tenth of a second.
const OURS: u64 = 1_000_000;
const THEIRS: u64 = 20_000;
/// The target: this many times the scalars of each of the others.
const TARGET: f64 = 20.0;
const OTHERS: [&str; 2] = ["torch.utils.tensorboard", "tensorboardX"];

fn main() -> plugin_api::Result<()> {
    let python = std::env::var_os("HOST_BENCH_PYTHON");
    let mut rates = vec![Vec::new(); 1 + OTHERS.len()];
    for _ in 0..ROUNDS {
        let folder = tempfile::tempdir()?;
        rates[0].push(ours(folder.path())?);
        for (index, other) in OTHERS.iter().enumerate() {
            let Some(python) = &python else { continue };
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/scalars.py");
            let output = Command::new(python).args([script, other, &THEIRS.to_string()]).arg(folder.path()).output()?;
            if !output.status.success() {
                return Err(plugin_api::Error::new(format!("`{other}`: {}", String::from_utf8_lossy(&output.stderr))));
            }
            rates[1 + index].push(String::from_utf8(output.stdout)?.trim().parse::<f64>()?);
        }
    }
    let ours = median(&mut rates[0]);
    println!("{:<26}{ours:>12.0} scalars/s", "this plugin");
    if python.is_none() {
        println!("skipped the others: `HOST_BENCH_PYTHON` names no Python");
    }
    for (other, rates) in OTHERS.iter().zip(&mut rates[1..]).filter(|(_, rates)| !rates.is_empty()) {
        let theirs = median(rates);
        println!("{other:<26}{theirs:>12.0} scalars/s   ratio {:.0} (target {TARGET})", ours / theirs);
    }
    Ok(())
}

/// Like calls of `SummaryWriter.add_scalar`: one value per event.
fn ours(folder: &Path) -> plugin_api::Result<f64> {
    let begun = Instant::now();
    let mut file = EventFile::create(folder, "bench", 0)?;
    for step in 0..OURS {
        file.summary(step, vec![scalar("train/loss", step as f64 * 0.5)])?;
    }
    file.flush()?;
    Ok(OURS as f64 / begun.elapsed().as_secs_f64())
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
