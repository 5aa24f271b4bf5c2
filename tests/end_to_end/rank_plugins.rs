//! Plugins, status and requests of a run of two ranks, over loopback.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use fixture::host;
use serde_json::Value;

use crate::small_run::{Ran, SmallRun, wait_for_status};

/// The small run on two ranks, with what makes ranks differ if they are not kept alike: dropout, and statistics of batches.
fn two_ranks() -> SmallRun {
    SmallRun::with_libraries(&["standard", "checkpoint"]).arguments(["--processes", "2"]).with(
        "{ type = \"relu\" },",
        "{ type = \"batch_norm\" }, { type = \"relu\" }, { type = \"dropout\", p = 0.25 },",
    )
}

/// `status.json` of a rank.
fn of_rank(out: &Path, rank: usize) -> Value {
    let folder = if rank == 0 { out.to_owned() } else { out.join("ranks").join(rank.to_string()) };
    let text = std::fs::read(folder.join("status.json")).expect("the rank has a status");
    serde_json::from_slice(&text).expect("the status is JSON")
}

/// Checks that both ranks ended in this state, after the same step.
fn assert_alike(ran: &Ran, state: &str) {
    let statuses = [of_rank(&ran.out, 0), of_rank(&ran.out, 1)];
    for status in &statuses {
        assert_eq!(status["state"], state, "{}\n{status}", ran.shown());
    }
    assert_eq!(statuses[0]["position"], statuses[1]["position"]);
    assert_eq!(
        (&statuses[0]["metrics"]["val_loss"], statuses[1]["rank"].as_u64()),
        (&statuses[1]["metrics"]["val_loss"], Some(1))
    );
}

