//! Plugins in processes of their own: the same answers, and whatever happens to them is their failure only.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::{Duration, Instant};

use fixture::temporary_folder;

use crate::small_run::{Ran, SmallRun, text};

/// What a plugin does to its process, the lines of its entry for it, and how it is told.
const HARMS: [(&str, &str, &str); 10] = [
    ("segfault", "", "its process was ended by signal 11 (SIGSEGV)"),
    ("abort", "", "its process was ended by signal 6 (SIGABRT)"),
    ("exit", "", "its process ended itself with exit code 0"),
    (
        "stack",
        "",
        "its process was ended by signal 6 (SIGABRT); it said last: fatal runtime error: stack overflow, aborting",
    ),
    (
        "memory",
        "limits = { memory_mb = 250 }",
        "its process was ended by signal 6 (SIGABRT); it said last: memory allocation",
    ),
    ("descriptors", "limits = { open_files = 32 }", "Too many open files (os error 24)"),
    ("panic", "", "on purpose"),
    ("double_panic", "", "its process was ended by signal 6 (SIGABRT)"),
    ("hang", "", "it did not return within 3."),
    ("talk", "", "it did not return within 3."),
];

fn run(dispatch: &str) -> SmallRun {
    SmallRun::with_libraries(&["breaks-process", "checkpoint"])
        .instance(&format!("kind = 'checkpoint'\ndispatch = '{dispatch}'"))
        .set("run.hook_timeout=\"3 s\"")
}

fn broken(how: &str, entry: &str, options: &str) -> String {
    format!("kind = 'breaks-process'\nisolation = 'process'\n{entry}\noptions = {{ how = '{how}'{options} }}")
}

/// The weights of the last checkpoint, bit for bit.
fn weights(ran: &Ran) -> Vec<u8> {
    std::fs::read(ran.out.join("checkpoints/last/model.safetensors")).expect("there is a checkpoint")
}

#[test]
fn harm_to_its_process_is_a_failure_of_its_plugin_and_the_run_keeps_its_bits() {
    let untouched = weights(&run("inline").run().succeeded());
    for dispatch in ["inline", "background"] {
        // All in one run: whatever one does, the others and the run go on.
        let with = |run: SmallRun, (how, entry, _): &(&str, &str, &str)| {
            run.instance(&broken(
                how,
                &format!("{entry}\nname = '{}'\ndispatch = '{dispatch}'\non_error = 'disable'", how.replace('_', "-")),
                "",
            ))
        };
        let ran = HARMS.iter().fold(run("inline"), with).run().succeeded();
        let failures = ran.status()["failures"].as_array().cloned().unwrap_or_default();
        assert_eq!(failures.len(), HARMS.len(), "{dispatch}: {}", ran.shown());
        for (how, _, told) in HARMS {
            let failure = failures.iter().find(|failure| text(failure, "plugin") == how.replace('_', "-"));
            let failure = failure.unwrap_or_else(|| panic!("{how} {dispatch}: {failures:?}"));
            assert_eq!(text(failure, "hook"), "epoch_end", "{how} {dispatch}");
            assert!(text(failure, "message").contains(told), "{how} {dispatch}: {failure}");
        }
        assert_eq!(weights(&ran), untouched, "{dispatch}");
    }
}

#[test]
fn what_changes_a_process_changes_only_its_own() {
    let untouched = weights(&run("inline").run().succeeded());
    for how in ["rounding", "print"] {
        let ran = run("inline").instance(&broken(how, "", ", hook = 'step_end'")).run().succeeded();
        assert_eq!(weights(&ran), untouched, "{how}");
        assert!(!String::from_utf8_lossy(&ran.output.stdout).contains("printed"), "{}", ran.shown());
        let log = std::fs::read_to_string(ran.out.join("log.jsonl")).expect("there is a log");
        assert_eq!(log.contains("printed 49"), how == "print");
    }
}

/// What callbacks read and write crosses as it is.
#[test]
fn callbacks_that_change_the_training_do_the_same_in_processes_of_their_own() {
    let run = |arguments: &[&str]| {
        SmallRun::with_libraries(&["standard", "checkpoint"])
            .instance("kind = 'checkpoint'")
            .instance("kind = 'gradient-clip'\noptions = { limit = 0.5 }")
            .instance("kind = 'ema'\noptions = { decay = 0.9 }")
            .instance("kind = 'freeze'\noptions = { freeze = ['fc1*'], unfreeze_at = 2 }")
            .instance("kind = 'csv'")
            .arguments(arguments.iter().copied())
            .run()
            .succeeded()
    };
    let (here, apart) = (run(&[]), run(&["--isolate", "all"]));
    assert!(weights(&here) == weights(&apart));
    let read = |ran: &Ran, name: &str| std::fs::read(ran.out.join(name)).expect("it is there");
    assert!(read(&here, "checkpoints/last/copies.safetensors") == read(&apart, "checkpoints/last/copies.safetensors"));
    assert!(apart.stderr().contains("in processes of their own: checkpoint, gradient-clip, ema, freeze, csv"));
}

#[test]
fn a_process_has_the_priority_that_it_is_given() {
    let ran = run("inline").instance(&broken("niceness", "limits = { niceness = 7 }", "")).run().succeeded();
    let log = std::fs::read_to_string(ran.out.join("log.jsonl")).expect("there is a log");
    assert!(log.contains("niceness 7"), "{log}");
}

