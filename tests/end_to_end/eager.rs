//! Exported programs against eager PyTorch: the same data, seed and optimizer, and each bit of what comes out. What PyTorch
//! does is in `tests/eager.py`.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use fixture::{build_workspace_plugins, host, lines, temporary_folder, workspace_root};
use safetensors::{Dtype, SafeTensors};

use crate::training::{Training, read_json};

const RUN: &str = r#"
[run]
name = "eager"
seed = 7
threads = 1
kernels = "libtorch"
device = "cpu"
by_default = false

DATA

[model]
exported = "model.pt2"

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
"#;

pub const IMAGES: &str = r#"
[data]
format = "safetensors"
path = "data.safetensors"
inputs = "inputs"
targets = "targets"
classes = 10
shuffle = false
"#;

/// The names of the inputs are those of the program's arguments.
const MASKED: &str = r#"
[data]
format = "safetensors"
path = "data.safetensors"
inputs = { inputs = "inputs", mask = "mask" }
targets = "targets"
classes = 10
shuffle = false
"#;

pub const TEXT: &str = r#"
[data]
format = "text"
path = "data.txt"
tokens = "characters"
context = 12
shuffle = false
"#;

const EXPORTING: &str = "[[plugins]]\nkind = \"checkpoint\"\n\n[[plugins]]\nkind = \"onnx\"\n";

/// The nets of the script.
const NETS: [&str; 11] =
    ["mlp", "cnn", "lstm", "gru", "vit", "gpt2", "bert", "resnet18", "mobilenet_v3_small", "efficientnet_b0", OWN_LOSS];

/// The net that takes a mask and gives its own loss.
const OWN_LOSS: &str = "bert_classifier";

/// The Python with PyTorch; `None`, which is told, where these tests do not run.
pub fn python() -> Option<OsString> {
    if std::env::var_os("HOST_TEST_LONG").is_none() {
        eprintln!("skipped: a long test; `cargo xtask test --long` runs it");
        return None;
    }
    let python = std::env::var_os("HOST_TEST_PYTORCH");
    if python.is_none() {
        fixture::skipped("`HOST_TEST_PYTORCH` names no Python that has the packages of tests/requirements-pytorch.txt");
    }
    python
}

#[test]
fn exported_programs_train_as_eager_pytorch_to_the_last_bit() {
    let Some(python) = python() else { return };
    let folder = temporary_folder();
    let script = workspace_root().join("tests/eager.py");
    let output = Command::new(python).arg("-P").arg(script).arg(folder.path()).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // All nets, whatever the first differences are.
    let differences: String = NETS.iter().map(|net| differences(net, &folder.path().join(net))).collect();
    assert!(differences.is_empty(), "{differences}");
}

/// A model of timm, by the lines that the host shows, to a run that is resumed and a verified ONNX file.
#[test]
fn the_shown_lines_take_a_strangers_model_to_a_verified_export() {
    let Some(python) = python() else { return };
    let shown = host().args(["model", "--explain-export"]).output().expect("the host starts");
    let shown = String::from_utf8(shown.stdout).expect("UTF-8");
    let lines: Vec<&str> = shown.lines().take_while(|line| !line.starts_with("and name")).skip(1).collect();
    let lines: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("    ")).collect();
    let script = format!("import timm\n{}\n", lines.join("\n"))
        .replace("MyModel()", "timm.create_model(\"resnet18\", num_classes=10, in_chans=1)")
        .replace("torch.randn(4, 3, 64, 64)", "torch.randn(4, 1, 8, 8)");

    let training =
        Training::new(EXPORTING).without_model().with("[train]\n", "[model]\nexported = \"model.pt2\"\n\n[train]\n");
    let mut export = Command::new(python);
    let output = export.args(["-P", "-c", &script]).current_dir(training.folder().0).output().expect("Python starts");
    assert!(output.status.success(), "{script}{}", String::from_utf8_lossy(&output.stderr));
    let constant = "train.schedule={ type = \"constant\" }";
    training.run("run", &["--set", constant, "--set", "train.epochs=1"]);
    let output = training.run("run", &["--set", constant, "--set", "train.epochs=2"]);
    let told = String::from_utf8_lossy(&output.stderr);
    let status = read_json(&training.path("run/status.json"));
    assert_eq!((&status["position"]["epoch"], &status["failures"]), (&2.into(), &serde_json::json!([])), "{told}");
    assert_eq!(status["artifacts"]["exports"], serde_json::json!(["exports/model.onnx"]), "{told}");
    assert!(told.contains("resuming after epoch 1"), "{told}");
}

/// Trains a net with the host, and says in which of the losses and tensors it differs from PyTorch's.
fn differences(net: &str, folder: &Path) -> String {
    let (data, loss) = match net {
        OWN_LOSS => (MASKED, "model"),
        _ if folder.join("data.txt").exists() => (TEXT, "cross_entropy"),
        _ => (IMAGES, "cross_entropy"),
    };
    let run_file = RUN.replace("DATA", data).replace("\"cross_entropy\"", &format!("\"{loss}\""));
    std::fs::write(folder.join("run.toml"), run_file).expect("the run file can be written");
    let mut command = host();
    command.arg("run").arg("run.toml").arg("--out").arg("run").current_dir(folder);
    for library in build_workspace_plugins().values() {
        command.arg("--plugins").arg(library);
    }
    let output = command.output().expect("the host starts");
    assert!(output.status.success(), "{net}: {}", String::from_utf8_lossy(&output.stderr));

    let mut told = String::new();
    let expected = read_json(&folder.join("losses.json"));
    let steps = lines(&folder.join("run/metrics.jsonl"));
    let losses: Vec<f64> = steps.iter().filter_map(|line| line["step_loss"].as_f64()).collect();
    let expected: Vec<f64> = expected.as_array().expect("a list").iter().filter_map(|loss| loss.as_f64()).collect();
    assert_eq!(losses.len(), expected.len(), "{net}");
    if let Some(first) = (0..losses.len()).find(|step| losses[*step].to_bits() != expected[*step].to_bits()) {
        let largest =
            losses.iter().zip(&expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max);
        let _ = writeln!(told, "{net}: losses differ from step {} on, by at most {largest:e}", first + 1);
    }

    let read = |path: &str| std::fs::read(folder.join(path)).unwrap_or_else(|error| panic!("{net}/{path}: {error}"));
    let (found, expected) = (read("run/checkpoints/last/model.safetensors"), read("trained.safetensors"));
    let [found, expected] = [&found, &expected].map(|bytes| SafeTensors::deserialize(bytes).expect("safetensors"));
    let names = |tensors: &SafeTensors<'_>| {
        let mut names: Vec<String> = tensors.names().into_iter().map(ToString::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(names(&found), names(&expected), "{net}");
    for name in names(&expected) {
        let [found, expected] = [&found, &expected].map(|tensors| tensors.tensor(&name).expect("it is named"));
        assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()), "{net}: {name}");
        if found.data() != expected.data() {
            let largest = match expected.dtype() {
                Dtype::F32 => {
                    let pairs = floats(found.data()).zip(floats(expected.data()));
                    pairs.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
                }
                _ => f32::NAN,
            };
            let _ = writeln!(told, "{net}: `{name}` differs by at most {largest:e}");
        }
    }
    told
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}
