//! Opening an exported program: its time beyond that of reading the file, and its peak of memory.
//!
//! The programs are those of PyTorch, whose structure is in `tests/figures/exported`; their weights are zeros here. Each is opened
//! in a process of its own, since a peak is that of a process.

use std::collections::BTreeSet;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use host::model::Network;
use serde_json::Value;
use tch::Device;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::Result;
use crate::libraries::Libraries;
use crate::memory::resident;
use crate::table::{Figure, Table, Target};
use crate::timing::time;

/// The first argument of a process that opens a program; its file follows.
pub const CHILD: &str = "--open-exported";

const NETS: [(&str, &str); 2] = [("resnet18", "resnet18"), ("GPT-2 of 124 M parameters", "gpt2_124m")];
const ROUNDS: usize = 5;
const MB: f64 = 1e6;

pub fn measure(libraries: &Libraries, table: &mut Table) -> Result<()> {
    for (name, net) in NETS {
        let (path, weights) = write_with_zeros(net, libraries.folder())?;
        let (mut beyond, mut peaks, mut reading) = (Vec::new(), Vec::new(), f64::INFINITY);
        for _ in 0..ROUNDS {
            let Opened { seconds, reading: read, peak } = open_in_child(&path)?;
            beyond.push((seconds - read) * 1e3);
            peaks.push(peak / weights);
            reading = reading.min(read * 1e3);
        }
        std::fs::remove_file(&path)?;
        for values in [&mut beyond, &mut peaks] {
            values.sort_by(f64::total_cmp);
        }
        let size = weights / MB;
        table.push(&Figure {
            what: format!("opening an exported {name}, beyond reading it"),
            best: beyond[0],
            median: beyond[ROUNDS / 2],
            unit: "ms",
            target: Target::AtMost(50.0),
            from: format!("reading {size:.0} MB takes {reading:.0} ms"),
        });
        table.push(&Figure {
            what: format!("peak memory of opening an exported {name}, over its weights"),
            best: peaks[0],
            median: peaks[ROUNDS / 2],
            unit: "×",
            target: Target::AtMost(1.1),
            from: format!("its weights have {size:.0} MB"),
        });
    }
    Ok(())
}

/// Writes a program whole, with weights of zeros; returns its file, and the bytes of the weights.
fn write_with_zeros(net: &str, folder: &Path) -> Result<(PathBuf, f64)> {
    let structure = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/figures/exported/{net}.zip"));
    let path = folder.join(format!("{net}.pt2"));
    let mut structure = ZipArchive::new(File::open(structure)?)?;
    let mut program = ZipWriter::new(File::create(&path)?);
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut bytes = 0;
    for index in 0..structure.len() {
        let mut part = structure.by_index(index)?;
        let mut content = Vec::new();
        part.read_to_end(&mut content)?;
        program.start_file(part.name(), stored)?;
        program.write_all(&content)?;
        let Some(folder) = part.name().strip_suffix("model_weights_config.json") else { continue };
        let weights: Value = serde_json::from_slice(&content)?;
        // Tied weights are in one file.
        let mut written = BTreeSet::new();
        for weight in weights["config"].as_object().ok_or("the weights are a map")?.values() {
            let (file, meta) = (weight["path_name"].as_str().ok_or("a weight has a file")?, &weight["tensor_meta"]);
            if !written.insert(file.to_owned()) {
                continue;
            }
            let sizes = meta["sizes"].as_array().ok_or("a weight has sizes")?.iter();
            let count: u64 = sizes.filter_map(|size| size["as_int"].as_u64()).product();
            // 5 is int64, and all others are float32.
            let zeros = count * if meta["dtype"] == 5 { 8 } else { 4 };
            program.start_file(format!("{folder}{file}"), stored)?;
            bytes += std::io::copy(&mut std::io::repeat(0).take(zeros), &mut program)?;
        }
    }
    program.finish()?;
    Ok((path, bytes as f64))
}

/// What a process says.
struct Opened {
    /// The time of opening.
    seconds: f64,
    /// The time of reading the file into memory, in seconds.
    reading: f64,
    /// The bytes by which opening raised the resident memory, at its peak.
    peak: f64,
}

fn open_in_child(path: &Path) -> Result<Opened> {
    let output = Command::new(std::env::current_exe()?).arg(CHILD).arg(path).output()?;
    if !output.status.success() {
        return Err(format!("opening a program failed:\n{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let told = String::from_utf8(output.stdout)?;
    let numbers = told.split_whitespace().map(str::parse).collect::<std::result::Result<Vec<f64>, _>>()?;
    let [seconds, reading, peak] = numbers[..] else { return Err(format!("not three numbers: {told}").into()) };
    Ok(Opened { seconds, reading, peak })
}

/// The work of such a process: it opens the program, reads its file, and prints what both took.
pub fn child(arguments: &[String]) -> Result<()> {
    let [path] = arguments else { return Err("the file of a program is missing".into()) };
    let path = Path::new(path);
    // What libtorch sets up for the first program of a process belongs to no program.
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/figures/exported/mlp.pt2");
    drop(Network::exported(&small, None, None, Device::Cpu)?);
    let before = resident("VmRSS")?;
    let mut opened = None;
    let opening = time(|| opened = Some(Network::exported(path, None, None, Device::Cpu)));
    let network = opened.transpose()?;
    let peak = resident("VmHWM")? - before;
    drop(network);
    // Into new memory, as it is opened into.
    let mut content = Ok(Vec::new());
    let reading = time(|| content = std::fs::read(path));
    black_box(content?);
    println!("{} {} {peak}", opening.as_secs_f64(), reading.as_secs_f64());
    Ok(())
}
