use serde_json::Value;

use crate::small_run::{Ran, SmallRun, text};

/// A run in which `bad` fails at the first epoch's end.
fn failing(how: &str, on_error: &str, dispatch: &str) -> Ran {
    let entry = format!("on_error = '{on_error}'\ndispatch = '{dispatch}'");
    SmallRun::new()
        .recorder("first", "", "")
        .recorder("bad", &entry, &format!("{how} = 'epoch_end', at_step = 3"))
        .recorder("last", "", "")
        .run()
}

/// The events of `bad` after the hook that failed.
fn afterwards(ran: &Ran) -> Vec<String> {
    let events = ran.events_of("bad");
    let failed = events.iter().position(|event| event == "epoch_end").expect("it came");
    events[failed + 1..].to_vec()
}

const MODES: [&str; 2] = ["inline", "background"];

#[test]
fn an_error_that_stops() {
    for mode in MODES {
        let ran = failing("fail_in", "stop", mode);
        fails_as(&ran, "plugin `bad` failed in `epoch_end`: the recorder was told to fail in `epoch_end`");
        for name in ["first", "bad", "last"] {
            let events = ran.events_of(name);
            let behind_error: Vec<&str> =
                events.iter().map(String::as_str).skip_while(|event| *event != "error").skip(1).collect();
            match mode {
                "inline" => assert_eq!(behind_error, ["train_end", "teardown"], "{name}"),
                // The loop notices it at the next event, which is then finished.
                _ => assert!(behind_error.ends_with(&["train_end", "teardown"]), "{name}: {behind_error:?}"),
            }
        }
        // The event is finished for the others.
        assert_eq!(ran.lines_of("last", "epoch_end").len(), 1, "{mode}");
    }
}

#[test]
fn a_panic_that_stops() {
    let place = regex::Regex::new(r"recorder/src/lib\.rs:\d+:\d+").expect("the pattern is valid");
    for mode in MODES {
        let ran = failing("panic_in", "stop", mode);
        fails_as(&ran, "plugin `bad` panicked in `epoch_end`: the recorder was told to panic in `epoch_end`");
        assert!(place.is_match(&ran.stderr()), "{}", ran.stderr());
        assert_eq!(afterwards(&ran), [""; 0], "{mode}");
        assert_eq!(ran.lines_of("last", "epoch_end").len(), 1, "{mode}");
        let failure = &ran.status()["failures"][0];
        assert_eq!((text(failure, "plugin"), text(failure, "hook")), ("bad", "epoch_end"));
        assert!(place.is_match(text(failure, "place")) && failure["panicked"] == true, "{failure}");
    }
}

/// Asserts that every report of the run's end says that it failed, and why.
fn fails_as(ran: &Ran, message: &str) {
    assert_eq!(ran.code(), Some(1), "{}", ran.shown());
    assert!(ran.stderr().contains(message), "{}", ran.stderr());
    let last =
        ran.stderr().lines().find(|line| line.contains("epoch, ") || line.contains("epochs, ")).map(str::to_owned);
    assert!(last.is_some_and(|line| line.starts_with("failed: ")), "{}", ran.stderr());
    let status = ran.status();
    assert_eq!((text(&status, "state"), text(&status, "outcome")), ("failed", "failed"));
    assert!(text(&status, "error").starts_with(message), "{status}");
    for name in ["first", "last"] {
        let end = &ran.lines_of(name, "train_end")[0]["texts"];
        assert_eq!((text(end, "outcome"), text(end, "reason")), ("failed", message), "{name}");
        assert_eq!(ran.lines_of(name, "error").len(), 1, "{name}");
        assert_eq!(ran.lines_of(name, "teardown").len(), 1, "{name}");
    }
}

