//! Averages of the weights, the best ones in a file, clipped gradients, and what is recorded of them: in a real training.

use std::collections::BTreeMap;
use std::path::Path;

use fixture::lines;
use serde_json::Value;

use crate::small_run::{Ran, SmallRun};
use crate::training::Training;

/// Writes the weights of each epoch before `entry`, and those of the end after it.
fn run(entry: &str) -> SmallRun {
    SmallRun::with_libraries(&["standard", "weights", "checkpoint", "recorder"])
        .instance("kind = 'weights'\nname = 'each'\nwhen = { every = '1 epoch' }\noptions = { name = 'epoch{epoch}' }")
        .instance(entry)
        .instance("kind = 'weights'\nname = 'end'\nwhen = { at = ['end'] }\noptions = { name = 'end' }")
        .instance("kind = 'json-lines'")
        .instance("kind = 'checkpoint'\nwhen = { at = ['end'] }")
}

fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let numbers = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    file.tensors().into_iter().map(|(name, tensor)| (name, numbers(tensor.data()))).collect()
}

fn weights(ran: &Ran, name: &str) -> BTreeMap<String, Vec<f32>> {
    tensors(&ran.out.join("exports").join(format!("{name}.safetensors")))
}

/// A metric of each epoch.
fn series(ran: &Ran, name: &str) -> Vec<Value> {
    let lines = lines(&ran.out.join("metrics.jsonl"));
    lines.iter().filter(|line| line["kind"] == "epoch").map(|line| line[name].clone()).collect()
}

#[test]
fn an_ema_is_evaluated_and_exported_and_does_not_change_the_training() {
    let averaged = run("kind = 'ema'\noptions = { decay = 0.9 }").set("train.epochs=3").run().succeeded();
    let plain = run("kind = 'ema'\noptions = { evaluate = false, swap_at_end = false }").set("train.epochs=3");
    let plain = plain.run().succeeded();
    assert_eq!(series(&averaged, "train_loss"), series(&plain, "train_loss"));
    assert_ne!(series(&averaged, "val_loss"), series(&plain, "val_loss"));
    assert_eq!(weights(&averaged, "epoch0003"), weights(&plain, "epoch0003"));
    assert_ne!(weights(&averaged, "end"), weights(&plain, "end"));
}

#[test]
fn an_ema_that_resumes_from_its_end_is_that_of_an_unbroken_run() {
    let entry = "kind = 'ema'\noptions = { decay = 0.9 }";
    let unbroken = run(entry).set("train.epochs=4").run().succeeded();
    let first = run(entry).set("train.epochs=2").run().succeeded();
    let resumed = run(entry).set("train.epochs=4").arguments(["--resume", "auto"]);
    let resumed = resumed.run_in(first.out.clone()).succeeded();
    for name in ["epoch0004", "end"] {
        assert_eq!(weights(&resumed, name), weights(&unbroken, name), "{name}");
    }
    assert_eq!(series(&resumed, "val_loss"), series(&unbroken, "val_loss"));
}

#[test]
fn the_best_weights_are_in_a_file_and_at_the_end() {
    // The largest loss is the best here: that of the first epoch.
    let entry = "kind = 'save-best'\noptions = { metric = 'val_loss', mode = 'max', save_optimizer = true }";
    let ran = run(entry).set("train.epochs=3").run().succeeded();
    let best = tensors(&ran.out.join("best.safetensors"));
    assert_eq!(best, weights(&ran, "epoch0001"));
    assert_eq!(weights(&ran, "end"), best);
    assert!(ran.out.join("best.optimizer.safetensors").exists());

    std::fs::remove_file(ran.out.join("best.safetensors")).expect("it is there");
    let resumed = run(entry).set("train.epochs=5").arguments(["--resume", "auto"]);
    let resumed = resumed.run_in(ran.out.clone()).succeeded();
    assert_eq!(tensors(&resumed.out.join("best.safetensors")), best);
    assert_eq!(weights(&resumed, "end"), best);
}

#[test]
fn a_run_with_swa_ends_with_the_mean_of_its_last_epochs() {
    let entry = "kind = 'swa'\noptions = { start = 3, learning_rate = 0.02, anneal_epochs = 0 }";
    let ran = run(entry).set("train.epochs=4").run().succeeded();
    let (third, fourth, end) = (weights(&ran, "epoch0003"), weights(&ran, "epoch0004"), weights(&ran, "end"));
    for (name, end) in end {
        for ((third, fourth), end) in third[&name].iter().zip(&fourth[&name]).zip(end) {
            assert!((f32::midpoint(*third, *fourth) - end).abs() < 1e-6, "{name}");
        }
    }
    assert_eq!(series(&ran, "learning_rate"), [0.01, 0.01, 0.02, 0.02]);
}

#[test]
fn swa_estimates_the_statistics_of_batch_norm_again() {
    let training = Training::new(
        "
        [[plugins]]
        kind = 'swa'
        options = { start = 2 }

        [[plugins]]
        kind = 'weights'
        name = 'last'
        when = { every = '1 epoch' }
        options = { name = 'last' }

        [[plugins]]
        kind = 'weights'
        name = 'end'
        options = { name = 'end' }
        ",
    );
    training.run("out", &[]);
    let [last, end] = ["last", "end"].map(|name| tensors(&training.path(&format!("out/exports/{name}.safetensors"))));
    // The average of one epoch is that epoch; only the statistics, which moved while it was trained, are others.
    let differing: Vec<_> = end.keys().filter(|name| end[*name] != last[*name]).collect();
    assert_eq!(differing, ["bn1.num_batches_tracked", "bn1.running_mean", "bn1.running_var"]);
}

#[test]
fn clipped_gradients_train_otherwise_and_say_how_often() {
    let clipped = run("kind = 'gradient-clip'\noptions = { by = 'value', limit = 1e-6 }").run().succeeded();
    let free = run("kind = 'gradient-clip'\noptions = { limit = 1e9 }").run().succeeded();
    assert_eq!(series(&clipped, "clip_fraction"), [1.0, 1.0]);
    assert_eq!(series(&free, "clip_fraction"), [0.0, 0.0]);
    assert!(series(&free, "gradient_norm").iter().all(|norm| norm.as_f64().is_some_and(|norm| norm > 1e-6)));
    assert_ne!(weights(&clipped, "end"), weights(&free, "end"));
}

#[test]
fn statistics_of_gradients_and_weights_are_records_of_each_tensor() {
    let ran = run("kind = 'gradient-stats'")
        .instance("kind = 'weight-stats'\noptions = { every_steps = 3, include = ['*.weight'] }")
        .recorder("seen", "", "")
        .run()
        .succeeded();
    let records: Vec<String> = ran.lines_of("seen", "record").iter().map(Value::to_string).collect();
    for name in ["gradient_norm/", "gradient_histogram/", "weight_norm/", "weight_histogram/", "update_ratio/"] {
        assert!(records.iter().any(|record| record.contains(name)), "{name}");
    }
    assert!(!records.iter().any(|record| record.contains("weight_norm/") && record.contains(".bias")), "{records:?}");
}
