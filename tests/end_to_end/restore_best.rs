//! `early-stopping` with `restore_best`: whoever or whatever ends a run, what comes at the end has the best weights, says
//! whose they are, and a run that resumes goes on from its own.

use std::collections::BTreeMap;
use std::path::Path;

use fixture::lines;
use serde_json::Value;

use crate::small_run::{Ran, SmallRun};

/// The largest loss is the best here, so that the best weights are the first ones that were looked at.
const WATCHED: &str = "metric = 'val_loss', mode = 'max', patience = 50, restore_best = true";

/// Writes the weights of each epoch, and those of the end.
fn run(watcher: &str) -> SmallRun {
    SmallRun::with_libraries(&["standard", "weights", "checkpoint", "recorder"])
        .instance("kind = 'weights'\nname = 'each'\nwhen = { every = '1 epoch' }\noptions = { name = 'epoch{epoch}' }")
        .instance(&format!("kind = 'early-stopping'\n{watcher}\noptions = {{ {WATCHED} }}"))
        .instance("kind = 'weights'\nname = 'end'\nwhen = { at = ['end'] }\noptions = { name = 'end' }")
        .instance("kind = 'json-lines'")
}

fn weights(out: &Path, name: &str) -> BTreeMap<String, Vec<u8>> {
    tensors(&out.join("exports").join(format!("{name}.safetensors")))
}

fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    file.tensors().into_iter().map(|(name, tensor)| (name, tensor.data().to_vec())).collect()
}

/// The epochs whose weights those of the end are.
fn epoch_at_the_end(ran: &Ran) -> Vec<u64> {
    let end = weights(&ran.out, "end");
    let epochs = (1..10).filter(|epoch| ran.out.join(format!("exports/epoch{epoch:04}.safetensors")).exists());
    epochs.filter(|epoch| weights(&ran.out, &format!("epoch{epoch:04}")) == end).collect()
}

#[test]
fn the_best_weights_are_back_whoever_ends_the_run() {
    let planned = run("").set("train.epochs=3").run().succeeded();
    assert_eq!(epoch_at_the_end(&planned), [1]);
    // The last epoch is not one that is looked at.
    let between = run("when = { every = '2 epochs' }").set("train.epochs=3").run().succeeded();
    assert_eq!(epoch_at_the_end(&between), [2]);
    // The test split would be evaluated with them, and an epoch that is cut short has no evaluation.
    let within = run("").with("epochs = 2", "steps = 8").run().succeeded();
    assert_eq!(epoch_at_the_end(&within), [1]);
    let limit = "options = { metric = 'val_loss', stopping_threshold = 1000.0, start_from_epoch = 3 }";
    let stopped = run("").instance(&format!("kind = 'early-stopping'\nname = 'limit'\n{limit}"));
    let stopped = stopped.set("train.epochs=9").run().succeeded();
    assert_eq!((stopped.status()["state"].as_str(), epoch_at_the_end(&stopped)), (Some("stopped"), vec![1]));
}

#[test]
#[cfg(unix)]
fn the_best_weights_are_back_after_a_signal() {
    let run = run("").set("train.epochs=100_000").recorder("slow", "", "sleep_ms = 50, sleep_in = 'epoch_start'");
    let child = run.start();
    run.wait_for("epoch_end");
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(sent.expect("there is a shell").success());
    let output = child.wait_with_output().expect("the host ends");
    let ran = run.ended(output);
    assert_eq!(ran.status()["state"], "interrupted", "{}", ran.shown());
    assert_eq!(epoch_at_the_end(&ran), [1]);
}

#[test]
fn a_checkpoint_with_the_best_weights_says_whose_they_are_and_resumes_from_the_own_ones() {
    let limit = "kind = 'early-stopping'\nname = 'limit'\n\
                 options = { metric = 'val_loss', stopping_threshold = 1000.0, start_from_epoch = 2 }";
    let at_the_end = "kind = 'checkpoint'\nwhen = { at = ['end'] }";
    let unbroken = run("").instance(at_the_end).set("train.epochs=4").run().succeeded();
    let stopped = run("").instance(limit).instance(at_the_end).set("train.epochs=4").run().succeeded();

    let checkpoint = stopped.out.join("checkpoints/last");
    assert_eq!(tensors(&checkpoint.join("model.safetensors")), weights(&stopped.out, "epoch0001"));
    let manifest = std::fs::read(checkpoint.join("manifest.json")).expect("there is a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("it is JSON");
    let first = &lines(&stopped.out.join("metrics.jsonl"))[0];
    assert_eq!(manifest["position"]["epoch"], 2);
    assert_eq!(manifest["weights"]["position"]["epoch"], 1);
    assert_eq!(manifest["weights"]["metrics"]["val_loss"], first["val_loss"]);
    let bytes = std::fs::read(stopped.out.join("exports/end.safetensors")).expect("it was exported");
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).expect("safetensors");
    let metadata = metadata.metadata().as_ref().expect("it has metadata");
    assert_eq!((metadata["epoch"].as_str(), metadata["step"].as_str()), ("1", "3"));
    let metrics: Value = serde_json::from_str(&metadata["metrics"]).expect("it is JSON");
    assert_eq!(metrics["val_loss"], first["val_loss"]);

    let resumed = run("").instance(at_the_end).set("train.epochs=4").arguments(["--resume", "auto"]);
    let resumed = resumed.run_in(stopped.out.clone()).succeeded();
    assert!(resumed.shown().contains("callbacks that are gone: `limit`"), "{}", resumed.shown());
    for epoch in ["epoch0003", "epoch0004", "end"] {
        assert_eq!(weights(&stopped.out, epoch), weights(&unbroken.out, epoch), "{epoch}");
    }
    assert_eq!(epoch_at_the_end(&unbroken), [1]);
}