#[test]
fn failures_that_the_run_survives() {
    for mode in MODES {
        for (how, on_error, words, after) in [
            ("fail_in", "disable", "failed", "teardown"),
            ("fail_in", "ignore", "failed", "everything"),
            ("panic_in", "disable", "panicked", "nothing"),
            ("panic_in", "ignore", "panicked", "nothing"),
        ] {
            let ran = failing(how, on_error, mode).succeeded();
            let message = format!("plugin `bad` {words} in `epoch_end`: the recorder was told to ");
            assert!(ran.stderr().contains(&message), "{mode} {how} {on_error}: {}", ran.stderr());
            let status = ran.status();
            assert_eq!(status["outcome"], "finished");
            let failures = status["failures"].as_array().expect("the status lists failures");
            let of_bad = |failure: &&serde_json::Value| failure["plugin"] == "bad" && failure["on_error"] == on_error;
            assert_eq!(failures.iter().filter(of_bad).count(), failures.len().max(1), "{failures:?}");
            let error = &ran.lines_of("last", "error")[0]["texts"];
            assert_eq!((text(error, "by"), text(error, "hook")), ("bad", "epoch_end"));
            // The others see everything.
            assert_eq!(ran.lines_of("last", "epoch_end").len(), 2);
            let afterwards = afterwards(&ran);
            match after {
                "everything" => {
                    assert!(afterwards.contains(&"error".to_owned()), "{mode} {how} {on_error}: {afterwards:?}");
                    assert_eq!(ran.lines_of("bad", "epoch_end").len(), 2);
                    assert_eq!(afterwards.last().map(String::as_str), Some("teardown"));
                }
                "teardown" => assert_eq!(afterwards, ["teardown"], "{mode} {how} {on_error}"),
                _ => assert_eq!(afterwards, [""; 0], "{mode} {how} {on_error}"),
            }
        }
    }
}

