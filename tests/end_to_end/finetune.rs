//! The example that fine-tunes an exported model, as its page says.

use std::path::{Path, PathBuf};
use std::process::Output;

use fixture::{TempDir, build_workspace_plugins, host, temporary_folder, workspace_root};

use crate::training::read_json;

/// A copy of the example.
fn example() -> TempDir {
    let folder = temporary_folder();
    for name in ["pretrain.toml", "finetune.toml", "lora.toml", "resnet.pt2", "low.csv.gz", "high.csv.gz"] {
        let from = workspace_root().join("examples/finetune").join(name);
        std::fs::copy(from, folder.path().join(name)).expect("a file of the example");
    }
    folder
}

fn run(folder: &Path, run_file: &str, out: &str) -> Output {
    let mut run = host();
    run.arg("run").arg(folder.join(run_file)).arg("--out").arg(folder.join(out)).args(["--set", "run.device=cpu"]);
    for library in build_workspace_plugins().values() {
        run.arg("--plugins").arg(library);
    }
    let output = run.output().expect("the host starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn accuracy(run: PathBuf) -> f64 {
    read_json(&run.join("status.json"))["metrics"]["val_accuracy"].as_f64().expect("the accuracy")
}

fn tensor(run: PathBuf, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(run.join("checkpoints/last/model.safetensors")).expect("the weights");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    tensors.tensor(name).expect("PyTorch's name").data().to_vec()
}

#[test]
fn pretrained_weights_help_where_images_are_few() {
    let folder = example();
    let path = |name: &str| folder.path().join(name);
    run(folder.path(), "pretrain.toml", "pretrained");
    let output = run(folder.path(), "finetune.toml", "finetuned");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("skipped `head."), "{told}");
    for name in ["blocks.0.conv1.weight", "blocks.0.bn1.running_mean", "blocks.0.bn2.weight"] {
        assert!(tensor(path("pretrained"), name) == tensor(path("finetuned"), name), "{name} is frozen");
    }
    assert!(tensor(path("pretrained"), "blocks.1.conv1.weight") != tensor(path("finetuned"), "blocks.1.conv1.weight"));
    // The exporter compares what it writes with the predictions, and fails where they differ.
    let status = read_json(&path("finetuned/status.json"));
    assert_eq!(status["artifacts"]["exports"], serde_json::json!(["exports/model.onnx"]), "{told}");
    assert_eq!(status["failures"], serde_json::json!([]), "{told}");

    // With adapters, which exporters do not see.
    let output = run(folder.path(), "lora.toml", "adapted");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("lora: rank 4, 9 weights; 5965 of 42541 parameters are trained"), "{told}");
    for name in ["blocks.0.conv1.weight", "blocks.1.bn1.running_mean", "blocks.2.shortcut.weight"] {
        assert!(tensor(path("pretrained"), name) == tensor(path("adapted"), name), "{name} is of the base");
    }
    let status = read_json(&path("adapted/status.json"));
    let exports =
        ["model.safetensors", "model-peft/adapter_model.safetensors", "model-peft/adapter_config.json", "model.onnx"];
    let exports: Vec<String> = exports.iter().map(|name| format!("exports/{name}")).collect();
    assert_eq!(status["artifacts"]["exports"], serde_json::json!(exports), "{told}");
    assert_eq!(status["failures"], serde_json::json!([]), "{told}");

    // The same from the program's own random weights.
    let text = std::fs::read_to_string(path("finetune.toml")).expect("the run file");
    let is_kept = |line: &&str| !line.starts_with("init_from") && !line.starts_with("freeze");
    std::fs::write(path("scratch.toml"), text.lines().filter(is_kept).collect::<Vec<_>>().join("\n")).expect("a file");
    run(folder.path(), "scratch.toml", "from-scratch");
    let [pretrained, finetuned, adapted, scratch] =
        ["pretrained", "finetuned", "adapted", "from-scratch"].map(|name| accuracy(path(name)));
    assert!(pretrained > 0.97 && finetuned > scratch + 0.02, "{pretrained} {finetuned} {scratch}");
    assert!(adapted > 0.82, "{adapted}");
}
