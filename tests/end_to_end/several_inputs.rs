//! Data with several inputs, and exported programs that take them and give their own loss. The unit tests compare their losses
//! with PyTorch's.

use std::path::PathBuf;
use std::process::Output;

use fixture::{
    TempDir, build_test_plugins, build_workspace_plugins, folder_of, host, lines, shown, temporary_folder,
    workspace_root,
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

const RUN: &str = r#"
[run]
name = "several"
seed = 5
threads = 1
device = "cpu"
by_default = false

[data]
format = "safetensors"
path = "train.safetensors"
inputs = { inputs = "ids", mask = "attention_mask" }
targets = "labels"
classes = 10
splits = { val = { fraction = 0.25, stratified = false } }

[model]
exported = "model.pt2"
inputs = { input_ids = "inputs", attention_mask = "mask", labels = "targets" }

[train]
epochs = 3
batch_size = 8
accumulate = 2
loss = { type = "model" }
metrics = ["accuracy"]
optimizer = { type = "adamw", learning_rate = 3e-3 }

[eval]
metrics = ["accuracy"]
batch_size = 16

[[plugins]]
kind = "checkpoint"
options = { background = false, keep_last = 0 }

[[plugins]]
kind = "json-lines"
"#;

const SAMPLES: usize = 60;

/// A folder with the run file, the program and the data.
struct Several {
    folder: TempDir,
    text: String,
}

impl Several {
    fn new() -> Self {
        let folder = temporary_folder();
        let program = workspace_root().join("tests/figures/exported/masked_bert.pt2");
        std::fs::copy(program, folder.path().join("model.pt2")).expect("the program can be copied");
        std::fs::write(folder.path().join("train.safetensors"), arrays(SAMPLES, true)).expect("the data is written");
        Self { folder, text: RUN.to_owned() }
    }

    fn with(mut self, part: &str, replacement: &str) -> Self {
        assert!(self.text.contains(part), "the run file has {part}");
        self.text = self.text.replace(part, replacement);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn host(&self, command: &str, arguments: &[&str]) -> Output {
        std::fs::write(self.path("run.toml"), &self.text).expect("the run file is written");
        let [standard, checkpoint] = ["standard", "checkpoint"].map(|name| build_workspace_plugins()[name].as_path());
        let plugins = folder_of([standard, checkpoint, build_test_plugins()["services"].as_path()]);
        let mut host = host();
        host.current_dir(self.folder.path()).arg(command).args(arguments);
        if command != "model" {
            host.arg("--plugins").arg(plugins.path());
        }
        host.output().expect("the host starts")
    }

    fn run(&self, out: &str, arguments: &[&str]) -> Output {
        self.host("run", &[&["run.toml", "--out", out], arguments].concat())
    }

    fn ran(&self, out: &str, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(out, arguments);
        assert!(output.status.success(), "{out}: {}", String::from_utf8_lossy(&output.stderr));
        lines(&self.path(out).join("metrics.jsonl"))
    }

    fn told(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.host(command, arguments);
        shown(&output, &[(self.folder.path(), "[FOLDER]")])
    }

    fn file(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

/// Tokens of 32 bits, masks of several lengths and labels, which are the first token's last digit.
fn arrays(masks: usize, with_labels: bool) -> Vec<u8> {
    let token = |sample: usize, place: usize| (sample * 31 + place * place * 7 + sample / 3) % 50;
    let places = || (0..SAMPLES).flat_map(|sample| (0..12).map(move |place| (sample, place)));
    let ids: Vec<u8> = places().flat_map(|(sample, place)| (token(sample, place) as i32).to_le_bytes()).collect();
    let mask: Vec<u8> =
        places().map(|(sample, place)| u8::from(place < 3 + sample * 5 % 10)).take(12 * masks).collect();
    let labels: Vec<u8> = (0..SAMPLES).map(|sample| (token(sample, 0) % 10) as u8).collect();
    let view = |dtype, shape: Vec<usize>, bytes| TensorView::new(dtype, shape, bytes).expect("a tensor");
    let mut tensors = vec![
        ("ids", view(Dtype::I32, vec![SAMPLES, 12], &ids)),
        ("attention_mask", view(Dtype::U8, vec![masks, 12], &mask)),
    ];
    if with_labels {
        tensors.push(("labels", view(Dtype::U8, vec![SAMPLES], &labels)));
    }
    safetensors::serialize(tensors, None).expect("safetensors")
}

#[test]
fn a_program_trains_on_several_inputs_by_its_own_loss_and_resumes_bit_for_bit() {
    let run = Several::new();
    let metrics = run.ran("unbroken", &[]);
    let of = |name: &str| metrics.iter().filter_map(|line| line[name].as_f64()).collect::<Vec<_>>();
    let (losses, held_out) = (of("train_loss"), of("val_loss"));
    assert!(losses.len() == 3 && losses.last() < losses.first() && held_out.len() == 3, "{metrics:?}");
    assert_eq!(of("val_accuracy").len(), 3);

    run.ran("broken", &["--set", "train.epochs=1"]);
    std::fs::remove_file(run.path("model.pt2")).expect("the program can be removed");
    run.ran("broken", &[]);
    let end = "checkpoints/epoch-0003-step-00000009";
    for name in ["model.safetensors", "optimizer.safetensors", "model.pt2", "model.json"] {
        let path = |run: &str| format!("{run}/{end}/{name}");
        assert!(run.file(&path("unbroken")) == run.file(&path("broken")), "{name} of an unbroken run");
    }

    // The mask is read.
    let other = Several::new().with("mask = \"attention_mask\"", "mask = \"ids\"");
    assert_ne!(other.ran("other", &["--set", "train.epochs=1"])[0]["train_loss"], metrics[0]["train_loss"]);
}

#[test]
fn a_checkpoint_of_several_inputs_evaluates_and_predicts_with_and_without_targets() {
    let run = Several::new();
    let metrics = run.ran("run", &[]);
    std::fs::write(run.path("new.safetensors"), arrays(SAMPLES, false)).expect("the data is written");
    let json = |output: Output, path: &str| -> Value {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&run.file(path)).expect("JSON")
    };
    let evaluated = json(
        run.host("evaluate", &["run", "--split", "val", "--checkpoint", "last", "--out", "e"]),
        "e/evaluation.json",
    );
    let last = metrics.iter().rev().find_map(|line| line["val_loss"].as_f64()).expect("a loss");
    assert_eq!(evaluated["metrics"]["loss"].as_f64(), Some(last), "{evaluated}");

    let predicted = |data: &str, out: &str| {
        let output = run.host("predict", &["run", "--data", data, "--checkpoint", "last", "--out", out]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let table = String::from_utf8(run.file(&format!("{out}/predictions.csv"))).expect("text");
        let probabilities = table.lines().skip(1).map(|line| line.rsplit_once(",").expect("columns").1.to_owned());
        probabilities.collect::<Vec<_>>()
    };
    let (known, unknown) = (predicted("train.safetensors", "known"), predicted("new.safetensors", "unknown"));
    assert!(known.len() == SAMPLES && known == unknown, "the targets have no influence on the outputs");
}

#[test]
fn callbacks_see_every_input_by_its_name() {
    let mut run = Several::new();
    let journal = run.path("journal.jsonl");
    let path = journal.display();
    run.text.push_str(&format!("\n[[plugins]]\nkind = \"batches\"\noptions = {{ path = '{path}' }}\n"));
    run.ran("run", &["--set", "train.epochs=1"]);
    let seen: Vec<String> = lines(&journal)
        .iter()
        .map(|line| {
            let answer = line.get("value").unwrap_or(&line["error"]);
            format!(
                "{} {}: {answer}",
                line["hook"].as_str().unwrap_or_default(),
                line["service"].as_str().unwrap_or_default()
            )
        })
        .collect();
    insta::assert_snapshot!(seen.join("\n"), @r#"
    train_start batch: [{"dtype":"i64","name":"inputs","shape":[8,12]},{"dtype":"i64","name":"targets","shape":[8]}]
    train_start whole batch: [{"dtype":"i64","name":"inputs","shape":[8,12]},{"dtype":"i64","name":"targets","shape":[8]},{"dtype":"i64","name":"mask","shape":[8,12]}]
    train_start predictions are those of the split: true
    train_start predict one: "the model takes 2 inputs, `inputs`, `mask`, and the request has 1: give each by its name, or a split"
    train_start predict one twice: "the model takes `inputs`, `mask`, and `mask` is missing"
    step_start batch: [{"dtype":"i64","name":"inputs","shape":[16,12]},{"dtype":"i64","name":"targets","shape":[16]},{"dtype":"i64","name":"mask","shape":[16,12]}]
    eval_step_end batch: [{"dtype":"i64","name":"inputs","shape":[15,12]},{"dtype":"i64","name":"targets","shape":[15]},{"dtype":"i64","name":"mask","shape":[15,12]}]
    "#);
}

#[test]
fn what_does_not_fit_is_told_at_its_place() {
    let refused = |run: &Several, arguments: &[&str]| {
        let output = run.run("run", arguments);
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        shown(&output, &[(run.folder.path(), "[FOLDER]")])
    };
    let table = "inputs = { inputs = \"ids\", mask = \"attention_mask\" }";
    let arguments = "inputs = { input_ids = \"inputs\", attention_mask = \"mask\", labels = \"targets\" }";
    let counts = Several::new();
    std::fs::write(counts.path("train.safetensors"), arrays(SAMPLES - 1, true)).expect("the data is written");
    insta::assert_snapshot!(refused(&counts, &[]), @r#"
    exit code: 2
    -- stderr
      × `train.safetensors` array `ids` has 60 samples, but array `attention_mask` has 59
        ╭─[run.toml:11:8]
     10 │ format = "safetensors"
     11 │ path = "train.safetensors"
        ·        ───────────────────
     12 │ inputs = { inputs = "ids", mask = "attention_mask" }
        ╰────
    "#);
    let missing = Several::new().with(arguments, "inputs = { input_ids = \"inputs\", attention_maks = \"mask\" }");
    insta::assert_snapshot!(refused(&missing, &[]), @r#"
    exit code: 2
    -- stderr
      × the exported program `[FOLDER]/model.pt2` does not fit the batches
      ╰─▶ it has no argument `attention_maks`, but `input_ids`, `attention_mask` and `labels`
        ╭─[run.toml:19:10]
     18 │ exported = "model.pt2"
     19 │ inputs = { input_ids = "inputs", attention_maks = "mask" }
        ·          ─────────────────────────────────────────────────
     20 │ 
        ╰────
      hint: did you mean `attention_mask`?
    "#);
    let one = Several::new().with(table, "inputs = \"ids\"");
    insta::assert_snapshot!(refused(&one, &[]), @r#"
    exit code: 2
    -- stderr
      × the exported program `[FOLDER]/model.pt2` does not fit the batches
      ╰─▶ its argument `attention_mask` is given `mask`, and a batch has `inputs` and `targets`
        ╭─[run.toml:19:10]
     18 │ exported = "model.pt2"
     19 │ inputs = { input_ids = "inputs", attention_mask = "mask", labels = "targets" }
        ·          ─────────────────────────────────────────────────────────────────────
     20 │ 
        ╰────
      hint: `[data] inputs` names what a batch has
    "#);
    let dtype = Several::new().with(table, "inputs = { inputs = \"labels\", mask = \"attention_mask\" }");
    insta::assert_snapshot!(refused(&dtype, &[]), @r#"
    exit code: 2
    -- stderr
      × the model's forward pass failed: its input `input_ids` is int64 of the shape [any, 12], and it is given int64 of the shape [2, 1]
        ╭─[run.toml:18:12]
     17 │ [model]
     18 │ exported = "model.pt2"
        ·            ───────────
     19 │ inputs = { input_ids = "inputs", attention_mask = "mask", labels = "targets" }
        ╰────
      hint: a sample of `[data]` has `inputs` of int64 [1], `mask` of int64 [12], `targets` of int64 []
    "#);
    let layers = Several::new()
        .with("exported = \"model.pt2\"", "layers = [{ type = \"linear\", out_features = 10 }]")
        .with(arguments, "")
        .with("{ type = \"model\" }", "{ type = \"cross_entropy\" }");
    insta::assert_snapshot!(refused(&layers, &[]), @r#"
    exit code: 2
    -- stderr
      × a batch has the inputs `inputs` and `mask`, and a model of layers or of TorchScript takes one
        ╭─[run.toml:12:1]
     11 │ path = "train.safetensors"
     12 │ inputs = { inputs = "ids", mask = "attention_mask" }
        · ───┬──
        ·    ╰── several inputs
     13 │ targets = "labels"
     14 │ classes = 10
     15 │ splits = { val = { fraction = 0.25, stratified = false } }
     16 │ 
     17 │ [model]
        ·  ──┬──
        ·    ╰── takes one
     18 │ layers = [{ type = "linear", out_features = 10 }]
        ╰────
      hint: name one array: `inputs = "…"`; several are for an exported program: `[model] exported = "model.pt2"`
    "#);
    let smoothed = Several::new().with("{ type = \"model\" }", "{ type = \"model\", label_smoothing = 0.1 }");
    insta::assert_snapshot!(refused(&smoothed, &[]), @r#"
    exit code: 2
    -- stderr
      × unknown key `label_smoothing` in `train.loss`
        ╭─[run.toml:25:26]
     24 │ accumulate = 2
     25 │ loss = { type = "model", label_smoothing = 0.1 }
        ·                          ───────┬───────
        ·                                 ╰── not known here
     26 │ metrics = ["accuracy"]
        ╰────
      hint: known keys: `type`
    "#);
    let csv = Several::new().with("\"safetensors\"", "\"csv\"").with("targets = \"labels\"", "target = 0");
    insta::assert_snapshot!(refused(&csv, &[]), @r#"
    exit code: 2
    -- stderr
      × data of the format `csv` has one input
        ╭─[run.toml:12:1]
     11 │ path = "train.safetensors"
     12 │ inputs = { inputs = "ids", mask = "attention_mask" }
        · ───┬──
        ·    ╰── several inputs
     13 │ target = 0
        ╰────
      hint: save several as arrays of one file, with `numpy.savez` or safetensors, and set `format = "npz"` or `"safetensors"`
    "#);
    let metric = Several::new().with("classes = 10", "classes = 12");
    insta::assert_snapshot!(refused(&metric, &[]), @r#"
    exit code: 2
    -- stderr
      × the metric `accuracy` compares the output with the targets, and `cross_entropy` takes one output for each of 12 classes, but the model gives [10]
        ╭─[run.toml:26:12]
     25 │ loss = { type = "model" }
     26 │ metrics = ["accuracy"]
        ·            ─────┬────
        ·                 ╰── does not fit
     27 │ optimizer = { type = "adamw", learning_rate = 3e-3 }
        ╰────
      hint: leave it out, or name another of the tensors that the model returns with `[model] output`

      × the metric `accuracy` compares the output with the targets, and `cross_entropy` takes one output for each of 12 classes, but the model gives [10]
        ╭─[run.toml:30:12]
     29 │ [eval]
     30 │ metrics = ["accuracy"]
        ·            ─────┬────
        ·                 ╰── does not fit
     31 │ batch_size = 16
        ╰────
      hint: leave it out, or name another of the tensors that the model returns with `[model] output`
    "#);
    let own = Several::new()
        .with(arguments, "")
        .with("exported = \"model.pt2\"", "layers = [{ type = \"linear\", out_features = 10 }]")
        .with(table, "inputs = \"ids\"");
    insta::assert_snapshot!(refused(&own, &[]), @r#"
    exit code: 2
    -- stderr
      × the model gives no loss of its own
        ╭─[run.toml:25:1]
     24 │ accumulate = 2
     25 │ loss = { type = "model" }
        · ──┬─
        ·   ╰── that of an exported program
     26 │ metrics = ["accuracy"]
        ╰────
      hint: a program of `[model] exported` may return one; choose another loss, as in `loss = { type = "cross_entropy" }`
    "#);
}

#[test]
fn a_run_with_other_inputs_does_not_resume() {
    let run = Several::new();
    run.ran("run", &["--set", "train.epochs=1"]);
    let other = run.with("mask = \"attention_mask\"", "mask = \"ids\"");
    let told = other.told("run", &["run.toml", "--out", "run"]);
    assert!(told.contains("`data.inputs.mask` was `\"attention_mask\"` and is `\"ids\"`"), "{told}");
    assert!(told.contains("--accept data"), "{told}");
}

#[test]
fn a_model_of_several_inputs_is_shown() {
    let run = Several::new();
    let told = run.told("model", &["run.toml"]);
    let rows: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        &["inputs", "input", "[12]"][..],
        &["mask", "input", "[12]"],
        &["mask_float", "to_float", "mask", "[12]", "0", "12"],
    ] {
        assert!(rows.iter().any(|found| found == row), "{row:?}: {told}");
    }
}

/// With one input beside the targets, the program has a graph, which ends at its output.
#[test]
fn a_model_that_gives_its_own_loss_is_exported() {
    let run = Several::new()
        .with("inputs = { inputs = \"ids\", mask = \"attention_mask\" }", "inputs = \"images\"")
        .with("{ input_ids = \"inputs\", attention_mask = \"mask\", ", "{ image = \"inputs\", ");
    let program = workspace_root().join("tests/figures/exported/scored.pt2");
    std::fs::copy(program, run.path("model.pt2")).expect("the program can be copied");
    let images: Vec<u8> = (0..SAMPLES * 64).flat_map(|pixel| (pixel as f32 * 0.37).sin().to_le_bytes()).collect();
    let labels: Vec<u8> = (0..SAMPLES).map(|sample| (sample % 10) as u8).collect();
    let tensors = [
        ("images", TensorView::new(Dtype::F32, vec![SAMPLES, 1, 8, 8], &images).expect("a tensor")),
        ("labels", TensorView::new(Dtype::U8, vec![SAMPLES], &labels).expect("a tensor")),
    ];
    std::fs::write(run.path("train.safetensors"), safetensors::serialize(tensors, None).expect("safetensors"))
        .expect("the data is written");
    let onnx = build_workspace_plugins()["onnx"].display().to_string();
    run.ran("run", &["--plugins", &onnx, "--plugin", "onnx", "--set", "train.epochs=1"]);
    let status: Value = serde_json::from_slice(&run.file("run/status.json")).expect("JSON");
    assert_eq!(status["artifacts"]["exports"], serde_json::json!(["exports/model.onnx"]), "{status}");
    assert!(status["artifacts"].get("unverified_export").is_none(), "{status}");

    // So has one of several inputs, whose file is verified; a format that has one input refuses it before the training.
    let [onnx, tflite] = ["onnx", "tflite"].map(|name| build_workspace_plugins()[name].display().to_string());
    let several = Several::new().with(
        "[[plugins]]\nkind = \"json-lines\"",
        "[[plugins]]\nkind = \"json-lines\"\n\n[[plugins]]\nkind = \"onnx\"\noptions = { verify = \"required\" }",
    );
    several.ran("run", &["--plugins", &onnx, "--set", "train.epochs=1"]);
    let status: Value = serde_json::from_slice(&several.file("run/status.json")).expect("JSON");
    assert_eq!(status["artifacts"]["exports"], serde_json::json!(["exports/model.onnx"]), "{status}");
    let told = Several::new().told("run", &["run.toml", "--out", "run", "--plugins", &tflite, "--plugin", "tflite"]);
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("the model has 2 inputs, but only one can be exported"), "{told}");
    assert!(told.contains("failed: 0 epochs, 0 steps"), "{told}");
}

/// The arrays of an npz file are those of a safetensors file.
#[test]
fn several_inputs_of_npz_train_to_the_same_numbers() {
    let run = Several::new();
    let write = "from safetensors.numpy import load_file\nimport numpy\n\
                 arrays = load_file('train.safetensors')\nnumpy.savez('train.npz', **arrays)\n\
                 numpy.savez_compressed('packed.npz', **arrays)";
    let Some(python) = fixture::python() else { return };
    let mut command = std::process::Command::new(python);
    let output = command.args(["-c", write]).current_dir(run.folder.path()).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers = |run: &Several, out: &str| {
        let losses = run.ran(out, &["--set", "train.epochs=2"]);
        losses.iter().map(|line| (line["train_loss"].clone(), line["val_loss"].clone())).collect::<Vec<_>>()
    };
    let expected = numbers(&run, "safetensors");
    let run = run.with("\"safetensors\"", "\"npz\"").with("train.safetensors", "train.npz");
    assert_eq!(numbers(&run, "npz"), expected);
    let run = run.with("train.npz", "packed.npz");
    assert_eq!(numbers(&run, "packed"), expected);
}