#[test]
fn what_a_failure_looks_like() {
    insta::assert_snapshot!(failing("fail_in", "stop", "inline").shown(), @r#"
    exit code: 1
    -- stdout
    [FOLDER]/out
    -- stderr
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: first, bad, last
    error: × plugin `bad` failed in `epoch_end`: the recorder was told to fail in `epoch_end`
      hint: kind `recorder` of `[PLUGINS]/librecorder.so`; `on_error = "disable"` would let the run continue without it
    failed: 1 epoch, 3 steps in [TIME] s
    results: [FOLDER]/out
    "#);
}

#[test]
fn what_a_panic_looks_like() {
    let ran = failing("panic_in", "stop", "inline");
    let place = regex::Regex::new(r"lib\.rs:\d+:\d+").expect("the pattern is valid");
    insta::assert_snapshot!(place.replace_all(&ran.shown(), "lib.rs:[PLACE]"), @r#"
    exit code: 1
    -- stdout
    [FOLDER]/out
    -- stderr
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: first, bad, last
    error: × plugin `bad` panicked in `epoch_end`: the recorder was told to panic in `epoch_end`
      hint: at recorder/src/lib.rs:[PLACE], kind `recorder` of `[PLUGINS]/librecorder.so`; `on_error = "disable"` would let the run continue without it
    failed: 1 epoch, 3 steps in [TIME] s
    results: [FOLDER]/out
    "#);
}

#[test]
fn a_callback_that_cannot_be_created() {
    insta::assert_snapshot!(SmallRun::new().recorder("bad", "on_error = 'ignore'", "fail_in = 'new'").run().shown(), @"
    exit code: 1
    -- stdout
    [FOLDER]/out
    -- stderr
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: bad
    error: × plugin `bad` failed in `new`: the recorder was told to fail in `new`
      hint: kind `recorder` of `[PLUGINS]/librecorder.so`
    failed: 0 epochs, 0 steps in [TIME] s
    results: [FOLDER]/out
    ");
}

#[test]
fn a_setup_that_the_run_survives() {
    let ran = SmallRun::new()
        .recorder("bad", "on_error = 'disable'", "fail_in = 'setup'")
        .recorder("other", "", "")
        .run()
        .succeeded();
    assert_eq!(ran.events_of("bad"), ["new", "setup", "teardown"]);
    assert_eq!(ran.status()["outcome"], "finished");
}

#[test]
fn an_end_that_fails() {
    for hook in ["train_end", "teardown"] {
        for how in ["fail_in", "panic_in"] {
            let ran = SmallRun::new().recorder("bad", "", &format!("{how} = '{hook}'")).recorder("last", "", "").run();
            assert_eq!(ran.code(), Some(1), "{hook} {how}: {}", ran.shown());
            assert_eq!(ran.status()["outcome"], "failed", "{hook} {how}");
            assert!(text(&ran.status(), "error").contains(&format!("in `{hook}`")), "{}", ran.status());
            assert_eq!(ran.lines_of("last", hook).len(), 1, "{hook} {how}");
            assert_eq!(ran.lines_of("last", "teardown").len(), 1, "{hook} {how}");
        }
    }
}

#[test]
fn a_callback_disabled_within_an_event_does_not_see_the_rest_of_it() {
    let ran = SmallRun::new()
        .recorder("puts", "", "record_in = 'epoch_end', at_step = 3")
        .recorder("bad", "on_error = 'disable'", "fail_in = 'record'")
        .run()
        .succeeded();
    let events = ran.events_of("bad");
    assert_eq!(events[events.len() - 2..], ["record", "teardown"]);
}

#[test]
fn an_error_says_where_it_happened() {
    let ran = failing("fail_in", "ignore", "inline").succeeded();
    let error = &ran.lines_of("last", "error")[0];
    assert_eq!((&error["epoch"], &error["global_step"]), (&1.into(), &3.into()));
}

#[test]
fn what_a_panicked_one_last_saved_is_in_every_later_checkpoint() {
    let ran = SmallRun::with_libraries(&["recorder", "checkpoint"])
        .recorder("bad", "on_error = 'disable'", "panic_in = 'step_end', at_step = 5")
        .instance("kind = 'checkpoint'\noptions = { background = false }")
        .run()
        .succeeded();
    let state = |folder: &str| {
        let path = ran.out.join("checkpoints").join(folder).join("plugins/bad.bin");
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let before = state("epoch-0001-step-00000003");
    assert!(!before.is_empty());
    assert_eq!(state("epoch-0002-step-00000006"), before);
}

#[test]
#[cfg(unix)]
fn a_plugin_that_ends_the_process_fails_the_run() {
    let run = || SmallRun::with_libraries(&["crashes", "checkpoint"]).instance("kind = 'checkpoint'");
    let ended = run().instance("kind = 'crashes'\noptions = { how = 'exit', epoch = 2 }").run();
    assert_eq!(ended.output.status.code(), Some(1), "{}", ended.shown());
    let told = "plugin `crashes` ended the process in `epoch_end`, with the exit code 0";
    assert!(ended.shown().contains(told), "{}", ended.shown());
    let status = ended.status();
    assert_eq!([&status["state"], &status["outcome"], &status["error_kind"]], ["failed", "failed", "plugin"]);
    assert_eq!(status["error"], told);
    run().run_in(ended.out.clone()).succeeded();
}

#[test]
#[cfg(unix)]
fn a_crash_is_told_at_once_and_at_the_next_start() {
    use std::os::unix::process::ExitStatusExt;
    let run = || {
        let run = SmallRun::with_libraries(&["crashes", "checkpoint", "report"]);
        run.instance("kind = 'checkpoint'").instance("kind = 'report'")
    };
    let crashed = run().instance("kind = 'crashes'\noptions = { how = 'segfault', epoch = 2 }").run();
    assert_eq!(crashed.output.status.signal(), Some(11), "{}", crashed.shown());
    let told = "host: the process crashed with SIGSEGV in the hook `epoch_end` of `crashes`";
    assert!(crashed.shown().contains(told), "{}", crashed.shown());
    // Of a run of a second, the status may not have been written again.
    assert!(crashed.status()["state"] == "running" || crashed.status()["state"] == "starting");

    let again = run().run_in(crashed.out.clone()).succeeded();
    let process = &crashed.status()["process"];
    assert!(process.is_u64());
    let told = ") crashed with SIGSEGV in the hook `epoch_end` of `crashes`; it was last seen at step ";
    assert!(again.shown().contains(told), "{}", again.shown());
    let status: Value =
        serde_json::from_slice(&std::fs::read(crashed.out.join("status.json")).expect("it is there")).expect("JSON");
    assert!(status["warnings"][0].as_str().is_some_and(|warning| warning.contains(told)), "{status}");
    let page = std::fs::read_to_string(crashed.out.join("report.html")).expect("there is a report");
    assert!(page.contains(told), "the report tells it");
    assert!(!crashed.out.join("crash.json").exists(), "it is told once");
    let third = run().set("train.epochs=3").run_in(crashed.out.clone()).succeeded();
    assert!(!third.shown().contains("the last process"), "{}", third.shown());
}
