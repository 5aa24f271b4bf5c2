//! Callbacks that steer the training itself, in the real loop: `freeze`, `limit-batches`, `step-eval`, `lr-finder`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::resume::{PLUGINS, goes_on};
use crate::small_run::{Ran, SmallRun};
use crate::training::Training;

/// The bytes of each tensor in a file.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    file.tensors().into_iter().map(|(name, tensor)| (name, tensor.data().to_vec())).collect()
}

/// The tensors of a file in two checkpoints that have the same bytes in both.
fn unchanged(training: &Training, file: &str, [before, after]: [&str; 2]) -> Vec<String> {
    let of = |checkpoint: &str| tensors(&training.path("out/checkpoints").join(checkpoint).join(file));
    let (before, after) = (of(before), of(after));
    assert_eq!(before.len(), after.len());
    before.into_iter().filter(|(name, bytes)| after[name] == *bytes).map(|(name, _)| name).collect()
}

const FROZEN: &str = r#"
[[plugins]]
kind = "freeze"
options = { freeze = ["conv1.*", "bn1.*"], from_epoch = 2, unfreeze_at = 4 }
"#;

#[test]
fn what_is_frozen_keeps_weights_moments_and_statistics_bit_for_bit() {
    let every = "[[plugins]]\nkind = \"checkpoint\"\noptions = { keep_last = 0 }\n";
    let training = Training::new(&format!("{FROZEN}{every}"))
        .with("epochs = 2", "epochs = 4\nclip_gradient_norm = 1.0")
        .with("[train]\n", "[train]\naccumulate = 2\n");
    training.run("out", &[]);
    let checkpoints = training.checkpoints("out/checkpoints");
    let [first, second, third, fourth] = &checkpoints[..] else { panic!("{checkpoints:?}") };
    let weights = ["bn1.bias", "bn1.weight", "conv1.bias", "conv1.weight"];
    let statistics = ["bn1.num_batches_tracked", "bn1.running_mean", "bn1.running_var"];
    let mut frozen = [&weights[..2], &statistics, &weights[2..]].concat();
    frozen.sort_unstable();
    assert_eq!(unchanged(&training, "model.safetensors", [first, third]), frozen);
    let states = ["exp_avg", "exp_avg_sq", "step"].map(|state| weights.map(|name| format!("{state}.{name}")));
    assert_eq!(unchanged(&training, "optimizer.safetensors", [first, third]), states.concat());
    // And learn again.
    assert_eq!(unchanged(&training, "model.safetensors", [third, fourth]), [""; 0]);
    assert_eq!(unchanged(&training, "model.safetensors", [first, second]), frozen);
    // Twelve updates an epoch: the optimizer counts on from the first one's.
    let step = |name: &str| {
        let file = training.path("out/checkpoints").join(fourth).join("optimizer.safetensors");
        let bytes = <[u8; 4]>::try_from(&tensors(&file)[&format!("step.{name}")][..]).expect("an f32");
        f32::from_le_bytes(bytes)
    };
    assert_eq!((step("conv1.weight"), step("fc1.weight")), (24.0, 48.0));
}

#[test]
fn a_frozen_run_resumes_from_anywhere() {
    let frozen = FROZEN.replace("from_epoch = 2, unfreeze_at = 4", "unfreeze_at = 2");
    let checkpoints = ["checkpoints/epoch-0001-step-00000005", "epochs/epoch-0001-step-00000023"];
    goes_on(&Training::new(&format!("{frozen}{PLUGINS}")), &checkpoints, "checkpoints/epoch-0002-step-00000046");
    let by_run_file = Training::new(PLUGINS).with("[model]\n", "[model]\nfreeze = [\"conv1.*\", \"*.bias\"]\n");
    goes_on(&by_run_file, &["checkpoints/epoch-0002-step-00000040"], "checkpoints/epoch-0002-step-00000046");
    let file = |checkpoint: &str| tensors(&by_run_file.path("unbroken").join(checkpoint).join("model.safetensors"));
    let [before, after] = ["checkpoints/epoch-0001-step-00000005", "checkpoints/epoch-0002-step-00000046"].map(file);
    let is_frozen = |name: &String| name.starts_with("conv1.") || name.ends_with(".bias");
    for (name, bytes) in before {
        assert_eq!(after[&name] == bytes, is_frozen(&name), "{name}");
    }
}

