//! Hyper-parameters that callbacks set during a run, and callbacks that steer the loop, in the real loop.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::small_run::{Ran, SmallRun};
use crate::training::Training;

/// A run of the shipped callbacks with metrics of each epoch.
fn run(entry: &str) -> SmallRun {
    SmallRun::with_libraries(&["standard", "checkpoint"]).instance("kind = 'json-lines'").instance(entry)
}

/// A metric after each epoch.
fn each_epoch(ran: &Ran, metric: &str) -> Vec<f64> {
    let lines = fixture::lines(&ran.out.join("metrics.jsonl"));
    let epochs = lines.iter().filter(|line| line["kind"] == "epoch");
    epochs.map(|line| line[metric].as_f64().unwrap_or(f64::NAN)).collect()
}

#[test]
fn a_schedule_of_points_sets_the_learning_rate_and_the_runs_own_yields() {
    let ran = run("kind = 'lr-schedule'\noptions = { points = [[1, 0.0], [3, 0.002]] }")
        .set("train.epochs=5")
        .set("train.schedule={ type = 'cosine' }")
        .run()
        .succeeded();
    let rates = each_epoch(&ran, "learning_rate");
    assert!(rates[0] > 0.0 && rates[0] < 0.01, "the schedule sets that of the first epoch: {rates:?}");
    assert_eq!(rates[1..], [0.0, 0.0, 0.002, 0.002]);
    let said = "`lr-schedule` sets `learning_rate` from now on; the run's schedule `cosine` no longer changes it";
    assert_eq!(ran.stderr().matches(said).count(), 1, "{}", ran.shown());
}

#[test]
fn a_resumed_run_has_the_rates_of_an_unbroken_one() {
    let training = Training::new(
        r#"
[[plugins]]
kind = "json-lines"
[[plugins]]
kind = "checkpoint"
[[plugins]]
kind = "lr-schedule"
options = { points = [[0, 0.01], [4, 0.001]], interp = "linear" }
"#,
    );
    training.run("unbroken", &["--set", "train.epochs=4"]);
    training.run("first", &["--set", "train.epochs=2"]);
    let checkpoint = training.path("first").join("checkpoints/last").display().to_string();
    training.run("resumed", &["--set", "train.epochs=4", "--resume", &checkpoint]);
    let (unbroken, resumed) = (training.metrics("unbroken"), training.metrics("resumed"));
    assert_eq!(resumed[resumed.len() - 2..], unbroken[2..]);
    assert_ne!(unbroken[2]["learning_rate"], unbroken[3]["learning_rate"]);
}

#[test]
fn a_hyper_parameter_that_the_run_does_not_have_is_told_before_the_training() {
    let ran = run("kind = 'lr-schedule'\noptions = { points = [[1, 0.1]], hyper_parameter = 'learning_rat' }").run();
    assert_eq!((ran.code(), &ran.status()["state"]), (Some(1), &Value::from("failed")));
    let message = "there is no hyper-parameter `learning_rat`; did you mean `learning_rate`?";
    assert!(ran.stderr().contains(message), "{}", ran.shown());
}

#[test]
fn a_plateau_reduces_the_learning_rate_and_says_so() {
    // No loss is ever larger than the first by so much.
    let ran = run("kind = 'reduce-on-plateau'\n\
                   options = { mode = 'max', min_delta = 1000.0, patience = 2, factor = 0.5, min = 0.004 }")
    .set("train.epochs=6")
    .run()
    .succeeded();
    assert_eq!(each_epoch(&ran, "learning_rate"), [0.01, 0.01, 0.01, 0.005, 0.005, 0.004]);
    let said = "`reduce-on-plateau` reduces `learning_rate` from 0.0050 to 0.0040: 2 values of \
                `val_loss` in a row were not better than the best";
    assert!(ran.stderr().contains(said), "{}", ran.shown());
}

#[test]
fn what_a_person_writes_during_the_run_is_set() {
    // A run begins in a new folder, so that the file is beside it.
    let run = run("kind = 'human-hyperparams'\noptions = { file = '../hyper.txt' }").set("train.epochs=3");
    let file = run.out().with_file_name("hyper.txt");
    std::fs::write(file, "learning_rate: 0.5\nlearning rate 1\n").expect("a file");
    let ran = run.run().succeeded();
    assert_eq!(each_epoch(&ran, "learning_rate"), [0.01, 0.5, 0.5]);
    assert!(ran.stderr().contains("`../hyper.txt`, line 2: it is not `name: value`"), "{}", ran.shown());
}

#[test]
fn a_time_limit_ends_a_run_that_succeeds_and_its_resume() {
    let limit = "\n[[plugins]]\nkind = \"checkpoint\"\nwhen = { at = [\"end\"] }\n\
                 [[plugins]]\nkind = \"time-limit\"\noptions = { duration = \"1 s\" }\n";
    let training = Training::new(limit);
    training.run("first", &["--set", "train.epochs=1000000"]);
    let status = training.status("first");
    assert_eq!(status["state"], "stopped", "{status}");
    let checkpoint = training.path("first").join("checkpoints/last").display().to_string();
    training.run("resumed", &["--set", "train.epochs=1000000", "--resume", &checkpoint]);
    let resumed = training.status("resumed");
    let step = |status: &Value| status["position"]["global_step"].as_u64();
    assert_eq!(step(&resumed), step(&status).map(|step| step + 1), "the time of the first process counts");
}

#[test]
fn files_pause_resume_save_and_stop_a_run() {
    let options = "options = { stop = 'stop', pause = 'pause', resume = 'resume', checkpoint = 'save' }";
    let run = run(&format!("kind = 'remote-control'\n{options}")).set("train.epochs=1000000");
    let run = run.instance("kind = 'checkpoint'\nwhen = { at = ['end'] }");
    let child = run.start();
    let out = run.out();
    let state = || {
        let text = std::fs::read(out.join("status.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or(Value::Null)
    };
    let wait = |what: &str, is: &dyn Fn(&Value) -> bool| {
        let began = Instant::now();
        while !is(&state()) {
            assert!(began.elapsed() < Duration::from_secs(60), "no {what}: {}", state());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let touch = |name: &str| std::fs::write(out.join(name), "").expect("a file");
    wait("start", &|status| status["state"] == "running");
    touch("pause");
    wait("pause", &|status| status["state"] == "paused");
    touch("save");
    wait("checkpoint", &|status| status["artifacts"]["last_checkpoint"].is_string());
    assert_eq!(state()["state"], "paused");
    touch("resume");
    wait("resume", &|status| status["state"] == "running");
    touch("stop");
    let ran = run.ended(child.wait_with_output().expect("the host ends")).succeeded();
    assert_eq!(ran.status()["state"], "stopped");
    assert!(!ran.out.join("stop").exists() && !ran.out.join("resume").exists());
}
