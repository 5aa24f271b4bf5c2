//! Callbacks that look for wrong numbers in a real training (`terminate-on-nan`, `spike-detection`, `check-numerics`), and
//! those that measure it (`moving-average`, `throughput`, `memory`, `dump-tensors`).

use std::path::Path;

use fixture::lines;
use serde_json::Value;

use crate::small_run::SmallRun;

/// A learning rate after whose first update the outputs are infinite.
fn diverging() -> SmallRun {
    SmallRun::with_libraries(&["standard", "weights", "recorder"]).with("learning_rate = 1e-2", "learning_rate = 1e30")
}

/// A number of a line of metrics.
fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("there is no number `{name}` in {line}"))
}

#[test]
fn a_gradient_that_is_nan_stops_the_run_with_finite_weights() {
    // An export refuses weights that are not finite.
    let ran = diverging()
        .instance("kind = 'terminate-on-nan'\noptions = { gradients = true }")
        .instance("kind = 'weights'")
        .recorder("later", "", "")
        .run()
        .succeeded();
    let shown = ran.shown();
    assert!(shown.contains("non_finite_gradient: the gradient of `fc1.weight` has 640 values"), "{shown}");
    assert!(shown.contains("in step 2 (4 gradients have some)"), "{shown}");
    assert_eq!(ran.status()["state"], "stopped");
    assert!(ran.out.join("exports/model.safetensors").is_file(), "{shown}");
    let events = ran.events_of("later");
    assert!(events.contains(&"train_end".to_owned()) && events.contains(&"teardown".to_owned()), "{events:?}");
}

#[test]
fn weights_and_other_metrics_are_looked_at() {
    let infinite = SmallRun::with_libraries(&["standard"])
        .with("learning_rate = 1e-2", "learning_rate = 1e39")
        .instance("kind = 'terminate-on-nan'\noptions = { weights = true }")
        .run()
        .succeeded();
    assert!(infinite.shown().contains("non_finite_weight: `fc1.weight` is NaN at element 0 after step 1"));
    let unknown = SmallRun::with_libraries(&["standard"])
        .instance("kind = 'terminate-on-nan'\noptions = { metrics = ['val_acuracy'] }")
        .run();
    let told = "`metrics` names `val_acuracy`, which this run does not give; did you mean `val_accuracy`?";
    assert!(unknown.code() == Some(1) && unknown.shown().contains(told), "{}", unknown.shown());
}

/// A training whose loss jumps up several times, and goes back to the weights of its last checkpoint.
fn jumping(epochs: u64) -> SmallRun {
    SmallRun::with_libraries(&["standard", "checkpoint"])
        .with("learning_rate = 1e-2", "learning_rate = 0.5, weight_decay = 0.0")
        .with("batch_size = 480", "batch_size = 32")
        .with("epochs = 2", &format!("epochs = {epochs}"))
        .instance("kind = 'checkpoint'")
        .instance(
            "kind = 'spike-detection'\n\
             options = { window = 20, threshold = 4, action = 'rollback', copy_every = 1000, most = 20 }",
        )
}

#[test]
fn a_resumed_run_rolls_back_as_an_unbroken_one() {
    let unbroken = jumping(4).run().succeeded();
    let first = jumping(2).run().succeeded();
    let resumed = jumping(4).arguments(["--resume", "auto"]).run_in(first.out.clone()).succeeded();
    // 45 steps an epoch: the copy is that of the checkpoint from which the run resumed.
    assert!(resumed.shown().contains("weights and optimizer are those of step 90 again"), "{}", resumed.shown());
    assert!(resumed.shown().contains("the loss jumped to"), "{}", resumed.shown());
    for file in ["model", "optimizer", "rng"] {
        let bytes =
            |out: &Path| std::fs::read(out.join(format!("checkpoints/last/{file}.safetensors"))).expect("a file");
        assert!(bytes(&unbroken.out) == bytes(&resumed.out), "they differ in {file}");
    }
}

#[test]
fn the_node_where_infinity_begins_is_named() {
    let ran = diverging().instance("kind = 'check-numerics'").run().succeeded();
    let told = "non_finite_value: the node `fc2` has 4800 values that are NaN or infinite in epoch 1, step 2";
    assert!(ran.shown().contains(told), "{}", ran.shown());
    assert_eq!(ran.status()["state"], "stopped");
}

#[test]
fn averages_speed_and_memory_are_metrics() {
    let ran = SmallRun::with_libraries(&["standard"])
        .instance("kind = 'moving-average'\noptions = { metrics = ['val_loss', 'step_loss'], window = 2 }")
        .instance("kind = 'throughput'")
        .instance("kind = 'memory'")
        .instance("kind = 'early-stopping'\noptions = { metric = 'val_loss_average' }")
        .instance("kind = 'json-lines'")
        .run()
        .succeeded();
    let lines = lines(&ran.out.join("metrics.jsonl"));
    let [first, second] = &lines[..] else { panic!("{lines:#?}") };
    let mean = f64::midpoint(number(first, "val_loss"), number(second, "val_loss"));
    assert!((number(second, "val_loss_average") - mean).abs() < 1e-9, "{second}");
    assert!(number(second, "step_loss_average") > 0.0);
    for line in [first, second] {
        assert!(number(line, "samples_per_second") > number(line, "steps_per_second"), "{line}");
    }
    assert!(number(first, "time_left_seconds") > 0.0 && number(second, "time_left_seconds") == 0.0, "{lines:#?}");
    if cfg!(target_os = "linux") {
        assert!(number(second, "peak_memory_bytes") >= number(second, "resident_memory_bytes"));
    }
}

#[test]
fn tensors_are_dumped_and_only_the_last_ones_kept() {
    let ran = SmallRun::with_libraries(&["standard"])
        .instance(
            "kind = 'dump-tensors'\nwhen = { every = '2 steps' }\n\
             options = { tensors = ['parameters', 'gradients'], include = ['fc1.*'], keep = 1 }",
        )
        .run()
        .succeeded();
    let folder = ran.out.join("tensors");
    let dumps: Vec<_> =
        folder.read_dir().expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(dumps, ["epoch-0002-step-00000006"]);
    for set in ["parameters", "gradients"] {
        let bytes = std::fs::read(folder.join(&dumps[0]).join(format!("{set}.safetensors"))).expect("a file");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let mut names: Vec<String> = file.tensors().into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["fc1.bias", "fc1.weight"], "{set}");
    }
}
