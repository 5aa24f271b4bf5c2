//! `[model] lora`: what is trained, what checkpoints and exports hold, and what PEFT makes of it (`tests/lora.py`).

use std::path::Path;
use std::process::Command;

use fixture::{build_workspace_plugins, host, lines, shown, temporary_folder, workspace_root};
use safetensors::SafeTensors;

use crate::eager::{IMAGES, TEXT, python};
use crate::training::{Training, read_json};

const LORA: &str = r#"lora = { rank = 2, alpha = 6, targets = ["conv1", "fc1"], train = ["fc2.*"] }"#;

const PLUGINS: &str = r#"
[[plugins]]
kind = "checkpoint"
options = { keep_last = 0 }

[[plugins]]
kind = "weights"
options = { formats = ["safetensors", "peft"] }

[[plugins]]
kind = "weights"
name = "behind"
dispatch = "background"
options = { formats = ["safetensors", "peft"], name = "behind" }

[[plugins]]
kind = "onnx"
options = { overwrite = true }
"#;

fn training(lora: &str) -> Training {
    Training::new(PLUGINS).with("[model]\n", &format!("[model]\n{lora}\n"))
}

fn names(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut names: Vec<String> = tensors.names().into_iter().map(ToString::to_string).collect();
    names.sort();
    names
}

fn tensor(path: &Path, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("the weights");
    SafeTensors::deserialize(&bytes).expect("safetensors").tensor(name).expect("it is named").data().to_vec()
}

#[test]
fn adapters_are_trained_kept_merged_and_resumed() {
    let training = training(LORA);
    let output = training.run("run", &[]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("lora: rank 2, 2 weights; 356 of 1444 parameters are trained (24.65 %)"), "{told}");
    let [first, last] = ["epoch-0001-step-00000023", "epoch-0002-step-00000046"]
        .map(|name| training.path("run/checkpoints").join(name).join("model.safetensors"));
    for base in ["conv1.weight", "conv1.bias", "fc1.weight", "fc1.bias", "bn1.weight", "bn1.running_mean"] {
        assert!(tensor(&first, base) == tensor(&last, base), "{base} is of the base");
    }
    for trained in ["conv1.lora_A.weight", "conv1.lora_B.weight", "fc1.lora_A.weight", "fc1.lora_B.weight", "fc2.bias"]
    {
        assert!(tensor(&first, trained) != tensor(&last, trained), "{trained} is trained");
    }
    let optimizer = names(&training.path("run/checkpoints/last/optimizer.safetensors"));
    assert!(optimizer.iter().all(|name| name.contains("lora_") || name.contains("fc2.")), "{optimizer:?}");

    // Exporters get merged weights, in the background, too, and of a checkpoint; `onnx` compares its file with the predictions.
    let exports = training.path("run/exports");
    let merged = exports.join("model.safetensors");
    let base: Vec<String> = names(&last).into_iter().filter(|name| !name.contains("lora_")).collect();
    assert_eq!(names(&merged), base);
    for (weight, is_merged) in
        [("conv1.weight", true), ("fc1.weight", true), ("fc1.bias", false), ("fc2.weight", false)]
    {
        assert_eq!(tensor(&merged, weight) != tensor(&last, weight), is_merged, "{weight}");
    }
    let read = |path: &str| std::fs::read(exports.join(path)).expect("an export");
    assert!(read("model.safetensors") == read("behind.safetensors"));
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        assert!(read(&format!("model-peft/{file}")) == read(&format!("behind-peft/{file}")), "{file}");
    }
    let status = training.status("run");
    assert_eq!(status["failures"], serde_json::json!([]), "{status}");
    let mut export = host();
    export.arg("export").arg(training.path("run")).args(["--plugin", "weights", "--plugin", "onnx"]);
    export.arg("--out").arg(training.path("again"));
    for library in build_workspace_plugins().values() {
        export.arg("--plugins").arg(library);
    }
    let output = export.output().expect("the host starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // A run that starts from the merged weights computes the same.
    let again = Training::new("")
        .with("[model]\n", &format!("[model]\ninit_from = '{}'\n", merged.display()))
        .with("\"batch_norm\"", "\"batch_norm\", momentum = 0.0")
        .with("learning_rate = 3e-3", "learning_rate = 0.0")
        .with("epochs = 2", "epochs = 1");
    again.run("run", &[]);
    let [before, after] = [&training, &again].map(|training| training.status("run")["metrics"]["val_loss"].clone());
    assert_eq!(before, after);

    // A resume goes on bit for bit, and only with the same adapters.
    let from = training.path("run/checkpoints/epoch-0001-step-00000023");
    training.run("resumed", &["--resume", &from.display().to_string()]);
    training.assert_same("run/checkpoints/epoch-0002-step-00000046", "resumed/checkpoints/epoch-0002-step-00000046");
    let from = from.display().to_string();
    let output = training.output("other", &["--resume", &from, "--set", "model.lora.rank=3"]);
    let told = shown(&output, &[(training.folder().0, "[FOLDER]")]);
    assert!(told.contains("`model.lora.rank` was `2` and is `3`") && told.contains("exit code: 2"), "{told}");
}

