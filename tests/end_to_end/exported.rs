//! Programs of `torch.export.save` in place of layers. The unit tests compare their losses with PyTorch's.

use fixture::{host, shown, workspace_root};

use crate::training::Training;

/// The small training of a net that `tests/figures/exported.py` wrote.
fn training(net: &str, plugins: &str) -> Training {
    let training =
        Training::new(plugins).without_model().with("[train]\n", "[model]\nexported = \"model.pt2\"\n\n[train]\n");
    let program = workspace_root().join(format!("tests/figures/exported/{net}.pt2"));
    std::fs::copy(program, training.path("model.pt2")).expect("the program can be copied");
    training
}

fn file(training: &Training, checkpoint: &str, name: &str) -> Vec<u8> {
    std::fs::read(training.path(checkpoint).join(name)).unwrap_or_else(|error| panic!("{checkpoint}/{name}: {error}"))
}

const PLUGINS: &str = "[[plugins]]\nkind = \"checkpoint\"\noptions = { background = false, keep_last = 0 }\n
[[plugins]]\nkind = \"json-lines\"\n";

#[test]
fn programs_train_with_dropout_and_buffers_and_resume_bit_for_bit() {
    for net in ["cnn", "vit"] {
        let training = training(net, PLUGINS);
        let constant = "train.schedule={ type = \"constant\" }";
        training.run("unbroken", &["--set", constant, "--set", "train.epochs=3"]);
        training.run("broken", &["--set", constant, "--set", "train.epochs=1"]);
        // The checkpoint holds the program.
        std::fs::remove_file(training.path("model.pt2")).expect("the program can be removed");
        let output = training.run("broken", &["--set", constant, "--set", "train.epochs=3"]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("model.pt2` is not there, and the checkpoint's copy of it is used"), "{told}");
        let end = "checkpoints/epoch-0003-step-00000069";
        for name in ["model.safetensors", "optimizer.safetensors", "model.pt2"] {
            let of = |run: &str| file(&training, &format!("{run}/{end}"), name);
            assert!(of("unbroken") == of("broken"), "{net}: {name} of an unbroken run");
        }
        let losses: Vec<f64> =
            training.metrics("unbroken").iter().filter_map(|line| line["train_loss"].as_f64()).collect();
        assert!(losses.last() < losses.first(), "{net}: {losses:?}");
    }
}

#[test]
fn a_program_is_shown_evaluated_and_frozen_as_any_model() {
    let training = training("cnn", PLUGINS).with("exported =", "freeze = [\"conv.*\"]\nexported =");
    training.run("run", &["--set", "train.epochs=2"]);
    let of = |step: &str| {
        let bytes = file(&training, &format!("run/checkpoints/{step}"), "model.safetensors");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        ["conv.weight", "head.weight"].map(|name| tensors.tensor(name).expect("PyTorch's name").data().to_vec())
    };
    let ([conv, head], [conv_after, head_after]) = (of("epoch-0001-step-00000023"), of("epoch-0002-step-00000046"));
    assert!(conv == conv_after && head != head_after);
}

const EXPORTERS: &str = "[[plugins]]\nkind = \"onnx\"\n\n[[plugins]]\nkind = \"tflite\"\n";

/// The training of a language model of 28 characters.
fn language_training(net: &str, plugins: &str) -> Training {
    let training = training(net, plugins)
        .with("target = 64\nshape = [1, 8, 8]\nclasses = 10\nnormalize = \"standard\"\n", "context = 12\n")
        .with("format = \"csv\"", "format = \"text\"\ntokens = \"characters\"")
        .with(", stratified = true", "");
    let text = "the quick brown fox jumps over the lazy dog. ".repeat(60);
    std::fs::write(training.path("text.txt"), text).expect("a text");
    let run = std::fs::read_to_string(training.path("run.toml")).expect("the run file");
    let data = run.lines().find(|line| line.starts_with("path = ")).expect("the data's path").to_owned();
    training.with(&data, "path = \"text.txt\"")
}

/// The exporters compare what their files compute with the program's outputs.
#[test]
fn programs_are_exported_and_verified() {
    let nets = ["cnn", "mobilenet", "vit"].map(|net| (net, training(net, EXPORTERS)));
    let languages = ["gpt2_text", "bert_text"].map(|net| (net, language_training(net, EXPORTERS)));
    for (net, training) in nets.into_iter().chain(languages) {
        training.run("run", &["--set", "train.epochs=1"]);
        let artifacts = &training.status("run")["artifacts"];
        let exports = serde_json::json!(["exports/model.onnx", "exports/model.tflite"]);
        assert_eq!(artifacts["exports"], exports, "{net}: {artifacts}");
        // The reader of TFLite files has not all operators of transformers; `tests/exports` runs those files in LiteRT.
        let unverified = (!["cnn", "mobilenet"].contains(&net)).then(|| serde_json::json!("exports/model.tflite"));
        assert_eq!(artifacts.get("unverified_export"), unverified.as_ref(), "{net}: {artifacts}");
    }
}

