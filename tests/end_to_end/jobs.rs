//! What a run trained is used again: `evaluate`, `predict` and `export` on its checkpoints.

use std::path::{Path, PathBuf};
use std::process::Output;

use fixture::{TempDir, build_workspace_plugins, host, lines, shown, temporary_folder, workspace_root};
use serde_json::Value;

use crate::small_run::{Ran, SmallRun};

/// Two epochs with checkpoints, and an export at the end.
fn trained() -> Ran {
    SmallRun::with_libraries(&["checkpoint", "onnx"])
        .with("metrics = [\"accuracy\"]", "metrics = [\"accuracy\", \"confusion_matrix\"]")
        .instance("kind = 'checkpoint'\noptions = { keep_last = 0 }")
        .instance("kind = 'onnx'\noptions = { include = ['normalize'] }")
        .run()
        .succeeded()
}

fn command(arguments: &[&str], folder: &Path) -> Output {
    host().args(arguments).current_dir(folder).output().expect("the host starts")
}

/// Code and output, without the folders.
fn told(ran: &Ran, output: &Output) -> String {
    let out = ran.out.canonicalize().expect("there is a run folder");
    shown(output, &[(&out, "[OUT]"), (&ran.out, "[OUT]"), (workspace_root(), "[ROOT]")])
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("the file is there")).expect("JSON")
}