#[test]
fn what_cannot_be_frozen_is_told_before_the_training() {
    let told = |ran: Ran, message: &str| {
        assert!(ran.code() != Some(0) && ran.stderr().contains(message), "{message}: {}", ran.shown());
    };
    told(
        SmallRun::new().with("[model]\n", "[model]\nfreeze = ['fc1.*', 'fx2.*']\n").run(),
        "there is no parameter `fx2.*`; did you mean `fc2.*`",
    );
    told(SmallRun::new().with("[model]\n", "[model]\nfreeze = ['*']\n").run(), "so that nothing would learn");
    let instance = "kind = 'freeze'\noptions = { freeze = ['fx2.*'], from_epoch = 2 }";
    let ran = SmallRun::with_libraries(&["standard", "recorder"]).instance(instance).recorder("a", "", "").run();
    assert!(ran.lines_of("a", "epoch_start").is_empty(), "{}", ran.shown());
    told(ran, "did you mean `fc2.*`");
}

/// Three epochs of five of the 23 steps, and evaluations of one of two batches.
fn limited() -> SmallRun {
    SmallRun::with_libraries(&["standard", "recorder", "checkpoint"])
        .with("batch_size = 480", "batch_size = 64")
        .set("train.epochs=3")
        .set("train.schedule={ type = 'cosine' }")
        .recorder("a", "", "")
        .instance("kind = 'limit-batches'\noptions = { batches = { train = 5, val = 1 } }")
        .instance("kind = 'json-lines'")
}

#[test]
fn an_epoch_of_the_first_batches_is_a_whole_one() {
    let ran = limited().run().succeeded();
    let steps: Vec<_> = ran.lines_of("a", "epoch_end").iter().map(|line| line["global_step"].as_u64()).collect();
    assert_eq!(steps, [Some(5), Some(10), Some(15)], "{}", ran.shown());
    let samples = ran.lines_of("a", "epoch_end")[2]["samples"].as_u64();
    assert_eq!(samples, Some(15 * 64));
    let evaluations = ran.lines_of("a", "eval_start");
    assert!(evaluations.len() == 3 && evaluations.iter().all(|line| line["texts"]["batches"] == 1), "{evaluations:?}");
    let lines = fixture::lines(&ran.out.join("metrics.jsonl"));
    let rates: Vec<f64> = lines.iter().filter_map(|line| line["learning_rate"].as_f64()).collect();
    // The rate of the last of 15 updates, not of 69.
    let cosine = |done: f64| 0.01 * 0.5 * (1.0 + (std::f64::consts::PI * done / 15.0).cos());
    for (rate, done) in rates.iter().zip([4.0, 9.0, 14.0]) {
        assert!((rate - cosine(done)).abs() < 1e-9, "{rates:?}");
    }
    assert_eq!(ran.status()["progress"].as_f64(), Some(1.0), "{}", ran.status());
}

#[test]
fn a_limited_run_resumes_from_anywhere() {
    let limit = "[[plugins]]\nkind = \"limit-batches\"\noptions = { batches = { train = 7, val = 1 } }\n";
    let checkpoints = ["checkpoints/epoch-0001-step-00000005", "epochs/epoch-0001-step-00000007"];
    goes_on(&Training::new(&format!("{limit}{PLUGINS}")), &checkpoints, "checkpoints/epoch-0002-step-00000014");
}

#[test]
fn a_step_is_evaluated_once_whoever_asks() {
    let run = |every: &str, length: &str| {
        SmallRun::with_libraries(&["standard", "recorder"])
            .with("epochs = 2", length)
            .set(&format!("eval.every={every}"))
            .recorder("a", "", "")
            .instance("kind = 'step-eval'\nwhen = { every = '1 step' }")
            .instance("kind = 'step-eval'\nname = 'again'\nwhen = { every = '3 steps' }")
            .run()
            .succeeded()
    };
    // The run of six steps ends with an epoch, that of five within one.
    for (every, length) in [("1 epoch", "epochs = 2"), ("2 steps", "epochs = 2"), ("1 epoch", "steps = 5")] {
        let ran = run(every, length);
        let ended = ran.lines_of("a", "eval_end");
        let steps: Vec<_> = ended.iter().map(|line| line["global_step"].as_u64().unwrap_or(0)).collect();
        let last = if length == "steps = 5" { 5 } else { 6 };
        assert_eq!(steps, (1..=last).collect::<Vec<_>>(), "{every}, {length}: {}", ran.shown());
    }
}

