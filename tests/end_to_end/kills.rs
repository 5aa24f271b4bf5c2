use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::resume::assert_whole;
use crate::tensorboard::{self, LOGS, READ};
use crate::training::{STEPS_PER_EPOCH, Training};

/// Everything that writes files during a run, between the two callbacks that tell the phases.
const PLUGINS: &str = r#"
[[plugins]]
kind = "phases"
name = "begins"
when = { every = "1 epoch" }
options = { path = "JOURNAL" }

[[plugins]]
kind = "onnx"
when = { every = "1 epoch" }
options = { name = "{epoch}" }

[[plugins]]
kind = "checkpoint"
name = "steps"
when = { every = "10 steps", at = ["end"] }
options = { folder = "checkpoints" }

[[plugins]]
kind = "checkpoint"
name = "epochs"
options = { folder = "epochs", only_own_requests = true, background = false }

[[plugins]]
kind = "phases"
name = "ends"
when = { every = "1 epoch" }
options = { path = "JOURNAL", last = true }

[[plugins]]
kind = "json-lines"
options = { every_steps = 3 }

[[plugins]]
kind = "csv"
options = { every_steps = 3 }

[[plugins]]
kind = "tensorboard"
when = { every = "10 steps" }
options = { every = 10, flush = 0.05 }
"#;

/// The phases in which a run is killed.
const PHASES: [&str; 4] = ["stepping", "saving", "evaluating", "exporting"];

/// The folders of checkpoints.
const CHECKPOINTS: [&str; 2] = ["checkpoints", "epochs"];

/// The longest wait for a phase: only a run that hangs reaches it.
const PATIENCE: Duration = Duration::from_secs(300);

/// A line of the callback `phases`.
struct Marker {
    phase: String,
    step: u64,
    micros: u64,
}

/// The file of markers, read as it grows.
struct Journal {
    path: PathBuf,
    read: u64,
}

impl Journal {
    /// The markers since the last call. A line is one write, but of one that crosses a page, a reader can see the first part:
    /// the rest comes with the next call, or never if the run was killed within it.
    fn next(&mut self) -> Vec<Marker> {
        let mut text = String::new();
        let mut file = std::fs::File::open(&self.path).expect("there is a journal");
        file.seek(SeekFrom::Start(self.read)).and_then(|_| file.read_to_string(&mut text)).expect("it can be read");
        text.truncate(text.rfind('\n').map_or(0, |last| last + 1));
        self.read += text.len() as u64;
        let marker = |line: &str| {
            let mut words = line.split(' ');
            let phase = words.next()?.to_owned();
            Some(Marker { phase, step: words.next()?.parse().ok()?, micros: words.next()?.parse().ok()? })
        };
        // A line that a kill has cut has the next process's first one behind it, and is left out.
        text.lines().filter_map(marker).collect()
    }
}

/// How long each phase lasts, on average.
fn lengths(markers: &[Marker]) -> BTreeMap<&str, Duration> {
    let mut sums: BTreeMap<&str, (u64, u32)> = BTreeMap::new();
    // The steps of a row are one phase.
    for same in markers.chunk_by(|one, next| one.phase == next.phase).collect::<Vec<_>>().windows(2) {
        let sum = sums.entry(same[0][0].phase.as_str()).or_default();
        *sum = (sum.0 + same[1][0].micros.saturating_sub(same[0][0].micros), sum.1 + 1);
    }
    sums.into_iter().map(|(phase, (sum, count))| (phase, Duration::from_micros(sum) / count)).collect()
}

/// Numbers from 0 to 1, the same in each run of the test: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A process that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the run, and kills it `delay` after it has begun a phase at or after a global step. Returns the last marker.
fn kill(training: &Training, journal: &mut Journal, phase: &str, step: u64, delay: Duration, epochs: &str) -> Marker {
    let told = std::fs::File::create(training.path("stderr.txt")).expect("a file");
    let mut command = training.command("broken");
    command.args(["--set", epochs]).stdout(Stdio::null()).stderr(told);
    let mut run = Running(command.spawn().expect("the host starts"));
    let begun = Instant::now();
    let mut last: Option<Marker> = None;
    let mut is_reached = false;
    while !is_reached {
        for marker in journal.next() {
            let begins = marker.phase == phase && last.as_ref().is_none_or(|last| last.phase != phase);
            is_reached |= begins && marker.step >= step;
            last = Some(marker);
        }
        let ended = run.0.try_wait().expect("a process");
        let told = || std::fs::read_to_string(training.path("stderr.txt")).unwrap_or_default();
        assert!(is_reached || ended.is_none(), "it ended before it was {phase} at step {step}: {}", told());
        assert!(begun.elapsed() < PATIENCE, "it is not {phase}: {}", told());
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(delay);
    run.0.kill().expect("a signal can be sent");
    let status = run.0.wait().expect("a process");
    assert_eq!(status.signal(), Some(9), "{status}");
    journal.next().pop().or(last).expect("the phase that was waited for has a marker")
}

/// The files and folders with the names of unfinished ones, in a folder and below it.
fn unfinished(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = folder.read_dir() else { return };
    for entry in entries {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(".tmp-") || name.starts_with(".partial-") || name.ends_with(".partial") {
            found.insert(entry.path());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unfinished(&entry.path(), found);
        }
    }
}

/// What a run has exported, by name.
fn exports(training: &Training, out: &str) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = training.path(out).join("exports").read_dir() else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "onnx"))
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), std::fs::read(&path)))
        .map(|(name, bytes)| (name, bytes.expect("it can be read")))
        .collect()
}

