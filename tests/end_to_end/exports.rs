//! The files of exporters in the run folder, read by common runtimes.

use std::process::Command;

use fixture::{build_workspace_plugins, folder_of, host, temporary_folder, workspace_root};

use crate::training::Training;

/// Prints the file's metadata, and how many digits it classifies correctly from stored pixels.
const READ: &str = "
import csv, gzip, json, subprocess, sys
import numpy, onnx, onnxruntime
model, digits, run_file = sys.argv[1:]
onnx.checker.check_model(model, full_check=True)
properties = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
with gzip.open(digits, 'rt') as file:
    table = numpy.array([[float(field) for field in row] for row in csv.reader(file)], dtype=numpy.float32)
session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
(classes,) = session.run(None, {session.get_inputs()[0].name: table[:, :64].reshape(-1, 1, 8, 8)})
print(classes.dtype, properties['run'], properties['epoch'], properties['step'], sorted(json.loads(properties['metrics']))[-1])
print(subprocess.run(['git', 'hash-object', run_file], capture_output=True, text=True).stdout.strip() == properties['run_file'])
print('right', (classes == table[:, 64]).mean() > 0.9)
";

#[test]
fn onnxruntime_reads_what_a_run_exports_at_its_best_epoch() {
    let Some(python) = fixture::python() else { return };
    let folder = temporary_folder();
    let plugins = folder_of(build_workspace_plugins().values().map(std::path::PathBuf::as_path));
    let options = [
        "--set=train.epochs=4",
        "--set=run.device=cpu",
        "--set=plugins.onnx.options={ include = [\"normalize\", \"softmax\", \"argmax\"], fold_batch_norm = true }",
        "--set=plugins.onnx.when={ best = { val_accuracy = \"max\" } }",
    ];
    let mut command = host();
    command.current_dir(folder.path()).args(["run", "--out", "out", "--plugins"]).arg(plugins.path()).args(options);
    let output = command.output().expect("the host starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let run = folder.path().join("out");
    let status = std::fs::read_to_string(run.join("status.json")).expect("the status is there");
    let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
    let exports = serde_json::json!(["exports/model.onnx", "exports/model.tflite"]);
    assert_eq!(status["artifacts"]["exports"], exports);
    assert!(status["artifacts"].get("unverified_export").is_none(), "{status}");
    let mut command = Command::new(python);
    command.args(["-c", READ]).arg(run.join("exports/model.onnx"));
    command.arg(workspace_root().join("examples/digits/digits.csv.gz")).arg(run.join("run.toml"));
    let output = command.output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = String::from_utf8_lossy(&output.stdout);
    let (epoch, step) = (&status["position"]["epoch"], &status["position"]["global_step"]);
    assert!(found.starts_with("int64 digits ") && found.ends_with("True\nright True\n"), "{found} {epoch} {step}");
}

/// Prints, for each pair of a model and its copy in eight bits, how often both choose the same class, and how many digits
/// each knows.
const COMPARE: &str = "
import csv, gzip, sys
import numpy, onnxruntime
from ai_edge_litert.interpreter import Interpreter
folder, digits = sys.argv[1:]
with gzip.open(digits, 'rt') as file:
    table = numpy.array([[float(field) for field in row] for row in csv.reader(file)], dtype=numpy.float32)
images, classes = table[:, :64].reshape(-1, 1, 8, 8), table[:, 64]
def by_onnx(name):
    session = onnxruntime.InferenceSession(f'{folder}/{name}.onnx', providers=['CPUExecutionProvider'])
    return session.run(None, {session.get_inputs()[0].name: images})[0].argmax(1)
def by_tflite(name):
    runner = Interpreter(f'{folder}/{name}.tflite').get_signature_runner('serving_default')
    (outputs,) = runner(**{next(iter(runner.get_input_details())): images}).values()
    return outputs.argmax(1)
for run in (by_onnx, by_tflite):
    whole, eight = run('whole'), run('eight')
    print((whole == eight).mean(), (whole == classes).mean(), (eight == classes).mean())
";

#[test]
fn eight_bits_choose_the_classes_that_the_model_chooses() {
    let Some(python) = fixture::python() else { return };
    let folder = temporary_folder();
    let plugins = folder_of(build_workspace_plugins().values().map(std::path::PathBuf::as_path));
    let mut command = host();
    command.current_dir(folder.path()).args(["run", "--out", "out", "--json", "--plugins"]).arg(plugins.path());
    command.args(["--set=train.epochs=4", "--set=run.device=cpu", "--set=data.normalize=\"none\""]);
    for kind in ["onnx", "tflite"] {
        // The run file's own instances take stored pixels too.
        command.arg(format!("--set=plugins.{kind}.options={{ name = \"whole\" }}"));
        command.arg(format!("--set=plugins.{kind}.when={{ at = [\"end\"] }}"));
        command.arg(format!("--plugin={kind}=eight-{kind}"));
        command.arg(format!("--set=plugins.eight-{kind}.options={{ name = \"eight\", quantize = \"int8\" }}"));
    }
    let output = command.output().expect("the host starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut command = Command::new(python);
    command.args(["-c", COMPARE]).arg(folder.path().join("out/exports"));
    let output = command.arg(workspace_root().join("examples/digits/digits.csv.gz")).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout);
    let rows: Vec<Vec<f64>> =
        told.lines().map(|line| line.split(' ').map(|number| number.parse().expect("a number")).collect()).collect();
    assert_eq!(rows.len(), 2, "{told}");
    for row in rows {
        let [agreement, whole, eight] = row[..] else { panic!("{told}") };
        assert!(agreement >= 0.99 && (whole - eight).abs() <= 0.01 && whole > 0.9, "{told}");
    }
    // What the plugins themselves measured.
    let status = std::fs::read_to_string(folder.path().join("out/status.json")).expect("the status is there");
    let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
    let [before, after] =
        ["before", "after"].map(|when| status["metrics"][format!("eight-onnx_accuracy_{when}")].as_f64());
    let difference = before.zip(after).map(|(before, after)| (before - after).abs());
    assert!(difference.is_some_and(|difference| difference <= 0.01), "{status}");
}

/// A run whose exports do not fit: no file may grow beyond the limit, as on a disk that is full.
#[test]
#[cfg(unix)]
fn a_full_disk_fails_the_export_and_leaves_nothing_of_it() {
    let folder = temporary_folder();
    let plugins = folder_of(build_workspace_plugins().values().map(std::path::PathBuf::as_path));
    // Blocks of 512 or 1024 bytes, depending on the shell. A write beyond the limit fails, and does not kill the process.
    let limited = "ulimit -f 300; trap '' XFSZ; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, "sh"]).arg(host().get_program());
    command.current_dir(folder.path()).args(["run", "--out", "out", "--plugins"]).arg(plugins.path());
    command.args(["--set=train.epochs=1", "--set=run.device=cpu", "--set=run.by_default=false"]);
    command.arg("--set=model.layers=[{ type = \"flatten\" }, { type = \"linear\", out_features = 3000 }, { type = \"linear\", out_features = 10 }]");
    command.arg(
        "--set=plugins=[{ kind = \"onnx\", on_error = \"disable\" }, { kind = \"tflite\", on_error = \"disable\" }]",
    );
    let output = command.output().expect("the host starts");
    let told = String::from_utf8_lossy(&output.stderr);
    for file in ["model.onnx", "model.tflite"] {
        assert!(told.contains(&format!("/{file}`: File too large")), "{told}");
    }
    assert!(output.status.success(), "{told}");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("out/exports")).expect("the folder is there").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// In bf16 the weights stay f32, and so do the files, whatever the outputs of the training were rounded to.
#[test]
fn a_run_in_bf16_is_exported_and_looked_into() {
    let training = Training::new(
        r#"
[[plugins]]
kind = "onnx"
options = { verify = "required" }
[[plugins]]
kind = "onnx"
name = "eight"
options = { name = "eight", quantize = "int8" }
[[plugins]]
kind = "tflite"
options = { verify = "required" }
[[plugins]]
kind = "tensorboard"
options = { every = 1, image_shape = [8, 8, 1], embeddings = 50 }
[[plugins]]
kind = "json-lines"
"#,
    )
    .with("[train]\n", "[train]\nprecision = \"bf16\"\n");
    training.run("run", &[]);
    let status = training.status("run");
    let exports = ["exports/model.onnx", "exports/eight.onnx", "exports/model.tflite"];
    assert_eq!(status["artifacts"]["exports"], serde_json::json!(exports), "{status}");
    assert!(status["artifacts"].get("unverified_export").is_none(), "{status}");
    assert!(training.path("run").join("tensorboard").is_dir());
    // What eight bits cost is measured after the last epoch, over the whole validation split.
    let metrics = training.metrics("run");
    let last = metrics.last().expect("a line");
    assert_eq!(last["kind"], "end", "{last}");
    let [before, after] = ["before", "after"].map(|when| last[format!("eight_accuracy_{when}")].as_f64());
    let accuracy = status["metrics"]["val_accuracy"].as_f64();
    let apart = |one: Option<f64>, other: Option<f64>| one.zip(other).map_or(1.0, |(one, other)| (one - other).abs());
    assert!(apart(before, accuracy) < 0.01 && apart(before, after) < 0.03, "{last} {accuracy:?}");
}

/// The background has the weights and the data, and computes with them: its files are those of the training thread.
#[test]
fn exports_in_the_background_are_those_of_the_training_thread() {
    let export = |dispatch: &str, kind: &str, options: &str| {
        let training = Training::new(&format!(
            "[[plugins]]\nkind = \"{kind}\"\ndispatch = \"{dispatch}\"\nwhen = {{ every = \"1 epoch\" }}\n\
             options = {{ name = \"{{epoch}}\", {options} }}\n"
        ));
        training.run("run", &[]);
        let file = |epoch: u64| {
            let path = training.path(&format!("run/exports/{epoch:04}.{kind}"));
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        (file(1), file(2), training.status("run")["metrics"][format!("{kind}_accuracy_after")].clone())
    };
    let eight = "quantize = \"int8\"";
    for (kind, options) in [("onnx", eight), ("tflite", eight), ("onnx", "verify = \"required\"")] {
        let (inline, behind) = (export("inline", kind, options), export("background", kind, options));
        for (inline, behind) in [(&inline.0, &behind.0), (&inline.1, &behind.1)] {
            let differing: Vec<usize> = (0..inline.len()).filter(|at| behind.get(*at) != inline.get(*at)).collect();
            // The digest of the run file, which says where the hooks run.
            let digest = 40;
            let is_digest = differing.last().zip(differing.first()).is_some_and(|(last, first)| last - first < digest);
            assert!(inline.len() == behind.len() && is_digest, "{kind}, {options}: {differing:?}");
        }
        // The runtime that verifies does not know this network in TFLite's eight bits.
        let is_measured = kind == "onnx" && options == eight;
        assert_eq!((inline.2.is_f64(), &inline.2), (is_measured, &behind.2), "{kind}, {options}");
    }
}
