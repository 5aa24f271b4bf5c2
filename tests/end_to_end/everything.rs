//! The example with every kind of callback in one run.

use std::collections::BTreeSet;

use fixture::{build_workspace_plugins, host, lines, temporary_folder, workspace_root};
use serde_json::Value;

use crate::training::read_json;

#[test]
fn every_kind_takes_part_in_one_run() {
    let file = workspace_root().join("examples/everything/run.toml");
    let text = std::fs::read_to_string(&file).expect("the run file");
    let declared: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("kind = \"")?.strip_suffix('"')).collect();
    let mut list = host();
    list.args(["plugins", "list", "--json"]);
    let folder = temporary_folder();
    let out = folder.path().join("run");
    let mut run = host();
    run.arg("run").arg(&file).arg("--out").arg(&out).args(["--set", "run.device=cpu"]);
    for library in build_workspace_plugins().values() {
        list.arg("--plugins").arg(library);
        run.arg("--plugins").arg(library);
    }
    let listed = list.output().expect("the host starts");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("a list");
    let shipped: BTreeSet<&str> =
        listed.as_array().expect("a list").iter().filter_map(|kind| kind["kind"].as_str()).collect();
    assert_eq!(declared, shipped);

    // Nobody listens at the port 9 of this machine.
    run.env("MLFLOW_TRACKING_URI", "http://127.0.0.1:9").env("EVERYTHING_WEBHOOK", "http://127.0.0.1:9/hook");
    let output = run.output().expect("the host starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let status = read_json(&out.join("status.json"));
    assert_eq!((&status["state"], &status["failures"]), (&"finished".into(), &serde_json::json!([])), "{stderr}");
    assert_eq!(status["position"]["global_step"], 160);
    for file in [
        "metrics.csv",
        "report.html",
        "best.safetensors",
        "checkpoints/last/manifest.json",
        "exports/model.onnx",
        "exports/model.tflite",
        "exports/model.safetensors",
        "tensors",
        "parameter-images",
        "wandb",
    ] {
        assert!(out.join(file).exists(), "there is no `{file}`: {stderr}");
    }
    // What one kind puts, another one writes.
    let rows = lines(&out.join("metrics.jsonl"));
    let measured: BTreeSet<&String> = rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys()).collect();
    for metric in ["all_accuracy", "all_top2_error", "val_accuracy", "samples_per_second"] {
        assert!(measured.iter().any(|name| *name == metric), "`{metric}` is missing: {measured:?}");
    }
    let accuracy = status["metrics"]["val_accuracy"].as_f64();
    assert!(accuracy.is_some_and(|accuracy| accuracy > 0.9), "{accuracy:?}");
}
