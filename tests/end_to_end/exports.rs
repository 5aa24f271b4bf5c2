//! What exporters leave in the run folder, read by the runtimes that people use.

use std::process::Command;

use fixture::{build_workspace_plugins, folder_of, host, temporary_folder, workspace_root};

/// Prints what the file says of itself, and how many of the digits it knows, given as they are stored.
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
print(subprocess.run(['git', 'hash-object', run_file], capture_output=True, text=True).stdout.strip() in ('', properties['run_file']))
print('right', (classes == table[:, 64]).mean() > 0.9)
";

#[test]
fn onnxruntime_reads_what_a_run_exports_at_its_best_epoch() {
    let Some(python) = std::env::var_os("HOST_TEST_PYTHON") else {
        eprintln!("skipped: HOST_TEST_PYTHON names no Python that has `onnxruntime`");
        return;
    };
    let folder = temporary_folder();
    let plugins = folder_of(build_workspace_plugins().values().map(std::path::PathBuf::as_path));
    let options = [
        "--set=train.epochs=4",
        "--set=run.device=cpu",
        "--plugin=onnx",
        "--set=plugins.onnx.options={ include = [\"normalise\", \"softmax\", \"argmax\"], fold_batch_norm = true }",
        "--set=plugins.onnx.when={ best = { val_accuracy = \"max\" } }",
    ];
    let mut command = host();
    command.current_dir(folder.path()).args(["run", "--out", "out", "--plugins"]).arg(plugins.path()).args(options);
    let output = command.output().expect("the host starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let run = folder.path().join("out");
    let status = std::fs::read_to_string(run.join("status.json")).expect("the status is there");
    let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
    assert_eq!(status["artifacts"]["exports"], serde_json::json!(["exports/model.onnx"]));
    let mut command = Command::new(python);
    command.args(["-c", READ]).arg(run.join("exports/model.onnx"));
    command.arg(workspace_root().join("examples/digits/digits.csv.gz")).arg(run.join("run.toml"));
    let output = command.output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = String::from_utf8_lossy(&output.stdout);
    let (epoch, step) = (&status["position"]["epoch"], &status["position"]["global_step"]);
    assert!(found.starts_with("int64 digits ") && found.ends_with("True\nright True\n"), "{found} {epoch} {step}");
}