/// The rows of the digits as text: 64 pixels and the class.
fn digits() -> Vec<String> {
    let archive = workspace_root().join("examples/digits/digits.csv.gz");
    let output = std::process::Command::new("gzip").arg("-dc").arg(archive).output().expect("gzip starts");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// A table of the first rows, changed by `change`.
fn table(folder: &Path, name: &str, change: impl Fn(&str) -> String) -> PathBuf {
    let rows: Vec<String> = digits().iter().take(50).map(|row| change(row)).collect();
    let path = folder.join(name);
    std::fs::write(&path, rows.join("\n") + "\n").expect("the table can be written");
    path
}

#[test]
fn an_evaluation_of_a_checkpoint_gives_the_metrics_of_the_training_to_the_last_bit() {
    let ran = trained();
    let output = command(&["evaluate", path(&ran.out), "--checkpoint", "last"], ran.out.parent().expect("a folder"));
    insta::assert_snapshot!(told(&ran, &output), @"
    exit code: 0
    -- stdout
    [OUT]/evaluations/epoch-0002-step-00000006/evaluation.json
    -- stderr
    checkpoint `[OUT]/checkpoints/epoch-0002-step-00000006` of run `small`: epoch 2, step 6
    METRIC    VALUE
    loss      2.071458
    accuracy  0.579387
    tables of numbers, such as a confusion matrix, are in `evaluation.json`
    359 samples of `val`: [OUT]/evaluations/epoch-0002-step-00000006/evaluation.json
    ");
    let file = ran.out.join("evaluations/epoch-0002-step-00000006/evaluation.json");
    let evaluation = json(&file);
    let status = ran.status();
    for name in ["loss", "accuracy"] {
        assert_eq!(evaluation["metrics"][name], status["metrics"][format!("val_{name}")], "{name}");
    }
    let matrix = evaluation["metrics"]["confusion_matrix"].as_array().expect("a table");
    let count: f64 = matrix.iter().flat_map(|row| row.as_array().expect("a row")).filter_map(Value::as_f64).sum();
    assert_eq!((matrix.len(), Some(count)), (10, evaluation["samples"].as_f64()));

    // The results are not replaced unless that is wanted.
    let again = command(&["evaluate", path(&ran.out), "--checkpoint", "last"], &ran.out);
    insta::assert_snapshot!(told(&ran, &again), @"
    exit code: 2
    -- stderr
      × `[OUT]/evaluations/epoch-0002-step-00000006/evaluation.json` exists already
      hint: choose another folder: `--out DIR`, or replace it: `--force`
    ");
    let forced = command(&["evaluate", path(&ran.out), "--checkpoint", "last", "--force", "--json"], &ran.out);
    assert!(forced.status.success(), "{}", told(&ran, &forced));
    assert_eq!(serde_json::from_slice::<Value>(&forced.stdout).expect("JSON"), evaluation);
}

#[test]
fn other_metrics_another_split_and_other_data_are_measured() {
    let ran = trained();
    let folder = temporary_folder();
    let out = folder.path().join("train");
    let train = command(
        &["evaluate", path(&ran.out), "--split", "train", "--set", "eval.metrics=['f1']", "--out", path(&out)],
        folder.path(),
    );
    assert!(train.status.success(), "{}", told(&ran, &train));
    let measured = json(&out.join("evaluation.json"));
    assert!(measured["metrics"]["f1"].as_f64() > Some(0.3) && measured["samples"].as_u64() > Some(1000), "{measured}");

    let data = table(folder.path(), "new.csv", str::to_owned);
    let output = command(&["evaluate", path(&ran.out), "--data", path(&data), "--out", "."], folder.path());
    assert!(output.status.success(), "{}", told(&ran, &output));
    let measured = json(&folder.path().join("evaluation.json"));
    assert_eq!((measured["samples"].as_u64(), measured["split"].as_str()), (Some(50), Some("data")));
}

#[test]
fn predictions_have_classes_with_probabilities_with_targets_and_without() {
    let ran = trained();
    let folder = temporary_folder();
    let with = table(folder.path(), "with.csv", str::to_owned);
    let without = table(folder.path(), "without.csv", |row| row.rsplit_once(',').expect("columns").0.to_owned());
    let predict = |data: &Path, out: &str, more: &[&str]| {
        let arguments = [&["predict", path(&ran.out), "--data", path(data), "--out", out], more].concat();
        let output = command(&arguments, folder.path());
        assert!(output.status.success(), "{}", told(&ran, &output));
        folder.path().join(out)
    };
    let rows = |path: PathBuf| -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(path).expect("a table");
        reader.records().map(|row| row.expect("a row").iter().map(str::to_owned).collect()).collect()
    };
    let labelled = rows(predict(&with, "labelled", &[]).join("predictions.csv"));
    assert_eq!(labelled[0][..7], ["index", "source", "target", "prediction", "probability", "p_0", "p_1"]);
    assert_eq!(labelled.len(), 51);
    let digits = digits();
    for (index, row) in labelled[1..].iter().enumerate() {
        assert_eq!(row[0], index.to_string());
        assert!(row[1].ends_with(&format!("with.csv:{}", index + 1)), "{}", row[1]);
        assert_eq!(digits[index].rsplit_once(',').map(|(_, class)| class), Some(row[2].as_str()));
        let probabilities: Vec<f64> = row[5..].iter().map(|number| number.parse().expect("a number")).collect();
        let likeliest = probabilities.iter().copied().fold(0.0, f64::max);
        assert_eq!((row[4].parse(), probabilities.len()), (Ok(likeliest), 10));
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
        assert_eq!(row[3].parse::<usize>().ok(), probabilities.iter().position(|value| *value == likeliest));
    }
    // Without targets the same is predicted.
    let unlabelled = rows(predict(&without, "unlabelled", &[]).join("predictions.csv"));
    for (with, without) in labelled[1..].iter().zip(&unlabelled[1..]) {
        assert_eq!((without[2].as_str(), &without[3..]), ("", &with[3..]));
    }
    // The other formats hold the same numbers.
    let objects = lines(&predict(&with, "objects", &["--format", "jsonl"]).join("predictions.jsonl"));
    let arrays = std::fs::read(predict(&with, "arrays", &["--format", "npy"]).join("predictions.npy")).expect("a file");
    assert_eq!((objects.len(), arrays.len()), (50, 128 + 50 * 10 * 4));
    for (index, (object, row)) in objects.iter().zip(&labelled[1..]).enumerate() {
        assert_eq!((object["prediction"].as_str(), object["target"].as_str()), (Some(&*row[3]), Some(&*row[2])));
        let number = f32::from_le_bytes(arrays[128 + index * 40..][..4].try_into().expect("four bytes"));
        assert_eq!(row[5].parse(), Ok(number));
    }
}

#[test]
fn predictions_and_the_exported_model_agree_on_stored_numbers() {
    let Some(python) = fixture::python() else { return };
    let ran = trained();
    let folder = temporary_folder();
    let data = table(folder.path(), "new.csv", str::to_owned);
    let exported = command(
        &[
            "export",
            path(&ran.out),
            "--plugins",
            path(&build_workspace_plugins()["onnx"]),
            "--plugin",
            "onnx",
            "--set",
            "plugins.onnx.options={ include = ['normalize', 'softmax'] }",
            "--out",
            "exported",
        ],
        folder.path(),
    );
    insta::assert_snapshot!(told(&ran, &exported).replace(path(folder.path()), "[FOLDER]"), @"
    exit code: 0
    -- stdout
    [FOLDER]/exported/model.onnx
    -- stderr
    checkpoint `[OUT]/checkpoints/epoch-0002-step-00000006` of run `small`: epoch 2, step 6
    exported: [FOLDER]/exported/model.onnx
    ");
    let predicted = command(&["predict", path(&ran.out), "--data", path(&data), "--out", "."], folder.path());
    assert!(predicted.status.success(), "{}", told(&ran, &predicted));
    const COMPARE: &str = "
import csv, sys
import numpy, onnxruntime
rows = numpy.loadtxt('new.csv', delimiter=',', dtype=numpy.float32)
session = onnxruntime.InferenceSession('exported/model.onnx', providers=['CPUExecutionProvider'])
outputs = session.run(None, {session.get_inputs()[0].name: rows[:, :64]})[0]
predicted = numpy.array([[float(x) for x in row[5:]] for row in list(csv.reader(open('predictions.csv')))[1:]])
print(abs(outputs - predicted).max())
";
    let output = std::process::Command::new(python)
        .args(["-c", COMPARE])
        .current_dir(folder.path())
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let difference: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    assert!(difference < 1e-5, "{difference}");
    // Files that are there stay.
    let again = command(
        &[
            "export",
            path(&ran.out),
            "--plugins",
            path(&build_workspace_plugins()["onnx"]),
            "--plugin",
            "onnx",
            "--out",
            "exported",
        ],
        folder.path(),
    );
    assert_eq!(again.status.code(), Some(2), "{}", told(&ran, &again));
    assert_eq!(std::fs::read_dir(folder.path().join("exported")).expect("a folder").count(), 1);
}

#[test]
fn what_does_not_fit_is_told_with_what_differs() {
    let ran = trained();
    let folder = temporary_folder();
    let predict = |data: &Path, job: &str| {
        let output = command(&[job, path(&ran.out), "--data", path(data), "--out", "."], folder.path());
        told(&ran, &output).replace(path(folder.path()), "[FOLDER]")
    };
    let short = table(folder.path(), "short.csv", |row| row.split(',').take(9).collect::<Vec<_>>().join(","));
    insta::assert_snapshot!(predict(&short, "predict"), @"
    exit code: 2
    -- stderr
      × `[FOLDER]/short.csv` has 9 columns, but `[ROOT]/examples/digits/digits.csv.gz` has 65
    ");
    let unknown =
        table(folder.path(), "unknown.csv", |row| row.rsplit_once(',').expect("columns").0.to_owned() + ",77");
    insta::assert_snapshot!(predict(&unknown, "evaluate"), @"
    exit code: 2
    -- stderr
      × `[FOLDER]/unknown.csv` line 1, column 65 (index 64): `77` is not a class; the classes are 0 to 9
    ");
    let without = table(folder.path(), "without.csv", |row| row.rsplit_once(',').expect("columns").0.to_owned());
    insta::assert_snapshot!(predict(&without, "evaluate"), @"
    exit code: 2
    -- stderr
      × `[FOLDER]/without.csv` has no column `64` to compare with
      hint: `host predict` needs no targets
    ");
    let empty = folder.path().join("empty.csv");
    std::fs::write(&empty, "").expect("a file");
    insta::assert_snapshot!(predict(&empty, "predict"), @"
    exit code: 2
    -- stderr
      × `[FOLDER]/empty.csv` has no samples
    ");
    let nothing = command(&["evaluate", path(folder.path())], folder.path());
    insta::assert_snapshot!(told(&ran, &nothing).replace(path(folder.path()), "[FOLDER]"), @"
    exit code: 2
    -- stderr
      × `[FOLDER]` is neither a run folder nor a checkpoint
      hint: `host list` shows the run folders in `runs`
    ");
    let no_such = command(&["evaluate", path(&ran.out), "--checkpoint", "epoch-0002-step-6"], folder.path());
    insta::assert_snapshot!(told(&ran, &no_such), @"
    exit code: 2
    -- stderr
      × there is no checkpoint `epoch-0002-step-6` in `[OUT]`
      hint: did you mean `epoch-0002-step-00000006`?
    ");
    assert!(!folder.path().join("evaluation.json").exists() && !folder.path().join("predictions.csv").exists());
}

#[test]
fn only_the_callbacks_of_the_command_are_called_and_none_of_a_training() {
    let ran = trained();
    let folder = temporary_folder();
    let data = table(folder.path(), "new.csv", str::to_owned);
    let recorder = path(&fixture::build_test_plugins()["recorder"]).to_owned();
    let hooks = |job: &[&str], name: &str| {
        let journal = folder.path().join(name);
        let option = format!("plugins.recorder.options={{ path = '{}' }}", journal.display());
        let arguments = [
            job,
            &[
                "--plugins",
                &recorder,
                "--plugin",
                "recorder",
                "--set",
                &option,
                "--out",
                name.trim_end_matches(".jsonl"),
            ],
        ]
        .concat();
        let output = command(&arguments, folder.path());
        assert!(output.status.success(), "{}", told(&ran, &output));
        let events: Vec<String> =
            lines(&journal).iter().map(|line| line["event"].as_str().expect("a text").to_owned()).collect();
        events.join(" ")
    };
    insta::assert_snapshot!(hooks(&["evaluate", path(&ran.out)], "evaluated.jsonl"), @"new setup eval_start eval_step_start eval_step_end eval_step_start eval_step_end eval_end teardown");
    insta::assert_snapshot!(hooks(&["predict", path(&ran.out), "--data", path(&data)], "predicted.jsonl"), @"new setup predict_start predict_step predict_end teardown");
}

#[test]
fn a_running_run_keeps_the_checkpoint_that_a_job_reads() {
    let ran = trained();
    let manifest = ran.out.join("checkpoints/epoch-0001-step-00000003/manifest.json");
    // As a job holds it.
    let held = std::fs::File::open(&manifest).expect("there is a checkpoint");
    held.lock_shared().expect("it can be locked");
    let go_on = |epochs: &str| {
        SmallRun::with_libraries(&["checkpoint"])
            .with("metrics = [\"accuracy\"]", "metrics = [\"accuracy\", \"confusion_matrix\"]")
            .set(epochs)
            .instance("kind = 'checkpoint'\noptions = { keep_last = 1, keep_best = [] }")
            .run_in(ran.out.clone())
            .succeeded();
    };
    let kept = |name: &str| ran.out.join("checkpoints").join(name).is_dir();
    go_on("train.epochs=4");
    assert!(!kept("epoch-0003-step-00000009") && kept("epoch-0004-step-00000012"), "only the last one is kept");
    assert!(kept("epoch-0001-step-00000003"), "and the one that is read");
    drop(held);
    go_on("train.epochs=5");
    assert!(!kept("epoch-0001-step-00000003"), "until it is not read any more");
}

/// A model over characters, trained for an instant.
fn text_run() -> (TempDir, PathBuf) {
    let folder = temporary_folder();
    std::fs::write(folder.path().join("text.txt"), "to be or not to be, that is the question. ".repeat(40))
        .expect("a file");
    let run_file = r#"
[run]
name = "text"
device = "cpu"
threads = 1
by_default = false
[data]
format = "text"
path = "text.txt"
context = 16
splits = { val = { fraction = 0.1 } }
[model]
layers = [
  { type = "embedding", num_embeddings = 15, embedding_dim = 16 },
  { type = "linear", out_features = 15 },
]
[train]
epochs = 30
batch_size = 8
loss = { type = "cross_entropy" }
optimizer = { type = "adamw", learning_rate = 3e-2 }
[eval]
split = "val"
[[plugins]]
kind = "checkpoint"
"#;
    std::fs::write(folder.path().join("run.toml"), run_file).expect("a file");
    let plugin = path(&build_workspace_plugins()["checkpoint"]).to_owned();
    let output = command(&["run", "run.toml", "--out", "out", "--plugins", &plugin, "-q"], folder.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let out = folder.path().join("out");
    (folder, out)
}

#[test]
fn texts_are_continued_and_the_seed_decides() {
    let (folder, out) = text_run();
    let continued = |more: &[&str]| {
        let arguments = [&["predict", path(&out), "--prompt", "to ", "--tokens", "40", "--force", "-q"], more].concat();
        let output = command(&arguments, folder.path());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let first = continued(&["--seed", "1"]);
    assert_eq!((first.chars().count(), first.starts_with("to ")), (3 + 40 + 1, true), "{first}");
    assert_eq!(first, continued(&["--seed", "1"]));
    assert_ne!(first, continued(&["--seed", "2"]));
    let likeliest = continued(&["--temperature", "0"]);
    assert_eq!(likeliest, continued(&["--temperature", "0", "--seed", "9"]));
    let name = std::fs::read_link(out.join("checkpoints/best")).expect("a link");
    let file = out.join("predictions").join(name).join("text.txt");
    assert_eq!(std::fs::read_to_string(file).expect("a text") + "\n", likeliest);
    let unknown = command(&["predict", path(&out), "--prompt", "Zebra"], folder.path());
    insta::assert_snapshot!(shown(&unknown, &[(folder.path(), "[FOLDER]")]), @"
    exit code: 2
    -- stderr
      × the prompt has the character 'Z', which the training text does not have
    ");
}

#[cfg(unix)]
#[test]
fn a_job_that_a_signal_ends_leaves_no_result() {
    let ran = trained();
    let folder = temporary_folder();
    let data = table(folder.path(), "new.csv", str::to_owned);
    let recorder = path(&fixture::build_test_plugins()["recorder"]).to_owned();
    let jobs = [(vec!["evaluate"], "eval_step_end"), (vec!["predict", "--data", path(&data)], "predict_step")];
    for (arguments, step) in jobs {
        let journal = folder.path().join(step);
        let option = format!(
            "plugins.recorder.options={{ path = '{}', sleep_ms = 1500, sleep_in = '{step}' }}",
            journal.display()
        );
        let mut command = host();
        command.args(&arguments).arg(&ran.out).args(["--set", "eval.batch_size=16", "--out", "results"]);
        command.args(["--plugins", &recorder, "--plugin", "recorder", "--set", &option]).current_dir(folder.path());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("the host starts");
        for _ in 0..6000 {
            if std::fs::read_to_string(&journal).is_ok_and(|text| text.contains(step)) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let id = libc::pid_t::try_from(child.id()).expect("a process number");
        // SAFETY: it passes numbers; the child was not waited for, so that the number is its own.
        assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
        let code = child.wait().expect("it ends").code();
        let mut stderr = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().expect("it is piped"), &mut stderr).expect("a text");
        assert_eq!(code, Some(143), "{stderr}");
        assert!(stderr.contains("interrupted: a signal asked for the end; nothing is written"), "{stderr}");
        let last = lines(&journal).pop().expect("a line");
        assert_eq!(last["event"], "teardown", "its end hook came");
        let left: Vec<_> = std::fs::read_dir(folder.path().join("results")).expect("a folder").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