fn command(arguments: &[&str]) -> Output {
    host().args(arguments).output().expect("the host starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_changes_the_training_is_refused_on_one_rank_before_the_training() {
    let ran = two_ranks().instance("kind = 'ema'\nranks = 'zero'").run();
    assert_eq!(ran.code(), Some(2), "{}", ran.shown());
    let stderr = ran.stderr();
    let message = "`ema` changes the training and must run on every rank, but would run on rank 0 only";
    assert!(stderr.contains(message) && stderr.contains("say `ranks = \"all\"`"), "{stderr}");
    assert!(!ran.out.exists());

    let ran = two_ranks().instance("kind = 'swa'\nwhen = { every = '10 min' }").run();
    let message = "`swa` changes the training, and is triggered by time, which each rank measures for itself";
    assert!(ran.code() == Some(2) && ran.stderr().contains(message), "{}", ran.shown());

    let ran = two_ranks()
        .instance("kind = 'moving-average'\noptions = { metrics = ['val_loss'] }")
        .instance("kind = 'reduce-on-plateau'\noptions = { metric = 'val_loss_average' }")
        .run();
    let message = "`reduce-on-plateau` runs on every rank and waits for the metric `val_loss_average`, which `moving-average` puts on rank 0 only";
    assert!(ran.code() == Some(2) && ran.stderr().contains(message), "{}", ran.shown());
}

#[test]
fn what_only_the_call_tells_is_refused_by_the_call() {
    let entry = "kind = 'lambda'\nname = 'slower'\noptions = { do = \"set('learning_rate', old * 0.5)\" }";
    let ran = two_ranks().instance(entry).run();
    assert_eq!(ran.code(), Some(1), "{}", ran.shown());
    let stderr = ran.stderr();
    assert!(stderr.contains("`slower`") && stderr.contains("`hyper_parameter_set` changes the training"), "{stderr}");
    assert!(stderr.contains("set `ranks = \"all\"` in its `[[plugins]]` entry"), "{stderr}");
    assert_eq!(of_rank(&ran.out, 1)["state"], "failed");

    let ran = two_ranks().instance(&format!("{entry}\nranks = 'all'")).run().succeeded();
    assert_alike(&ran, "finished");
}

#[test]
fn what_runs_on_every_rank_keeps_them_alike() {
    // The host compares the weights after each epoch.
    let ran = two_ranks()
        .set("train.epochs=4")
        .instance("kind = 'lr-finder'\noptions = { steps = 20, apply = true }")
        .instance("kind = 'lr-schedule'\noptions = { points = [[2, 0.004]] }")
        .instance("kind = 'gradient-clip'\noptions = { limit = 0.05 }")
        .instance("kind = 'freeze'\noptions = { freeze = ['fc1.*'], unfreeze_at = 3 }")
        .instance("kind = 'ema'\noptions = { decay = 0.5 }")
        .instance("kind = 'limit-batches'\noptions = { batches = { val = 1 } }")
        .instance("kind = 'spike-detection'\noptions = { action = 'rollback', window = 3, threshold = 0.001, copy_every = 2 }")
        .run();
    let ran = ran.succeeded();
    let state = of_rank(&ran.out, 0)["state"].as_str().unwrap_or_default().to_owned();
    assert_alike(&ran, &state);

    let ran = two_ranks()
        .set("train.epochs=6")
        .instance("kind = 'reduce-on-plateau'\noptions = { patience = 1, min_delta = 10.0 }")
        .instance("kind = 'save-best'\noptions = { path = 'best/weights.safetensors' }")
        .instance("kind = 'early-stopping'\noptions = { patience = 3, min_delta = 10.0, restore_best = true }")
        .instance("kind = 'swa'\noptions = { start = 2, learning_rate = 0.002 }")
        .instance("kind = 'checkpoint'")
        .run()
        .succeeded();
    assert_alike(&ran, "stopped");
    let files = |folder: &Path| folder.join("best/weights.safetensors").is_file();
    assert_eq!((files(&ran.out), files(&ran.out.join("ranks/1"))), (true, false));
}

#[test]
fn every_rank_obeys_the_file_of_hyper_parameters_at_the_same_step() {
    let run =
        two_ranks().set("train.epochs=100000").instance("kind = 'human-hyperparams'\nwhen = { every = '1 step' }");
    let child = run.start();
    let out = run.out();
    wait_until(&out, "step on both ranks", |status| both(status, |rank| rank["step"].as_u64() > Some(2)));
    for rate in ["0.5", "0.25"] {
        std::fs::write(out.join("hyper.txt"), format!("learning_rate: {rate}\n")).expect("the file can be written");
        let text = format!("`learning_rate` is {rate} from now on");
        let log = || std::fs::read_to_string(out.join("console.log")).unwrap_or_default();
        let began = Instant::now();
        while !log().contains(&text) {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    // Weights that had learned at another rate would be found at the end of the epoch.
    let epoch = status(&out)["position"]["epoch"].as_u64().unwrap_or_default();
    wait_until(&out, "later epoch", |status| status["position"]["epoch"].as_u64() > Some(epoch + 1));
    assert!(command(&["stop", out.to_str().expect("UTF-8")]).status.success());
    let ran = run.wait(child).succeeded();
    assert_alike(&ran, "stopped");
}

#[test]
fn all_ranks_pause_and_stop_after_the_same_step_whoever_is_asked() {
    let run = two_ranks()
        .set("train.epochs=100000")
        .instance("kind = 'remote-control'\nwhen = { every = '1 step' }\noptions = { pause = 'hold', resume = 'go' }");
    let child = run.start();
    let out = run.out();
    let path = out.to_str().expect("UTF-8");
    wait_until(&out, "step on both ranks", |status| both(status, |rank| rank["state"] == "running"));

    assert!(command(&["pause", path]).status.success());
    let paused = wait_until(&out, "pause", |status| both(status, |rank| rank["state"] == "paused"));
    let rank = |index: usize, key: &str| paused["ranks"][index][key].clone();
    assert_eq!(rank(0, "step"), rank(1, "step"), "{paused}");
    assert!(rank(0, "process") != rank(1, "process") && rank(0, "machine") == rank(1, "machine"), "{paused}");
    let shown = said(&command(&["status", path]));
    let line = format!("\nrank 1: paused, step {}, process {}", rank(1, "step"), rank(1, "process"));
    assert!(shown.contains(&line), "{shown}");

    // The folder of a rank is no run of its own.
    let folder = out.join("ranks/1");
    let folder = folder.to_str().expect("UTF-8");
    let parent = out.parent().and_then(Path::to_str).expect("UTF-8");
    for listed in [parent, folder, out.join("ranks").to_str().expect("UTF-8")] {
        let listed = command(&["list", listed, "--json"]);
        let runs: Vec<Value> = serde_json::from_slice(&listed.stdout).expect("JSON");
        assert_eq!((runs.len(), runs[0]["epoch"].is_number()), (1, true), "{}", said(&listed));
    }
    assert!(command(&["resume", folder]).status.success());
    wait_until(&out, "end of the pause", |status| both(status, |rank| rank["state"] == "running"));

    // What a plugin on rank zero asks for, all do.
    for (file, state) in [("hold", "paused"), ("go", "running")] {
        std::fs::write(out.join(file), "").expect("a file can be written");
        let found = wait_until(&out, file, |status| both(status, |rank| rank["state"] == state));
        assert!(state != "paused" || found["ranks"][0]["step"] == found["ranks"][1]["step"], "{found}");
    }

    // A signal to one rank is one to all.
    let process = of_rank(&out, 1)["process"].as_i64().and_then(|id| i32::try_from(id).ok()).expect("a process");
    // SAFETY: the process is a descendant of this one, which runs until it is asked to stop.
    assert_eq!(unsafe { libc::kill(process, libc::SIGTERM) }, 0);
    let ran = run.wait(child);
    assert_alike(&ran, "interrupted");

    // What an earlier, larger number of ranks has left is not shown.
    std::fs::create_dir_all(ran.out.join("ranks/2")).expect("a folder");
    std::fs::copy(ran.out.join("ranks/1/status.json"), ran.out.join("ranks/2/status.json")).expect("a file");
    std::fs::write(ran.out.join("ranks/2/.host-run"), "").expect("a file");
    assert_eq!(status(&ran.out)["ranks"].as_array().map(Vec::len), Some(2));
}

fn status(out: &Path) -> Value {
    let output = command(&["status", out.to_str().expect("UTF-8"), "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn both(status: &Value, is: impl Fn(&Value) -> bool) -> bool {
    status["ranks"].as_array().is_some_and(|ranks| ranks.len() == 2 && ranks.iter().all(is))
}

fn wait_until(out: &Path, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_for_status(|| status(out), what, is)
}
