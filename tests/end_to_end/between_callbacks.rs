//! Rules that hold for any callback: the run says when, taps are lent, decisions survive a resume, directions are checked.

use std::collections::BTreeMap;
use std::path::Path;

use fixture::lines;
use serde_json::Value;

use crate::small_run::{Ran, SmallRun, text};
use crate::training::checks;

/// The names in a folder of a run, in order.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_run_makes_any_kind_periodic_or_conditional() {
    let ran = SmallRun::with_libraries(&["standard", "checkpoint", "recorder"])
        .set("train.epochs=4")
        .instance("kind = 'dump-tensors'\nwhen = { every = '2 epochs' }\noptions = { tensors = ['parameters'] }")
        .instance("kind = 'checkpoint'\nwhen = { at = ['step 4'] }")
        .recorder("puts", "", "puts = 'told'")
        .instance("kind = 'weight-stats'\nwhen = { every = '1 epoch' }\nif = 'told >= 3'")
        .instance("kind = 'weight-stats'\nname = 'never'\nwhen = { every = '1 epoch' }\nif = 'val_loss < 0'")
        .recorder("sees", "", "")
        .run()
        .succeeded();
    assert_eq!(names(&ran.out.join("tensors")), ["epoch-0002-step-00000006", "epoch-0004-step-00000012"]);
    let checkpoints = names(&ran.out.join("checkpoints"));
    let taken: Vec<&String> = checkpoints.iter().filter(|name| name.starts_with("epoch-")).collect();
    assert_eq!(taken, ["epoch-0002-step-00000004"]);
    let records = ran.lines_of("sees", "record");
    let mut of: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for line in &records {
        of.entry(text(&line["texts"], "author")).or_default().push(line["epoch"].as_u64().unwrap_or_default());
    }
    for epochs in of.values_mut() {
        epochs.dedup();
    }
    assert_eq!(of, BTreeMap::from([("weight-stats", vec![3, 4])]));
}

#[test]
fn taps_are_lent_and_are_those_of_a_separate_forward_pass() {
    let run = |options: &str| {
        let run = SmallRun::with_libraries(&["probe", "checkpoint"])
            .with("{ type = \"relu\" }", "{ type = \"relu\", name = \"hidden\" }")
            .instance("kind = 'checkpoint'");
        let journal = run.out().with_file_name("taps.jsonl");
        let path = journal.display();
        (run.instance(&format!("kind = 'taps'\noptions = {{ path = '{path}'{options} }}")).run().succeeded(), journal)
    };
    let (tapped, journal) = run(", node = 'hidden', output = 'fc2', parameter = 'fc1.weight'");
    insta::assert_snapshot!(checks(&lines(&journal)), @"
    taps are lent, not copied
    a tapped gradient is the gradient itself
    output is that of a separate forward pass
    inside is that of a separate forward pass
    ");
    let (plain, journal) = run("");
    insta::assert_snapshot!(checks(&lines(&journal)), @"there are no taps");
    // A tap only reads.
    let weights = |ran: &Ran| std::fs::read(ran.out.join("checkpoints/last/model.safetensors")).expect("a checkpoint");
    assert!(weights(&tapped) == weights(&plain));
}

/// Instances whose kinds keep state, and whether two runs of the same steps save the same bytes: a state that holds times or
/// the length of a file does not.
const WITH_STATE: [(&str, bool, &str); 13] = [
    ("early-stopping", true, "options = { patience = 4, min_delta = 10 }"),
    ("reduce-on-plateau", true, "options = { patience = 2, min_delta = 10, factor = 0.5 }"),
    (
        "lr-schedule",
        true,
        "options = { points = [[0, 0.01], [2, 0.02], [4, 0.03]], hyper_parameter = 'weight_decay', interp = 'linear' }",
    ),
    ("moving-average", true, "options = { metrics = ['val_loss', 'step_loss'], window = 4 }"),
    ("dump-tensors", true, "options = { tensors = ['parameters'], keep = 2 }"),
    ("ema", true, "options = { decay = 0.9, swap_at_end = false }"),
    ("save-best", true, "options = { metric = 'val_accuracy', load_at_end = false }"),
    ("gradient-clip", true, "options = { limit = 0.5 }"),
    ("spike-detection", true, ""),
    ("check-numerics", true, ""),
    ("time-limit", false, "options = { duration = '1 h' }"),
    ("csv", false, ""),
    ("json-lines", false, ""),
];

/// A run of all of them.
fn with_state(epochs: u64) -> SmallRun {
    let run = SmallRun::with_libraries(&["standard", "checkpoint"]).set(&format!("train.epochs={epochs}"));
    let run = WITH_STATE.iter().fold(run, |run, (kind, _, more)| run.instance(&format!("kind = '{kind}'\n{more}")));
    run.instance(
        "kind = 'checkpoint'\noptions = { keep_last = 2, keep_best = [{ metric = 'val_loss' }], background = false }",
    )
}

/// The rows of a run, without times.
fn rows(ran: &Ran) -> Vec<Value> {
    let mut rows = lines(&ran.out.join("metrics.jsonl"));
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        row.retain(|name, _| !name.ends_with("_seconds"));
    }
    rows
}

/// The numbers of the table without the columns of times.
fn table(ran: &Ran) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(ran.out.join("metrics.csv")).expect("a table");
    let mut rows = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let columns = rows.next().expect("a first line");
    let is_kept: Vec<bool> = columns.iter().map(|name| !name.ends_with("_seconds")).collect();
    std::iter::once(columns)
        .chain(rows)
        .map(|row| row.into_iter().zip(&is_kept).filter(|(_, kept)| **kept).map(|(cell, _)| cell).collect())
        .collect()
}

