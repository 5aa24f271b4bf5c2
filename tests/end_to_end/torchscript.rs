use fixture::{shown, workspace_root};
use serde_json::Value;

use crate::resume;
use crate::training::{Training, checks};

/// The small training of the module that `tests/figures/torchscript.py` wrote.
fn training(plugins: &str) -> Training {
    let training =
        Training::new(plugins).without_model().with("[train]\n", "[model]\ntorchscript = \"model.pt\"\n\n[train]\n");
    let module = workspace_root().join("tests/figures/torchscript.pt");
    std::fs::copy(module, training.path("model.pt")).expect("the module can be copied");
    training
}

/// A tensor of a checkpoint as numbers.
fn tensor(training: &Training, checkpoint: &str, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(training.path(checkpoint).join("model.safetensors")).expect("a file");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let data = tensors.tensor(name).unwrap_or_else(|_| panic!("no `{name}` among {:?}", tensors.names())).data();
    data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes"))).collect()
}

#[test]
fn it_trains_and_resumes_bit_for_bit_with_its_buffers() {
    let training = training(&resume::PLUGINS.replace("take_over = 9", "take_over = 0"));
    let checkpoints = ["checkpoints/epoch-0001-step-00000005", "epochs/epoch-0001-step-00000023"];
    let end = "checkpoints/epoch-0002-step-00000046";
    resume::goes_on(&training, &checkpoints, end);
    let metrics = training.metrics("unbroken");
    let of = |line: Option<&Value>, name: &str| line.and_then(|line| line[name].as_f64());
    let epochs: Vec<&Value> = metrics.iter().filter(|line| line["kind"] == "epoch").collect();
    let (first, last) = (epochs.first().copied(), epochs.last().copied());
    assert!(of(last, "train_loss") < of(first, "train_loss").map(|loss| 0.8 * loss), "{metrics:?}");
    assert!(of(last, "val_accuracy") > Some(0.8), "{metrics:?}");
    // The steps of the epoch have moved them, and the evaluation after it has not.
    for name in ["features.1.running_mean", "features.1.running_var"] {
        let at = |checkpoint: &str| tensor(&training, &format!("unbroken/{checkpoint}"), name);
        let (early, trained) = (at(checkpoints[0]), at("checkpoints/epoch-0001-step-00000023"));
        assert_ne!(early, trained, "{name}");
        assert_eq!(trained, at(checkpoints[1]), "{name}");
    }

    // A new run starts from the module's own weights, unless others are given.
    let weights = training.path("unbroken").join(end).join("model.safetensors");
    let set = format!("model.init_from={}", weights.display());
    let output = training.run("started", &["--set", &set, "--set", "train.epochs=1"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("weights: 11 of 11 tensors"), "{stderr}");
    let started = training.metrics("started");
    let accuracy = of(started.iter().find(|line| line["kind"] == "epoch"), "val_accuracy");
    assert!(accuracy > of(first, "val_accuracy"), "{accuracy:?}");
}

#[test]
fn callbacks_are_told_that_there_is_no_graph() {
    let training = training(
        "[[plugins]]\nkind = \"graph-reader\"\noptions = { path = \"JOURNAL\", gradient = \"head.weight\" }\n",
    );
    training.run("run", &["--set", "train.epochs=1"]);
    insta::assert_snapshot!(checks(&training.journal()), @"
    a model without a graph can be told by the error's kind
    graph: NoSuchName: the model has no graph: it is a program's own, or a TorchScript module
    tap of an activation: NoSuchName: the model has no graph: it is a program's own, or a TorchScript module
    graph at the end of an epoch: NoSuchName: the model has no graph: it is a program's own, or a TorchScript module
    recalibrate_batch_norm: NoSuchName: the model has no graph: it is a program's own, or a TorchScript module
    predictions with a node: NoSuchName: the model has no graph: it is a program's own, or a TorchScript module
    predictions
    ");
}

#[test]
fn exporters_of_whole_models_refuse_one_without_a_graph_before_the_training() {
    for (kind, format) in [("onnx", "ONNX"), ("tflite", "TFLite")] {
        let training = training(&format!("[[plugins]]\nkind = \"{kind}\"\n"));
        let told = shown(&training.output("run", &[]), &[training.folder()]);
        let expected = format!(
            "{format} files are made from the model's graph, and the model has no graph: it is a program's own, or a \
             TorchScript module; give the model as `[model] layers`, or export its weights with the kind `weights`"
        );
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(&expected) && told.contains("failed: 0 epochs, 0 steps"), "{told}");
    }
}

#[test]
fn misfits_are_reported_at_their_place() {
    let refused = |training: &Training, arguments: &[&str]| {
        let output = training.output("run", arguments);
        assert_eq!(output.status.code(), Some(2));
        shown(&output, &[training.folder()])
    };
    let both = training("").with("torchscript =", "layers = [{ type = \"flatten\" }]\ntorchscript =");
    insta::assert_snapshot!(refused(&both, &[]), @r#"
    exit code: 2
    -- stderr
      × `model.layers` and `model.torchscript` are both given
        ╭─[[FOLDER]/run.toml:20:1]
     19 │ [model]
     20 │ layers = [{ type = "flatten" }]
        · ───┬──
        ·    ╰── a model
     21 │ torchscript = "model.pt"
        · ─────┬─────
        ·      ╰── a second model
     22 │ 
        ╰────
      hint: a run trains one model: remove one of them
    "#);
    let none = training("");
    std::fs::write(none.path("model.pt"), "not one").expect("a file");
    insta::assert_snapshot!(refused(&none, &[]), @r#"
    exit code: 2
    -- stderr
      × `[FOLDER]/model.pt` is not a TorchScript module
      ╰─▶ libtorch failed in `torch.jit.load`: it is not a zip file
        ╭─[[FOLDER]/run.toml:20:15]
     19 │ [model]
     20 │ torchscript = "model.pt"
        ·               ──────────
     21 │ 
        ╰────
      hint: in Python, `torch.jit.script(model).save(path)` writes one; files of `torch.save` do not work
    "#);
    let missing = refused(&training(""), &["--set", "model.torchscript=nowhere.pt"]);
    assert!(missing.contains("cannot read the TorchScript module `[FOLDER]/nowhere.pt`"), "{missing}");
    let numbers = training("").with("classes = 10", "task = \"regression\"").with(", stratified = true", "");
    let outputs = refused(&numbers.with("cross_entropy", "mse"), &[]);
    assert!(outputs.contains("`mse` takes one output for each of 1 numbers, but the model gives [10]"), "{outputs}");
    let inputs = refused(&training("").with("shape = [1, 8, 8]", "shape = [64]"), &[]);
    assert!(inputs.contains("the model's forward pass failed: "), "{inputs}");
    assert!(inputs.contains("it is given samples of the shape [64]"), "{inputs}");
}

#[test]
fn a_run_whose_module_is_gone_goes_on_with_the_one_in_its_checkpoint() {
    let training = training("[[plugins]]\nkind = \"checkpoint\"\n[[plugins]]\nkind = \"json-lines\"\n");
    let constant = "train.schedule={ type = \"constant\" }";
    training.run("unbroken", &["--set", constant, "--set", "train.epochs=2"]);
    training.run("broken", &["--set", constant, "--set", "train.epochs=1"]);
    std::fs::remove_file(training.path("model.pt")).expect("the module can be removed");
    let output = training.run("broken", &["--set", constant, "--set", "train.epochs=2"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("model.pt` is not there, and the checkpoint's copy of it is used"), "{told}");
    let end = "checkpoints/epoch-0002-step-00000046";
    let weights = |run: &str| tensor(&training, &format!("{run}/{end}"), "head.weight");
    assert!(weights("unbroken") == weights("broken"), "the weights of an unbroken run");
    // Its checkpoints have the module, too.
    assert!(training.path("broken").join(end).join("model.pt").is_file());
}

#[test]
fn a_run_does_not_resume_with_another_module() {
    let training = training("[[plugins]]\nkind = \"checkpoint\"\n");
    training.run("run", &["--set", "train.epochs=1"]);
    let mut module = std::fs::read(training.path("model.pt")).expect("the module can be read");
    // A time in the archive: the module is loaded as before, but it is another file.
    module[10] ^= 1;
    std::fs::write(training.path("model.pt"), module).expect("the module can be written");
    let output = training.output("run", &[]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("the file of the model has changed"), "{told}");
}