#[test]
fn a_run_after_a_range_test_is_the_run_without_it() {
    const OTHERS: &str = "[[plugins]]\nkind = \"json-lines\"\n[[plugins]]\nkind = \"checkpoint\"\n";
    let finder = |options: &str| {
        let finder = format!("[[plugins]]\nkind = \"lr-finder\"\noptions = {{ steps = 30{options} }}\n");
        Training::new(&format!("{finder}{OTHERS}"))
    };
    let (plain, training) = (Training::new(OTHERS), finder(""));
    plain.run("plain", &[]);
    let output = training.run("tested", &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("`lr-finder` suggests the learning rate "), "{said}");
    let checkpoint = plain.path("plain/checkpoints/last").display().to_string();
    training.assert_same(&checkpoint, "tested/checkpoints/last");
    assert_eq!(training.metrics("tested"), plain.metrics("plain"));

    let applied = finder(", apply = true");
    let output = applied.run("applied", &["--set", "train.epochs=1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("`lr-finder` sets the learning rate "), "{said}");
    let rate = applied.metrics("applied")[0]["learning_rate"].clone();
    assert!(rate.as_f64().is_some_and(|rate| rate > 1e-6 && rate != 0.003), "{rate}");
    let checkpoint = applied.path("applied/checkpoints/last").display().to_string();
    let output = applied.run("resumed", &["--set", "train.epochs=2", "--resume", &checkpoint]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("sets the learning rate"));
    let last: Option<Value> = applied.metrics("resumed").last().map(|line| line["learning_rate"].clone());
    assert_eq!(last, Some(rate));
}

/// All digits, 1797 rows, measured after each epoch in batches of `size`; a last batch is of other size unless `size` is 599.
fn inferring(size: &str) -> SmallRun {
    let digits = fixture::workspace_root().join("examples/digits/digits.csv.gz");
    let options = "metrics = ['loss', 'accuracy', 'top3_error'], prefix = 'all'";
    SmallRun::with_libraries(&["standard", "checkpoint", "recorder"])
        .with("batch_size = 256", &format!("batch_size = {size}"))
        .instance(&format!("kind = 'inference-runner'\noptions = {{ data = '{}', {options} }}", digits.display()))
        .instance("kind = 'early-stopping'\noptions = { metric = 'all_loss', patience = 9 }")
        .instance("kind = 'checkpoint'")
}

#[test]
fn other_data_is_measured_over_all_of_its_samples() {
    let (ragged, even) = (inferring("256").run().succeeded(), inferring("599").run().succeeded());
    let metric = |ran: &Ran, name: &str| ran.status()["metrics"][name].as_f64().expect("a number");
    for name in ["all_accuracy", "all_top3_error"] {
        assert_eq!(metric(&ragged, name), metric(&even, name), "{name}");
        let right = metric(&ragged, name) * 1797.0;
        assert!((right - right.round()).abs() < 1e-6, "{name} is of 1797 samples: {right}");
    }
    assert!((metric(&ragged, "all_loss") - metric(&even, "all_loss")).abs() < 1e-6);
    // Normalized as the run's own data, as `host evaluate --data` has it.
    let folder = fixture::temporary_folder();
    let mut command = fixture::host();
    command.arg("evaluate").arg(&ragged.out).args(["--checkpoint", "last", "--out", ".", "--data"]);
    command.arg(fixture::workspace_root().join("examples/digits/digits.csv.gz")).current_dir(folder.path());
    assert!(command.output().expect("the host starts").status.success());
    let evaluation = crate::training::read_json(&folder.path().join("evaluation.json"));
    for name in ["loss", "accuracy"] {
        assert_eq!(evaluation["metrics"][name].as_f64(), Some(metric(&ragged, &format!("all_{name}"))), "{name}");
    }
}

#[test]
fn data_that_cannot_be_measured_is_told_before_the_training() {
    let told = |options: &str, message: &str| {
        let run = SmallRun::with_libraries(&["standard", "recorder"]).recorder("a", "", "");
        std::fs::write(run.out().with_file_name("short.csv"), "1,2,3\n").expect("a file");
        let ran = run.instance(&format!("kind = 'inference-runner'\noptions = {{ {options} }}")).run();
        assert!(ran.code() != Some(0) && ran.stderr().contains(message), "{message}: {}", ran.shown());
        assert!(ran.lines_of("a", "train_start").is_empty(), "{}", ran.shown());
    };
    told("data = 'nothing.csv'", "which is not there");
    told("data = 'short.csv'", "short.csv");
    told("split = 'vall'", "there is no split `vall`; did you mean `val`?");
    told("split = 'val', metrics = ['acuracy']", "did you mean `accuracy`?");
}