#[test]
fn a_program_is_shown_as_a_graph_or_with_what_is_not_in_one() {
    let model = |net: &str| {
        let training = training(net, "");
        let output = host().arg("model").arg(training.path("run.toml")).output().expect("the host starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let cnn = model("cnn");
    assert!(cnn.contains("conv2d") && cnn.contains("7 nodes, 98 parameters"), "{cnn}");
    let vit = model("vit");
    assert!(vit.contains("scaled_dot_product_attention") && vit.contains("p_vit_cls_token"), "{vit}");
    let reason = "the model has no graph: node `sum_1` (`aten.sum.default`): the graph has no such operator";
    let regions = model("regions");
    assert!(regions.contains(reason), "{regions}");

    let told = shown(&training("regions", EXPORTERS).output("run", &[]), &[]);
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(&format!("files are made from the model's graph, and {reason}; give the model")), "{told}");
    assert!(told.contains("failed: 0 epochs, 0 steps"), "{told}");
}

#[test]
fn what_does_not_fit_is_told_at_its_place() {
    let refused = |training: &Training, arguments: &[&str]| {
        let output = training.output("run", arguments);
        assert_eq!(output.status.code(), Some(2));
        shown(&output, &[training.folder()])
    };
    let both = training("mlp", "").with("exported =", "torchscript = \"model.pt\"\nexported =");
    insta::assert_snapshot!(refused(&both, &[]), @r#"
    exit code: 2
    -- stderr
      × `model.torchscript` and `model.exported` are both given
        ╭─[[FOLDER]/run.toml:20:1]
     19 │ [model]
     20 │ torchscript = "model.pt"
        · ─────┬─────
        ·      ╰── a model
     21 │ exported = "model.pt2"
        · ────┬───
        ·     ╰── a second model
     22 │ 
        ╰────
      hint: a run trains one model: remove one of them
    "#);
    let tokens = training("gpt2", "");
    insta::assert_snapshot!(refused(&tokens, &[]), @r#"
    exit code: 2
    -- stderr
      × the model's forward pass failed: its input `tokens` is int64 of the shape [any, 12], and it is given float32 of the shape [2, 1, 8, 8]
        ╭─[[FOLDER]/run.toml:20:12]
     19 │ [model]
     20 │ exported = "model.pt2"
        ·            ───────────
     21 │ 
        ╰────
      hint: it is given samples of the shape [1, 8, 8], as `[data]` makes them
    "#);
    let none = training("mlp", "");
    std::fs::write(none.path("model.pt2"), "not one").expect("a file");
    insta::assert_snapshot!(refused(&none, &[]), @r#"
    exit code: 2
    -- stderr
      × the exported program `[FOLDER]/model.pt2` cannot be trained
      ╰─▶ it is not a whole zip file, or is damaged: invalid Zip archive: Could not find EOCD
        ╭─[[FOLDER]/run.toml:20:12]
     19 │ [model]
     20 │ exported = "model.pt2"
        ·            ───────────
     21 │ 
        ╰────
      hint: in Python, `torch.export.save(torch.export.export(model, …), path)` writes one
    "#);
}

/// Drop path is random by itself, and no flag switches it off.
#[test]
fn a_model_whose_evaluation_is_another_one_needs_a_program_for_it() {
    let training = training("noisy", PLUGINS);
    let output = training.output("run", &[]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(shown(&output, &[training.folder()]), @r#"
    exit code: 2
    -- stderr
      × the exported program `[FOLDER]/model.pt2` cannot be trained
      ╰─▶ node `bernoulli_` (`torch.ops.aten.bernoulli_.float`): it draws random numbers in evaluation, too
        ╭─[[FOLDER]/run.toml:20:12]
     19 │ [model]
     20 │ exported = "model.pt2"
        ·            ───────────
     21 │ 
        ╰────
      hint: export the model after `model.eval()`, too, and name that file: `exported_eval = "model_eval.pt2"`
    "#);

    let program = workspace_root().join("tests/figures/exported/noisy_eval.pt2");
    std::fs::copy(program, training.path("model_eval.pt2")).expect("the program can be copied");
    let training = training.with("exported =", "exported_eval = \"model_eval.pt2\"\nexported =");
    let constant = "train.schedule={ type = \"constant\" }";
    training.run("unbroken", &["--set", constant, "--set", "train.epochs=2"]);
    training.run("broken", &["--set", constant, "--set", "train.epochs=1"]);
    // The checkpoint holds both.
    for name in ["model.pt2", "model_eval.pt2"] {
        std::fs::remove_file(training.path(name)).expect("the program can be removed");
    }
    training.run("broken", &["--set", constant, "--set", "train.epochs=2"]);
    for name in ["model.safetensors", "optimizer.safetensors", "model.pt2", "model_eval.pt2"] {
        let of = |run: &str| file(&training, &format!("{run}/checkpoints/epoch-0002-step-00000046"), name);
        assert!(of("unbroken") == of("broken"), "{name} of an unbroken run");
    }
    let losses: Vec<f64> = training.metrics("unbroken").iter().filter_map(|line| line["val_loss"].as_f64()).collect();
    assert!(losses.last() < losses.first(), "{losses:?}");
}

#[test]
fn the_lines_that_export_a_model_are_those_of_the_readme() {
    let output = host().args(["model", "--explain-export"]).output().expect("the host starts");
    assert!(output.status.success());
    let told = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(told.lines().all(|line| line.chars().count() <= 80));
    let readme = std::fs::read_to_string(workspace_root().join("host/README.md")).expect("the page");
    let section = readme.split("### A model from PyTorch").nth(1).expect("the section");
    let lines = section.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the lines");
    for line in lines.lines().filter(|line| !line.is_empty()) {
        assert!(told.contains(&format!("    {line}\n")), "{line}");
    }
}