/// The best weights, without what the file says of them: there are times among the metrics.
fn best(ran: &Ran) -> BTreeMap<String, Vec<u8>> {
    let bytes = std::fs::read(ran.out.join("best.safetensors")).expect("the best weights");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    file.tensors().into_iter().map(|(name, tensor)| (name, tensor.data().to_vec())).collect()
}

#[test]
fn what_callbacks_decide_survives_a_resume() {
    let unbroken = with_state(6).run().succeeded();
    let first = with_state(3).run().succeeded();
    let resumed = with_state(6).arguments(["--resume", "auto"]).run_in(first.out.clone()).succeeded();

    // What they decided: the run ends early, the rate was halved twice, tensors and checkpoints of the past are deleted.
    for ran in [&unbroken, &resumed] {
        let status = ran.status();
        assert_eq!((&status["state"], &status["position"]["epoch"]), (&"stopped".into(), &5.into()), "{status}");
        let rates: Vec<_> = rows(ran).iter().map(|row| row["learning_rate"].clone()).collect();
        assert_eq!(rates, [0.01, 0.01, 0.01, 0.005, 0.005].map(Value::from), "{}", ran.shown());
        assert_eq!(names(&ran.out.join("tensors")), ["epoch-0004-step-00000012", "epoch-0005-step-00000015"]);
    }
    assert_eq!(rows(&resumed), rows(&unbroken));
    assert_eq!(table(&resumed), table(&unbroken));
    // The checkpoint that a run resumed from stays.
    let mut kept = names(&resumed.out.join("checkpoints"));
    kept.retain(|name| name != "epoch-0003-step-00000009");
    assert_eq!(kept, names(&unbroken.out.join("checkpoints")));

    let in_last = |ran: &Ran, file: &str| {
        let path = ran.out.join("checkpoints/last").join(file);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    for file in ["model", "optimizer", "copies", "rng"].map(|name| format!("{name}.safetensors")) {
        assert!(in_last(&unbroken, &file) == in_last(&resumed, &file), "they differ in {file}");
    }
    for (kind, is_same, _) in WITH_STATE {
        let file = format!("plugins/{kind}.bin");
        let (unbroken, resumed) = (in_last(&unbroken, &file), in_last(&resumed, &file));
        assert!(!unbroken.is_empty(), "{kind}");
        assert!(!is_same || unbroken == resumed, "the state of {kind}");
    }
    assert_eq!(best(&unbroken), best(&resumed));
}

#[test]
fn what_a_person_and_an_average_at_the_end_did_survives_a_resume() {
    let run = |epochs: u64| {
        let run = SmallRun::with_libraries(&["standard", "checkpoint"]).set(&format!("train.epochs={epochs}"));
        let file = run.out().with_file_name("hyper.txt");
        std::fs::write(&file, "learning_rate: 0.004\n").expect("a file can be written");
        run.instance(&format!("kind = 'human-hyperparams'\noptions = {{ file = '{}' }}", file.display()))
            .instance("kind = 'swa'\noptions = { start = 2 }")
            .instance("kind = 'json-lines'")
            .instance("kind = 'checkpoint'")
    };
    let unbroken = run(6).run().succeeded();
    let first = run(3).run().succeeded();
    let resumed = run(6).arguments(["--resume", "auto"]).run_in(first.out.clone()).succeeded();
    assert_eq!(rows(&resumed), rows(&unbroken));
    let rates: Vec<_> = rows(&resumed).iter().map(|row| row["learning_rate"].clone()).collect();
    assert_eq!(rates[3..], [0.004; 3].map(Value::from));
    let last = |ran: &Ran, file: &str| std::fs::read(ran.out.join("checkpoints/last").join(file)).expect("a file");
    for file in ["model.safetensors", "copies.safetensors", "plugins/human-hyperparams.bin", "plugins/swa.bin"] {
        assert!(last(&unbroken, file) == last(&resumed, file), "they differ in {file}");
    }
}

#[test]
fn a_mode_against_the_metrics_direction_is_a_warning() {
    let ran = SmallRun::with_libraries(&["standard", "checkpoint", "recorder"])
        .set("train.epochs=1")
        .instance("kind = 'early-stopping'\noptions = { metric = 'val_loss', mode = 'max' }")
        .instance("kind = 'save-best'\noptions = { metric = 'val_accuracy', mode = 'max', load_at_end = false }")
        .instance("kind = 'checkpoint'\noptions = { keep_best = [{ metric = 'val_accuracy', mode = 'min' }] }")
        .recorder("a", "when = { best = { val_loss = 'max' } }", "")
        .run()
        .succeeded();
    let stderr = ran.stderr();
    let warnings: Vec<&str> = stderr.lines().map(str::trim).filter(|line| line.contains("for better")).collect();
    insta::assert_snapshot!(warnings.join("\n"), @"
    WARN `early-stopping` takes a higher `val_loss` for better, since `mode` is `max`, but it is better lower: change `mode` unless that is meant
    WARN `checkpoint` takes a lower `val_accuracy` for better, since `mode` is `min`, but it is better higher: change `mode` unless that is meant
    WARN `a` takes a higher `val_loss` for better, since `when.best.val_loss` is `max`, but it is better lower: change `when.best.val_loss` unless that is meant
    ");
}