#[test]
fn a_failure_ends_the_run_where_the_run_says_so() {
    let ran = run("inline").instance(&broken("segfault", "", "")).run();
    insta::assert_snapshot!(ran.shown(), @r#"
    exit code: 1
    -- stdout
    [FOLDER]/out
    -- stderr
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: checkpoint, breaks-process
    in processes of their own: breaks-process
    error: × plugin `breaks-process` failed in `epoch_end`: its process was ended by signal 11 (SIGSEGV)
      hint: kind `breaks-process` of `[PLUGINS]/libbreaks_process.so`; `on_error = "disable"` would let the run continue without it
    failed: 1 epoch, 3 steps in [TIME] s
    results: [FOLDER]/out
    "#);
    let ran = run("inline").instance(&broken("exit", "", ", hook = 'setup'")).run();
    insta::assert_snapshot!(ran.shown(), @r#"
    exit code: 1
    -- stdout
    [FOLDER]/out
    -- stderr
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: checkpoint, breaks-process
    in processes of their own: breaks-process
    error: × plugin `breaks-process` failed in `setup`: its process ended itself with exit code 0
      hint: kind `breaks-process` of `[PLUGINS]/libbreaks_process.so`; `on_error = "disable"` would let the run continue without it
    failed: 0 epochs, 0 steps in [TIME] s
    results: [FOLDER]/out
    "#);
}

#[test]
fn a_process_is_started_anew_with_its_last_state() {
    for dispatch in ["inline", "background"] {
        let folder = temporary_folder();
        let once = folder.path().join("once");
        let entry = format!("restart = 1\ndispatch = '{dispatch}'");
        let options = format!(", hook = 'step_end', at = 4, once = '{}'", once.display());
        let ran = run("inline").instance(&broken("segfault", &entry, &options)).run().succeeded();
        let log = std::fs::read_to_string(ran.out.join("log.jsonl")).expect("there is a log");
        // The checkpoint after the first epoch, of three steps, has its state.
        assert!(log.contains("went on after 3 hooks"), "{dispatch}: {}", ran.shown());
        assert!(ran.stderr().contains("`breaks-process` was started anew; it was the last time"), "{}", ran.shown());
        assert_eq!(ran.status()["failures"].as_array().map(Vec::len), Some(1), "{dispatch}");
        // In the background, the new instance sees too few steps.
        if dispatch == "background" {
            continue;
        }
        // Without the file it does it again, and then the policy counts.
        let ran = run("inline").instance(&broken("segfault", &entry, ", hook = 'step_end', at = 4")).run();
        assert_eq!((ran.code(), ran.status()["failures"].as_array().map(Vec::len)), (Some(1), Some(2)), "{dispatch}");
    }
}

#[test]
fn the_command_line_isolates_too() {
    let ran = SmallRun::with_libraries(&["breaks-process"])
        .instance("kind = 'breaks-process'\non_error = 'disable'\noptions = { how = 'abort' }")
        .arguments(["--isolate", "breaks-process"])
        .run()
        .succeeded();
    assert!(ran.stderr().contains("ended by signal 6"), "{}", ran.shown());
    // Whatever the run file says.
    let ran = SmallRun::with_libraries(&["breaks-process"])
        .instance("kind = 'breaks-process'\nisolation = 'none'\non_error = 'disable'\noptions = { how = 'abort' }")
        .arguments(["--isolate", "all"])
        .run()
        .succeeded();
    assert!(ran.stderr().contains("ended by signal 6"), "{}", ran.shown());
    let ran = SmallRun::new().arguments(["--isolate", "recoder"]).run();
    insta::assert_snapshot!(ran.shown(), @"
    exit code: 2
    -- stderr
      × no library offers the kind `recoder`, which `--isolate` names
      hint: did you mean `recorder`?
    ");
    let ran = SmallRun::new().recorder("a", "restart = 2", "").run();
    insta::assert_snapshot!(ran.shown(), @r#"
    exit code: 2
    -- stderr
      × `a` runs in the host: only what runs in a process of its own is started anew
        ╭─[[FOLDER]/run.toml:43:1]
     42 │ name = 'a'
     43 │ restart = 2
        · ───────
     44 │ 
        ╰────
      hint: add `isolation = "process"`
    "#);
}

#[test]
fn a_failure_after_the_training_is_not_started_anew() {
    let ran = run("inline").instance(&broken("segfault", "restart = 1", ", hook = 'teardown'")).run();
    assert_eq!(ran.code(), Some(1), "{}", ran.shown());
    assert!(!ran.stderr().contains("started anew"), "{}", ran.shown());
}

#[test]
fn what_a_process_has_started_ends_with_it() {
    let ran = run("inline").instance(&broken("orphan", "on_error = 'disable'", "")).run().succeeded();
    let log = std::fs::read_to_string(ran.out.join("log.jsonl")).expect("there is a log");
    let started = log.split_once("started ").and_then(|(_, rest)| rest.split('"').next()).expect("it says which");
    let since = Instant::now();
    while std::fs::read_to_string(format!("/proc/{started}/comm")).is_ok_and(|name| name.trim() == "sleep") {
        assert!(since.elapsed() < Duration::from_secs(10), "{started} still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes of this host's plugins.
fn children(of: u32) -> Vec<u32> {
    let path = format!("/proc/{of}/task/{of}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

#[test]
fn a_host_that_is_killed_leaves_no_child() {
    let run = SmallRun::with_libraries(&["breaks-process", "recorder"]).recorder("first", "", "").instance(&broken(
        "hang",
        "",
        ", hook = 'step_end'",
    ));
    let mut host = run.start();
    run.wait_for("step_end");
    let plugins = children(host.id());
    assert_eq!(plugins.len(), 1);
    host.kill().expect("it runs");
    host.wait().expect("it ends");
    let since = Instant::now();
    while plugins.iter().any(|child| Path::new(&format!("/proc/{child}")).exists()) {
        assert!(since.elapsed() < Duration::from_secs(10), "{plugins:?} still run");
        std::thread::sleep(Duration::from_millis(5));
    }
}
