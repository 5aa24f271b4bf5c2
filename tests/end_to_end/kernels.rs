use std::path::Path;

use fixture::{shown, temporary_folder};
use serde_json::json;

use crate::small_run::SmallRun;
use crate::training::{Training, read_json};

const PLUGINS: &str = r#"
[[plugins]]
kind = "json-lines"

[[plugins]]
kind = "checkpoint"
options = { keep_last = 0 }
"#;

const FIRST: &str = "checkpoints/epoch-0001-step-00000023";
const LAST: &str = "checkpoints/epoch-0002-step-00000046";

/// The lines about kernels in what a run shows.
fn kernels(output: &std::process::Output) -> Vec<String> {
    let told = String::from_utf8_lossy(&output.stderr);
    told.lines().filter_map(|line| Some(line.strip_prefix("kernels: ")?.to_owned())).collect()
}

fn weights(training: &Training, checkpoint: &str) -> Vec<u8> {
    std::fs::read(training.path(checkpoint).join("model.safetensors")).expect("a checkpoint has weights")
}

#[test]
fn a_resumed_run_keeps_the_kernels_of_its_checkpoint() {
    let training = Training::new(PLUGINS).with("threads = 1\n", "threads = 1\nkernels = \"gemm\"\n");
    let unbroken = training.run("unbroken", &[]);
    assert!(matches!(&kernels(&unbroken)[..], [line] if line.starts_with("gemm ") && !line.contains('(')));
    let resume = training.path("unbroken").join(FIRST).display().to_string();
    let resumed = training.run("resumed", &["--resume", &resume, "--set", "run.kernels=libtorch"]);
    assert!(
        matches!(&kernels(&resumed)[..], [line] if line.starts_with("gemm ") && line.ends_with(" (from the checkpoint)"))
    );
    training.assert_same(&format!("unbroken/{LAST}"), &format!("resumed/{LAST}"));

    // Other kernels have other sums, of the same training.
    let libtorch = training.run("libtorch", &["--set", "run.kernels=libtorch"]);
    assert_eq!(kernels(&libtorch), ["libtorch"]);
    assert!(weights(&training, &format!("unbroken/{LAST}")) != weights(&training, &format!("libtorch/{LAST}")));
    let loss = |run: &str| {
        let lines = training.metrics(run);
        lines.iter().rev().find_map(|line| line["train_loss"].as_f64()).expect("a loss is recorded")
    };
    assert!((loss("unbroken") - loss("libtorch")).abs() < 1e-4);

    let state = read_json(&training.path("unbroken").join(LAST).join("state.json"));
    assert_eq!(state["modules"]["kernels"]["products"], json!("gemm"));
    assert!(state["modules"]["kernels"]["processor"].as_str().is_some_and(|kind| !kind.is_empty()));
}

/// A step of a small network needs no autograd graph; one whose inner values are read has one.
#[test]
fn who_looks_into_a_step_does_not_change_it() {
    let weights = |instances: &[&str]| {
        let run = SmallRun::with_libraries(&["checkpoint", "standard"]).set("train.clip_gradient_norm=0.5");
        let run = instances.iter().fold(run.instance("kind = 'checkpoint'"), |run, instance| run.instance(instance));
        let ran = run.run().succeeded();
        let checkpoint = ran.out.join("checkpoints/epoch-0002-step-00000006");
        ["model", "optimizer"].map(|file| {
            std::fs::read(checkpoint.join(format!("{file}.safetensors"))).expect("a checkpoint has tensors")
        })
    };
    const FREEZE: &str = "kind = 'freeze'\noptions = { freeze = ['fc1.weight'], from_epoch = 2 }";
    const DUMP: &str =
        "kind = 'dump-tensors'\nwhen = { every = '1 step' }\noptions = { tensors = ['taps', 'gradients'] }";
    for others in [&[][..], &[FREEZE]] {
        let watched: Vec<&str> = others.iter().copied().chain([DUMP]).collect();
        assert!(weights(others) == weights(&watched), "{others:?}");
    }
}

#[test]
fn kernels_that_nobody_has_are_refused() {
    let ran = SmallRun::new().set("run.kernels=gem").run();
    insta::assert_snapshot!(shown(&ran.output, &[]), @r"
    exit code: 2
    -- stderr
      × `run.kernels` cannot be `gem`
       ╭─[--set:1:13]
     1 │ run.kernels=gem
       ·             ─┬─
       ·              ╰── not known here
       ╰────
      hint: did you mean `gemm`?
    ");
}

#[test]
fn a_library_is_opened_only_by_runs_that_use_it() {
    let opened = |cache: &Path| -> Vec<String> {
        let training = Training::new("\n[[plugins]]\nkind = \"print-metrics\"\n");
        let mut command = training.command("out");
        command.args(["--set", "run.by_default=false"]).env("HOST_CACHE", cache).env("HOST_LOG", "host_plugins=debug");
        let output = command.output().expect("the host starts");
        assert!(output.status.success());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        told.lines().filter(|line| line.contains("plugin library loaded")).map(str::to_owned).collect()
    };
    let cache = temporary_folder();
    let first = opened(cache.path());
    assert!(first.len() > 10, "{first:#?}");
    let second = opened(cache.path());
    assert!(matches!(&second[..], [line] if line.contains("standard")), "{second:#?}");
    // Nothing is kept.
    assert_eq!(opened(Path::new("")).len(), first.len());
}