/// Asserts that nothing in the run folder looks whole and is not.
fn assert_nothing_partial(training: &Training, whole: &BTreeMap<String, Vec<u8>>) {
    for folder in CHECKPOINTS.map(|folder| format!("broken/{folder}")) {
        if training.checkpoints(&folder).is_empty() {
            continue;
        }
        assert_whole(training, &folder);
        for pointer in ["last", "best"].map(|name| training.path(&folder).join(name)) {
            let is_there = pointer.symlink_metadata().is_ok();
            assert!(!is_there || pointer.join("manifest.json").is_file(), "{} leads nowhere", pointer.display());
        }
    }
    for (name, bytes) in exports(training, "broken") {
        assert!(whole.get(&name) == Some(&bytes), "exports/{name} is not that of the unbroken run");
    }
}

/// The text of `metrics.jsonl` without what differs from one run to the next: the seconds.
fn json_lines(training: &Training, out: &str) -> String {
    let text = std::fs::read_to_string(training.path(out).join("metrics.jsonl")).expect("there is a file");
    let seconds = regex::Regex::new(r#","[a-z_]+_seconds":[^,}]+"#).expect("the pattern is valid");
    seconds.replace_all(&text, "").into_owned()
}

/// The cells of `metrics.csv` without the columns of seconds.
fn rows(training: &Training, out: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(training.path(out).join("metrics.csv")).expect("there is a file");
    let header: Vec<&str> = text.lines().next().unwrap_or_default().split(',').collect();
    let is_kept: Vec<bool> = header.iter().map(|name| !name.ends_with("_seconds")).collect();
    assert!(is_kept.iter().filter(|kept| **kept).count() >= 8, "{header:?}");
    let kept = |line: &str| -> Vec<String> {
        assert_eq!(line.split(',').count(), is_kept.len(), "{line}");
        line.split(',').zip(&is_kept).filter(|(_, kept)| **kept).map(|(cell, _)| cell.to_owned()).collect()
    };
    text.lines().map(kept).collect()
}

/// Everything in the event files, by run, without scalars of seconds.
fn events(training: &Training, out: &str) -> Option<Value> {
    let mut found = tensorboard::python(READ, training, &format!("{out}/{LOGS}"))?;
    for run in ["train", "val"] {
        let scalars = found[run]["scalars"].as_object_mut().expect("there are scalars");
        scalars.retain(|tag, _| !tag.ends_with("_seconds"));
        assert!(scalars["loss"].as_array().is_some_and(|points| points.len() > 1), "{run}: {scalars:?}");
    }
    Some(found)
}

/// Asserts that both runs have measured the same, and written it once.
fn assert_same_metrics(training: &Training) {
    assert_eq!(json_lines(training, "unbroken"), json_lines(training, "broken"));
    assert_eq!(rows(training, "unbroken"), rows(training, "broken"));
    assert_eq!(training.status("broken")["state"], "finished");
    if let [Some(unbroken), Some(broken)] = ["unbroken", "broken"].map(|out| events(training, out)) {
        assert_eq!(unbroken, broken);
    }
}

/// The checker of ONNX's own package, for all files of a folder.
const CHECK: &str = "
import json, pathlib, sys, onnx
paths = list(pathlib.Path(sys.argv[1]).glob('*.onnx'))
for path in paths:
    onnx.checker.check_model(str(path), full_check=True)
print(json.dumps(len(paths)))
";

#[test]
fn a_run_that_is_killed_at_any_instant_ends_like_an_unbroken_one() {
    let is_long = std::env::var_os("HOST_TEST_LONG").is_some();
    let (kills, epochs): (u64, u64) = if is_long { (200, 100) } else { (20, 50) };
    let training = Training::new(PLUGINS)
        .with_library(&fixture::build_test_plugins()["phases"])
        .with("out_channels = 4", "out_channels = 16")
        .with("out_features = 16", "out_features = 128");
    let set = format!("train.epochs={epochs}");
    let begun = Instant::now();
    // In one folder after the other, since its path is in the run file, and the run file's digest in the exports.
    training.run("broken", &["--set", &set]);
    std::fs::rename(training.path("broken"), training.path("unbroken")).expect("a folder can be renamed");
    let whole = exports(&training, "unbroken");
    assert_eq!(whole.len() as u64, epochs);
    let (alone, begun) = (begun.elapsed().as_secs_f64(), Instant::now());
    let mut journal = Journal { path: training.path("journal.jsonl"), read: 0 };
    let markers = journal.next();
    let lengths = lengths(&markers);

    let (mut random, mut landed, mut leftovers) = (Random(7), BTreeMap::new(), BTreeSet::new());
    for number in 0..kills {
        let phase = PHASES.into_iter().min_by_key(|phase| landed.get(*phase).copied().unwrap_or(0)).expect("four");
        let step = epochs * STEPS_PER_EPOCH * number / (kills + 1);
        let delay = lengths[phase].mul_f64(random.next());
        let last = kill(&training, &mut journal, phase, step, delay, &set);
        assert_nothing_partial(&training, &whole);
        // The start that was just killed had removed what the one before it left.
        let mut left = BTreeSet::new();
        unfinished(&training.path("broken"), &mut left);
        assert!(left.is_disjoint(&leftovers), "{:?}", left.intersection(&leftovers).collect::<Vec<_>>());
        eprintln!(
            "kill {number}: {phase}, {:.1} ms after it began, landed at step {}, {}, and left {} unfinished",
            delay.as_secs_f64() * 1e3,
            last.step,
            last.phase,
            left.len()
        );
        *landed.entry(last.phase).or_insert(0) += 1;
        leftovers = left;
    }
    let all = begun.elapsed().as_secs_f64();
    eprintln!("{landed:?}, in phases of {lengths:?}, after {alone:.1} s without and {all:.1} s with kills");
    let least = if is_long { kills / 10 } else { 1 };
    assert!(PHASES.iter().all(|phase| landed.get(*phase).copied().unwrap_or(0) >= least), "{landed:?}");

    training.run("broken", &["--set", &set]);
    assert_nothing_partial(&training, &whole);
    let mut left = BTreeSet::new();
    unfinished(&training.path("broken"), &mut left);
    assert!(left.is_empty(), "{left:?}");
    training.assert_same("unbroken/checkpoints/last", "broken/checkpoints/last");
    let of = |folder: &str| ["unbroken", "broken"].map(|out| training.checkpoints(&format!("{out}/{folder}")));
    // The one that the run resumed from stays.
    let [unbroken, broken] = of("epochs");
    assert!(unbroken.iter().all(|name| broken.contains(name)), "{unbroken:?} {broken:?}");
    assert!(broken.len() <= unbroken.len() + 1, "{unbroken:?} {broken:?}");
    // Which ones are written while the training goes on depends on the disk; the best and the last always are.
    let [unbroken, broken] = of("checkpoints");
    for pointer in ["best", "last"] {
        let [unbroken, broken] = ["unbroken", "broken"]
            .map(|out| std::fs::read_link(training.path(out).join("checkpoints").join(pointer)).expect("a pointer"));
        assert_eq!(unbroken, broken, "{pointer}");
    }
    assert!(broken.len() <= unbroken.len() + 1, "{unbroken:?} {broken:?}");
    assert!(exports(&training, "broken") == whole, "other exports");
    assert_same_metrics(&training);
    if let Some(checked) = tensorboard::python(CHECK, &training, "broken/exports") {
        assert_eq!(checked, epochs);
    }
}

/// The checkpoint of an epoch's last step is taken before what the epoch's end adds at the same step.
#[test]
fn what_came_after_a_checkpoint_of_the_same_step_is_not_there_twice() {
    let training = Training::new(
        r#"
[[plugins]]
kind = "phases"
options = { path = "JOURNAL" }

[[plugins]]
kind = "checkpoint"
when = { at = ["step 23"] }

[[plugins]]
kind = "json-lines"
options = { every_steps = 23 }

[[plugins]]
kind = "csv"
options = { every_steps = 23 }

[[plugins]]
kind = "tensorboard"
when = { every = "23 steps" }
dispatch = "inline"
options = { flush = 0 }
"#,
    )
    .with_library(&fixture::build_test_plugins()["phases"]);
    let set = "train.epochs=40";
    training.run("unbroken", &["--set", set]);
    let mut journal = Journal { path: training.path("journal.jsonl"), read: 0 };
    journal.next();
    kill(&training, &mut journal, "stepping", STEPS_PER_EPOCH, Duration::ZERO, set);
    training.run("broken", &["--set", set]);
    assert_same_metrics(&training);
}