#[test]
fn what_is_wrong_with_adapters_is_told_before_the_training() {
    let training = training(LORA);
    let told = |set: &str| {
        let mut check = host();
        check.args(["config", "check"]).arg(training.path("run.toml")).args(["--set", set]);
        for library in build_workspace_plugins().values() {
            check.arg("--plugins").arg(library);
        }
        let output = check.output().expect("the host starts");
        shown(&output, &[(training.folder().0, "[FOLDER]")])
    };
    let wrong = [
        ("model.lora.targets=[\"fc3\"]", "there is no module `fc3`; did you mean `fc1` or `fc2`?"),
        ("model.lora.targets=[\"*\"]", "LoRA cannot adapt `bn1`: it is `batch_norm`"),
        ("model.lora.rank=0", "`model.lora.rank` must be at least 1, found `0`"),
        ("model.lora.train=[\"fc1.bias\"]", "`fc1.bias` cannot be trained beside the adapters: `fc1` is adapted"),
        ("model.freeze=[\"fc3.*\"]", "there is no parameter `fc3.*`; did you mean `fc1.*` or `fc2.*`?"),
    ];
    for (set, expected) in wrong {
        let told = told(set);
        assert!(told.contains(expected) && told.contains("exit code: 2"), "{set}: {told}");
    }
    assert!(told("model.freeze=[\"fc2.weight\"]").contains("exit code: 0"));
    let mut model = host();
    model.arg("model").arg(training.path("run.toml"));
    let shown = String::from_utf8(model.output().expect("the host starts").stdout).expect("UTF-8");
    assert!(shown.ends_with("lora: rank 2, 2 weights; 356 of 1444 parameters are trained (24.65 %)\n"), "{shown}");
}

const RUN: &str = r#"
[run]
name = "lora"
seed = 7
threads = 1
device = "cpu"
by_default = false

DATA

[model]
exported = "model.pt2"
init_from = { path = "start/adapter_model.safetensors", prefix = "base_model.model." }
lora = { rank = 4, alpha = 10, ADAPTED }

[train]
steps = 30
batch_size = 4
loss = { type = "cross_entropy" }
optimizer = { type = "adamw" }

[[plugins]]
kind = "checkpoint"

[[plugins]]
kind = "json-lines"
options = { every_steps = 1 }

[[plugins]]
kind = "weights"
options = { formats = ["safetensors", "peft"] }
"#;

/// The nets of the script, and which of their modules it adapts and trains.
const NETS: [(&str, &str); 5] = [
    ("vit", r#"targets = ["*.qkv", "*.fc1"], train = ["head.*"]"#),
    ("bert", r#"targets = ["*.query", "*.value"]"#),
    ("gpt2", r#"targets = ["*.c_attn"]"#),
    ("cnn", r#"targets = ["conv"], train = ["head.*"]"#),
    ("attention", r#"targets = ["attn"], train = ["head.*"]"#),
];

#[test]
fn adapters_train_as_those_of_peft_which_loads_them() {
    let Some(python) = python() else { return };
    let folder = temporary_folder();
    let script = |more: &[&str]| {
        let mut command = Command::new(&python);
        command.arg("-P").arg(workspace_root().join("tests/lora.py")).arg(folder.path()).args(more);
        let output = command.output().expect("Python starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    script(&[]);
    for (net, adapted) in NETS {
        let own = folder.path().join(net);
        // Of a text, no other part can be the whole again.
        let data = match own.join("data.txt").exists() {
            true => TEXT.to_owned(),
            false => format!("{IMAGES}[data.splits]\ntest = {{ path = \"data.safetensors\" }}\n"),
        };
        let run_file = RUN.replace("DATA", &data).replace("ADAPTED", adapted);
        std::fs::write(own.join("run.toml"), run_file).expect("the run file can be written");
        let mut command = host();
        command.arg("run").arg("run.toml").arg("--out").arg("run").current_dir(&own);
        for library in build_workspace_plugins().values() {
            command.arg("--plugins").arg(library);
        }
        let output = command.output().expect("the host starts");
        assert!(output.status.success(), "{net}: {}", String::from_utf8_lossy(&output.stderr));
    }
    script(&["--load"]);
    for (net, _) in NETS {
        let own = folder.path().join(net);
        let numbers = |value: &serde_json::Value| -> Vec<f64> {
            value.as_array().expect("a list").iter().filter_map(serde_json::Value::as_f64).collect()
        };
        let expected = numbers(&read_json(&own.join("losses.json")));
        let steps = lines(&own.join("run/metrics.jsonl"));
        let found: Vec<f64> = steps.iter().filter_map(|line| line["step_loss"].as_f64()).collect();
        assert_eq!((found.len(), expected.len()), (30, 30), "{net}");
        let apart = |one: &[f64], other: &[f64]| {
            one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max)
        };
        let of_steps = apart(&found, &expected);
        let loaded = read_json(&own.join("loaded.json"));
        let outputs = ["merged", "adapters"].map(|which| numbers(&loaded[which]["outputs"]));
        let of_outputs = apart(&outputs[0], &outputs[1]);
        let tested = read_json(&own.join("run/status.json"))["metrics"]["test_loss"].as_f64();
        assert_eq!(tested.is_some(), !own.join("data.txt").exists(), "{net}");
        let of_loss = loaded["adapters"]["loss"].as_f64().zip(tested).map_or(0.0, |(one, other)| (one - other).abs());
        eprintln!(
            "{net}: losses differ by {of_steps:e}, outputs by {of_outputs:e}, the loss in the end by {of_loss:e}"
        );
        assert!(
            of_steps < 1e-5 && of_outputs < 1e-5 && of_loss < 1e-5,
            "{net}: {of_steps:e} {of_outputs:e} {of_loss:e}"
        );
    }
}
