use std::process::Command;

use crate::small_run::{Ran, SmallRun, text};

const END: [&str; 5] = ["stopping", "trigger", "error", "train_end", "teardown"];

#[test]
fn the_whole_sequence_of_two_epochs() {
    let ran = SmallRun::new().recorder("all", "", "").run().succeeded();
    insta::assert_snapshot!(ran.sequence("all", &[]), @"
    0.0 (0): new setup train_start
    1.0 (0): epoch_start
    1.1 (1): step_start gradients step_end
    1.2 (2): step_start gradients step_end
    1.3 (3): step_start gradients step_end epoch_trained eval_start[0, 2, false, val] eval_step_start[1, 2, false, val] eval_step_end[1, 2, false, val] eval_step_start[2, 2, false, val] eval_step_end[2, 2, false, val] eval_end[0, 2, false, val] epoch_end trigger[epoch]
    2.0 (3): epoch_start
    2.1 (4): step_start gradients step_end
    2.2 (5): step_start gradients step_end
    2.3 (6): step_start gradients step_end epoch_trained eval_start[0, 2, false, val] eval_step_start[1, 2, false, val] eval_step_end[1, 2, false, val] eval_step_start[2, 2, false, val] eval_step_end[2, 2, false, val] eval_end[0, 2, false, val] epoch_end trigger[epoch] train_end[finished, ] teardown
    ");
}

#[test]
fn an_evaluation_by_steps_says_where_it_is() {
    let ran = SmallRun::new().set("eval.every=4 steps").recorder("all", "", "").run().succeeded();
    let events = ["eval_start", "eval_end", "epoch_trained", "epoch_end"];
    insta::assert_snapshot!(ran.sequence("all", &events), @"
    1.3 (3): epoch_trained epoch_end
    2.1 (4): eval_start[0, 2, true, val] eval_end[0, 2, true, val]
    2.3 (6): epoch_trained eval_start[0, 2, false, val] eval_end[0, 2, false, val] epoch_end
    ");
}

#[test]
fn a_stop_within_an_epoch() {
    let ran = SmallRun::new()
        .recorder("stops", "", "stop_in = 'step_end', at_step = 2")
        .recorder("last", "when = { at = ['end'] }", "")
        .run()
        .succeeded();
    insta::assert_snapshot!(ran.sequence("last", &[]), @"
    0.0 (0): new setup train_start
    1.0 (0): epoch_start
    1.1 (1): step_start gradients step_end
    1.2 (2): step_start gradients step_end stopping[stops, the recorder was told to] trigger[end] train_end[stopped, `stops`: the recorder was told to] teardown
    ");
    assert_eq!(ran.status()["outcome"], "stopped");
    assert_eq!(ran.status()["error"], serde_json::Value::Null);
    assert!(ran.stderr().contains("stopped (`stops`: the recorder was told to)"), "{}", ran.stderr());
}

#[test]
fn a_stop_after_an_epoch_finishes_the_event_for_all() {
    for hook in ["epoch_end", "trigger"] {
        let stops = format!("stop_in = '{hook}', at_step = 3");
        let ran = SmallRun::new().recorder("stops", "", &stops).recorder("other", "", "").run().succeeded();
        assert_eq!(
            ran.told(&[hook, "epoch_start", "stopping"]),
            [
                "stops epoch_start".to_owned(),
                "other epoch_start".to_owned(),
                format!("stops {hook}"),
                format!("other {hook}"),
                "stops stopping".to_owned(),
                "other stopping".to_owned(),
            ]
        );
        assert_eq!(text(&ran.lines_of("other", "train_end")[0]["texts"], "outcome"), "stopped");
    }
}

#[test]
fn a_requested_end_of_an_epoch() {
    let ran = SmallRun::new()
        .recorder("ends", "", "ask_in = 'step_end', asks = 'end_epoch', at_step = 2")
        .recorder("other", "", "")
        .run()
        .succeeded();
    let events = ["step_end", "epoch_start", "epoch_trained", "eval_end", "epoch_end", "trigger", "train_end"];
    insta::assert_snapshot!(ran.sequence("other", &events), @"
    1.0 (0): epoch_start
    1.1 (1): step_end
    1.2 (2): step_end epoch_trained eval_end[0, 2, false, val] epoch_end trigger[epoch]
    2.0 (2): epoch_start
    2.1 (3): step_end
    2.2 (4): step_end
    2.3 (5): step_end epoch_trained eval_end[0, 2, false, val] epoch_end trigger[epoch] train_end[finished, ]
    ");
}

#[test]
fn a_requested_evaluation() {
    let ran = SmallRun::new()
        .recorder("within", "", "ask_in = 'step_end', asks = 'evaluate', at_step = 2")
        .recorder("after", "", "ask_in = 'epoch_end', asks = 'evaluate', at_step = 3")
        .set("train.epochs=1")
        .run()
        .succeeded();
    insta::assert_snapshot!(ran.sequence("after", &["eval_start", "eval_end", "epoch_end", "trigger"]), @"
    1.2 (2): eval_start[0, 2, true, val] eval_end[0, 2, true, val]
    1.3 (3): eval_start[0, 2, false, val] eval_end[0, 2, false, val] epoch_end trigger[epoch] eval_start[0, 2, false, val] eval_end[0, 2, false, val]
    ");
}

#[test]
fn a_requested_checkpoint() {
    let ran = SmallRun::new()
        .recorder("asks", "", "ask_in = 'step_end', asks = 'checkpoint', at_step = 2")
        .recorder("slow", "dispatch = 'background'", "sleep_ms = 20, sleep_in = 'step_end'")
        .set("train.epochs=1")
        .run()
        .succeeded();
    insta::assert_snapshot!(ran.sequence("asks", &["step_end", "save_state", "checkpoint"]), @"
    1.1 (1): step_end
    1.2 (2): step_end save_state[9] checkpoint[asks, the recorder was told to]
    1.3 (3): step_end
    ");
    // All callbacks have handled everything before it, and all states are saved before it is written.
    let events = ["step_end", "save_state", "checkpoint"];
    let told = ran.told(&events);
    let position = |line: &str| told.iter().position(|told| told == line).expect("it came");
    let of_slow = ran.sequence("slow", &events);
    assert_eq!(of_slow, ran.sequence("asks", &events), "the background sees the same");
    assert!(position("slow save_state") < position("asks checkpoint"), "{told:?}");
}

#[test]
fn records_custom_events_and_artifacts() {
    let ran = SmallRun::new()
        .recorder("puts", "", "record_in = 'epoch_end', emit_in = 'epoch_end', publish_in = 'epoch_end', at_step = 3")
        .recorder("sees", "", "")
        .run()
        .succeeded();
    insta::assert_snapshot!(ran.sequence("sees", &["record", "custom", "artifact"]), @"1.3 (3): record[puts, recorder/puts, 20.0, scalar] custom[puts, recorder, puts] artifact[puts, recorder, recorder.txt]");
    assert_eq!(ran.status()["artifacts"]["recorder"], "recorder.txt");
}

#[test]
fn an_evaluation_after_the_last_step_is_not_in_mid_epoch() {
    for (every, mid_epoch) in [("3 steps", vec![false, false]), ("2 steps", vec![true, true, false])] {
        let ran = SmallRun::new().set(&format!("eval.every='{every}'")).recorder("a", "", "").run().succeeded();
        let told: Vec<bool> =
            ran.lines_of("a", "eval_start").iter().map(|line| line["texts"]["mid_epoch"] == true).collect();
        assert_eq!(told, mid_epoch, "{every}");
    }
}

/// Sends the signal that Ctrl-C sends.
#[cfg(unix)]
fn interrupt(process: u32) {
    let sent = Command::new("sh").args(["-c", &format!("kill -INT {process}")]).status();
    assert!(sent.expect("there is a shell").success());
}

/// Interrupts the run once it is running.
#[cfg(unix)]
fn interrupted(run: SmallRun) -> Ran {
    let child = run.start();
    run.wait_for("step_end");
    interrupt(child.id());
    let output = child.wait_with_output().expect("the host ends");
    run.ended(output)
}

#[test]
#[cfg(unix)]
fn the_exit_code_says_which_signal_it_was_and_an_ignored_one_stays_ignored() {
    let send = |signal: &str, process: u32| {
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {process}")]).status();
        assert!(sent.expect("there is a shell").success());
    };
    let long = || SmallRun::new().set("train.epochs=100_000").recorder("a", "", "");
    for (signal, code) in [("TERM", 143), ("HUP", 129)] {
        let run = long();
        let child = run.start();
        run.wait_for("step_end");
        send(signal, child.id());
        let ran = run.ended(child.wait_with_output().expect("the host ends"));
        assert_eq!((ran.code(), ran.status()["state"].as_str()), (Some(code), Some("interrupted")), "{signal}");
    }
    let run = long();
    let child = run.start_with(|command| {
        let mut quiet = Command::new("nohup");
        quiet.arg(command.get_program()).args(command.get_args()).stdin(std::process::Stdio::null());
        quiet.current_dir(command.get_current_dir().expect("it has one"));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => quiet.env(name, value),
                None => quiet.env_remove(name),
            };
        }
        *command = quiet;
    });
    run.wait_for("step_end");
    send("HUP", child.id());
    run.wait_for("epoch_end");
    send("TERM", child.id());
    let ran = run.ended(child.wait_with_output().expect("the host ends"));
    assert_eq!(ran.code(), Some(143), "{}", ran.shown());
}

#[test]
#[cfg(unix)]
fn a_second_signal_ends_the_process_at_once() {
    // The hook that the first signal waits for does not return.
    let sleeps = "sleep_ms = 60_000, sleep_in = 'stopping'";
    let run = SmallRun::new().set("train.epochs=100_000").recorder("hangs", "", sleeps);
    let child = run.start();
    run.wait_for("step_end");
    interrupt(child.id());
    run.wait_for("stopping");
    interrupt(child.id());
    let output = child.wait_with_output().expect("the host ends");
    let ran = run.ended(output);
    assert_eq!(ran.code(), Some(130));
    assert_eq!(ran.events_of("hangs").last().map(String::as_str), Some("stopping"));
    assert_ne!(ran.status()["state"], "finished");
}

#[test]
#[cfg(target_os = "linux")]
fn threads_wait_a_short_time_for_each_other() {
    let environment = |settings: &[(&str, &str)]| {
        let run = SmallRun::new().set("train.epochs=100_000").recorder("a", "", "");
        let mut child = run.start_with(|command| {
            command.env_remove("GOMP_SPINCOUNT").envs(settings.iter().copied());
        });
        run.wait_for("step_end");
        let environment = std::fs::read(format!("/proc/{}/environ", child.id())).expect("it runs");
        assert!(!environment.is_empty(), "it runs");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        let mut variables: Vec<String> = String::from_utf8_lossy(&environment).split('\0').map(str::to_owned).collect();
        variables.retain(|variable| variable.starts_with("GOMP_") || variable.starts_with("OMP_"));
        variables
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    assert_eq!(environment(&[]).len(), usize::from(cores > 1));
    assert_eq!(environment(&[("OMP_WAIT_POLICY", "active")]), ["OMP_WAIT_POLICY=active"]);
}

#[test]
#[cfg(unix)]
fn a_signal_ends_the_run_with_its_end_hooks() {
    let ran = interrupted(SmallRun::new().set("train.epochs=10000").recorder(
        "last",
        "when = { at = ['end'] }",
        "sleep_ms = 20, sleep_in = 'step_end'",
    ));
    assert_eq!(ran.code(), Some(130));
    let ends: Vec<String> = ran.events_of("last").into_iter().filter(|event| END.contains(&event.as_str())).collect();
    assert_eq!(ends, ["stopping", "trigger", "train_end", "teardown"]);
    assert_eq!(text(&ran.lines_of("last", "train_end")[0]["texts"], "outcome"), "interrupted");
    assert_eq!(ran.status()["state"], "interrupted");
}

#[test]
fn each_created_callback_is_torn_down_when_a_setup_fails() {
    let ran = SmallRun::new()
        .recorder("before", "", "")
        .recorder("fails", "", "fail_in = 'setup'")
        .recorder("after", "", "")
        .run();
    assert_eq!(ran.code(), Some(1));
    insta::assert_debug_snapshot!(ran.told(&[]), @r#"
    [
        "before new",
        "fails new",
        "after new",
        "before setup",
        "fails setup",
        "after setup",
        "before error",
        "fails error",
        "after error",
        "before teardown",
        "fails teardown",
        "after teardown",
    ]
    "#);
    assert_eq!(ran.status()["outcome"], "failed");
}

#[test]
fn each_created_callback_is_torn_down_when_another_cannot_be_created() {
    for how in ["fail_in", "panic_in"] {
        let ran = SmallRun::new()
            .recorder("before", "", "")
            .recorder("fails", "", &format!("{how} = 'new'"))
            .recorder("after", "", "")
            .run();
        assert_eq!(ran.code(), Some(1));
        assert_eq!(ran.told(&[]), ["before new", "fails new", "before teardown"]);
        assert_eq!(ran.status()["outcome"], "failed");
    }
}
