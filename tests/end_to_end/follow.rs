//! A run as other processes see and steer it: `list`, `status`, `attach`, `compare`, `stop`, `pause`, `resume`, `checkpoint`,
//! and signals.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Output, Stdio};
use std::time::Duration;

use fixture::{host, shown, temporary_folder};
use serde_json::Value;

use crate::small_run::{SmallRun, wait_for_status};

/// A run that takes long: a step of 20 ms, some hundred thousand of them.
fn long() -> SmallRun {
    SmallRun::with_libraries(&["recorder", "checkpoint"])
        .set("train.epochs=100000")
        .recorder("a", "", "sleep_ms = 20, sleep_in = 'step_end'")
        .instance("kind = 'checkpoint'\nwhen = { at = ['end'] }")
}

fn command(arguments: &[&str]) -> Output {
    host().args(arguments).output().expect("the host starts")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn status(out: &Path) -> Value {
    let output = command(&["status", path(out), "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn wait_until(out: &Path, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_for_status(|| status(out), what, is)
}

#[test]
fn a_run_is_paused_resumed_asked_for_a_checkpoint_and_stopped() {
    let run = long();
    let child = run.start();
    run.wait_for("step_end");
    let out = run.out();
    let paused = command(&["pause", path(&out), "--reason", "lunch"]);
    assert_eq!(text(&paused), format!("`{}` pauses\n", out.display()), "{}", String::from_utf8_lossy(&paused.stderr));
    let first = wait_until(&out, "pause", |status| status["state"] == "paused");
    std::thread::sleep(Duration::from_millis(300));
    let second = status(&out);
    assert_eq!(first["position"], second["position"], "it stands still");
    assert!(command(&["checkpoint", path(&out)]).status.success());
    let kept = wait_until(&out, "checkpoint", |status| status["artifacts"]["last_checkpoint"].is_string());
    assert_eq!((&kept["state"], &kept["position"]), (&Value::from("paused"), &first["position"]));

    assert!(command(&["resume", path(&out)]).status.success());
    let moved =
        |status: &Value| status["position"]["global_step"].as_u64() > second["position"]["global_step"].as_u64();
    wait_until(&out, "resume", |status| status["state"] == "running" && moved(status));

    assert!(command(&["checkpoint", path(&out)]).status.success());
    wait_until(&out, "checkpoint", |status| {
        status["artifacts"]["last_checkpoint"] != kept["artifacts"]["last_checkpoint"]
    });

    // A folder of runs means the newest of them.
    let stopped = command(&["stop", path(out.parent().expect("a folder")), "--reason", "enough"]);
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    let ran = run.wait(child);
    assert_eq!(ran.code(), Some(0), "{}", ran.shown());
    let last = ran.status();
    assert_eq!((last["state"].as_str(), last["outcome"].as_str()), (Some("stopped"), Some("stopped")));
    assert!(last["reason"].as_str().is_some_and(|reason| reason.ends_with(": enough")), "{last}");
    assert!(ran.told(&["stopping", "train_end"]).len() == 2, "its end hooks came");

    let late = command(&["stop", path(&ran.out)]);
    assert_eq!(late.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&late.stderr).contains("is not running: it is stopped"), "{late:?}");
    assert!(!ran.out.join("control").join("x").exists());
}

#[test]
fn a_process_that_was_killed_is_never_shown_as_running() {
    let run = long();
    let mut child = run.start();
    run.wait_for("step_end");
    let out = run.out();
    wait_until(&out, "first step", |status| status["position"]["global_step"].as_u64() > Some(0));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let told: Value = serde_json::from_slice(&std::fs::read(out.join("status.json")).expect("a status")).expect("JSON");
    assert_eq!(told["state"], "running", "nobody could write that it ended");
    let seen = status(&out);
    assert_eq!((seen["state"].as_str(), seen["stale"].as_bool()), (Some("failed"), Some(true)));
    assert!(seen["error"].as_str().is_some_and(|error| error.contains("ended without a word")), "{seen}");
    for request in ["stop", "pause", "checkpoint"] {
        assert_eq!(command(&[request, path(&out)]).status.code(), Some(1), "{request}");
    }
    let listed = text(&command(&["list", path(out.parent().expect("a folder"))]));
    assert!(listed.contains("killed"), "{listed}");
}

#[cfg(unix)]
fn signal(child: &Child, signal: i32) {
    let id = libc::pid_t::try_from(child.id()).expect("a process number");
    // SAFETY: it passes numbers; the child was not waited for, so that the number is its own.
    assert_eq!(unsafe { libc::kill(id, signal) }, 0);
}

#[cfg(unix)]
#[test]
fn stop_now_sends_a_signal_to_the_process_that_trains() {
    let run = long();
    let child = run.start();
    run.wait_for("step_end");
    wait_until(&run.out(), "status", |status| status["state"] == "running");
    let output = command(&["stop", path(&run.out()), "--now"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ran = run.wait(child);
    assert_eq!((ran.code(), ran.status()["state"].as_str()), (Some(143), Some("interrupted")), "{}", ran.shown());
}

#[cfg(unix)]
#[test]
fn one_signal_asks_for_a_checkpoint_and_another_for_nothing() {
    let run = long();
    let child = run.start();
    run.wait_for("step_end");
    signal(&child, libc::SIGUSR2);
    signal(&child, libc::SIGUSR1);
    let status = wait_until(&run.out(), "checkpoint", |status| status["artifacts"]["last_checkpoint"].is_string());
    assert_eq!(status["state"], "running");
    signal(&child, libc::SIGTERM);
    assert_eq!(run.wait(child).code(), Some(143));
}

/// Closed without a signal, as where the process belongs to another session: what is written to it fails.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_that_goes_away_does_not_end_a_run() {
    use std::fs::File;
    use std::os::fd::FromRawFd;

    let (mut ours, mut theirs) = (0, 0);
    let (name, settings, size) = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
    // SAFETY: two places to write to; the rest may be null.
    assert_eq!(unsafe { libc::openpty(&mut ours, &mut theirs, name, settings, size) }, 0);
    // SAFETY: both are open, and nobody else has them.
    let (ours, theirs) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    let run = SmallRun::with_libraries(&["recorder", "standard"])
        .set("train.epochs=4")
        .recorder("a", "", "sleep_ms = 100, sleep_in = 'step_end'")
        .instance("kind = 'progress'")
        .instance("kind = 'print-metrics'");
    let child = run.start_with(|command| {
        command.stdout(theirs.try_clone().expect("a copy")).stderr(theirs);
    });
    run.wait_for("step_end");
    drop(ours);
    let ran = run.wait(child);
    assert_eq!((ran.code(), ran.status()["state"].as_str()), (Some(0), Some("finished")));
    assert_eq!(ran.status()["position"]["epoch"], 4);
    assert!(!ran.status()["callbacks"].as_array().expect("a list").is_empty());
    assert_eq!(ran.status()["failures"].as_array().map(Vec::len), Some(0), "{}", ran.status());
}

#[test]
fn a_run_is_watched_from_another_terminal() {
    let run = long();
    let child = run.start();
    run.wait_for("step_end");
    wait_until(&run.out(), "status", |status| status["state"] == "running");
    let watch = |arguments: &[&str]| {
        let mut command = host();
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().expect("the host starts");
        let mut told = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut text = String::new();
        // From here on it watches.
        told.read_line(&mut text).expect("it tells something");
        (child, told, text)
    };
    let rest = |(mut child, mut told, mut text): (Child, BufReader<ChildStdout>, String)| {
        told.read_to_string(&mut text).expect("a text");
        assert!(child.wait().expect("it ends with the run").success());
        text
    };
    let attached = watch(&["attach", path(&run.out())]);
    let watched = watch(&["status", path(&run.out()), "--watch", "--json"]);
    assert!(command(&["stop", path(&run.out())]).status.success());
    let ran = run.wait(child);
    let shown = rest(attached);
    assert!(shown.contains("run `small`: cpu, threads 1") && shown.contains("stopped (`"), "{shown}");
    let states: Vec<Value> = fixture::events(rest(watched).as_bytes());
    assert_eq!(states.first().map(|status| &status["state"]), Some(&Value::from("running")));
    assert_eq!(states.last().map(|status| &status["state"]), Some(&Value::from("stopped")), "{}", ran.shown());
}

#[test]
fn runs_are_listed_and_compared() {
    let folder = temporary_folder();
    let finished = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let run =
            SmallRun::with_libraries(&["standard"]).instance("kind = 'json-lines'").arguments(more.iter().copied());
        run.run_in(out).succeeded();
    };
    finished("a", &[]);
    finished("b", &["--set", "train.optimizer.learning_rate=0.001", "--set", "run.seed=8"]);
    let here = |arguments: &[&str]| {
        let output = host().args(arguments).current_dir(folder.path()).output().expect("the host starts");
        assert!(output.status.success(), "{}", shown(&output, &[]));
        text(&output)
    };
    let listed: Value = serde_json::from_str(&here(&["list", ".", "--sort", "val_accuracy", "--json"])).expect("JSON");
    let names: Vec<&str> = listed.as_array().expect("a list").iter().filter_map(|run| run["folder"].as_str()).collect();
    assert_eq!(names, ["./a", "./b"], "the larger learning rate learns more in two epochs: {listed}");
    let table = here(&["list", "."]);
    assert!(table.starts_with("RUN") && table.contains("finished") && table.contains("100 %"), "{table}");

    let compared = here(&["compare", "a", "b", "--picture", "curves.svg"]);
    let settings: Vec<Vec<&str>> =
        compared.lines().take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        settings,
        [
            vec!["SETTING", "a", "b"],
            vec!["state", "finished", "finished"],
            vec!["run.seed", "7", "8"],
            vec!["train.optimizer.learning_rate", "0.01", "0.001"],
        ],
        "{compared}"
    );
    assert!(compared.contains("BEST") && compared.contains("LAST") && compared.contains("val_accuracy"), "{compared}");
    let picture = std::fs::read_to_string(folder.path().join("curves.svg")).expect("a picture");
    assert!(picture.matches("<polyline").count() >= 4 && picture.contains(">val_loss<"), "{picture}");

    let wrong =
        host().args(["list", ".", "--sort", "val_acuracy"]).current_dir(folder.path()).output().expect("it starts");
    insta::assert_snapshot!(shown(&wrong, &[]), @"
    exit code: 2
    -- stderr
      × no run has a best value of `val_acuracy`
      hint: did you mean `val_accuracy`?
    ");
}

#[test]
fn a_run_that_fails_is_told_to_torchrun_and_to_programs() {
    let folder = temporary_folder();
    let file = folder.path().join("errors/error.json");
    let run = SmallRun::new().recorder("a", "", "fail_in = 'epoch_end'").arguments(["--json"]);
    let child = run.start_with(|command| {
        command.env("TORCHELASTIC_ERROR_FILE", &file);
    });
    let ran = run.wait(child);
    assert_eq!(ran.code(), Some(1));
    let error: Value = serde_json::from_slice(&std::fs::read(&file).expect("the error is told")).expect("JSON");
    // `torchrun` shows a text as it is; of an object, only the call stack of a Python exception.
    let message = error["message"].as_str().expect("a text");
    assert!(message.starts_with("plugin: plugin `a` failed in `epoch_end`"), "{message}");
    assert!(error["timestamp"].is_u64(), "{error}");
    let events = fixture::events(&ran.output.stdout);
    let of = |name: &str| events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name}"));
    assert!(of("error")["message"].as_str().is_some_and(|message| message.contains("plugin `a` failed")));
    assert_eq!((of("end")["state"].as_str(), of("end")["error_kind"].as_str()), (Some("failed"), Some("plugin")));
}

#[test]
fn completions_and_the_man_page_know_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(&command(&["completions", shell]));
        for name in ["evaluate", "predict", "checkpoint", "--checkpoint"] {
            assert!(script.contains(name.trim_start_matches('-')), "{shell}: {name}");
        }
    }
    let page = text(&command(&["man"]));
    assert!(page.starts_with(".ie") || page.contains(".TH host 1"), "{page}");
    for name in ["HOST RUN", "HOST EVALUATE", "HOST PLUGINS CHECK", "HOST STOP"] {
        assert!(page.contains(name), "{name}");
    }
}
