//! What a plugin can do wrong in the host's process, beyond errors and panics: `tests/RELIABILITY.md` has the table.
#![cfg(unix)]

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::time::{Duration, Instant};

use fixture::lines;
use serde_json::Value;

use crate::small_run::{Ran, SmallRun};

/// A run in which `harms` does something, `inline`, in the `background` or `isolated`, beside a recorder.
fn harming(how: &str, dispatch: &str) -> SmallRun {
    let run = SmallRun::with_libraries(&["harms", "recorder", "checkpoint", "standard"]);
    let entry = match dispatch {
        "isolated" => "isolation = 'process'".to_owned(),
        dispatch => format!("dispatch = '{dispatch}'"),
    };
    run.instance("kind = 'checkpoint'")
        .instance(&format!("kind = 'harms'\n{entry}\non_error = 'disable'\noptions = {{ how = '{how}' }}"))
        .recorder("other", "", "")
}

/// Where a plugin can be.
const WHERE: [&str; 3] = ["inline", "background", "isolated"];

fn weights(ran: &Ran) -> Vec<u8> {
    std::fs::read(ran.out.join("checkpoints/last/model.safetensors")).expect("a checkpoint")
}

fn log(ran: &Ran) -> Vec<Value> {
    lines(&ran.out.join("log.jsonl"))
}

/// The lines of the log that a plugin printed.
fn printed(ran: &Ran) -> Vec<String> {
    let log = log(ran);
    let printed = log.iter().filter(|line| line["target"] == "plugin");
    printed.map(|line| line["fields"]["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn rounding_and_threads_that_a_hook_changes_are_set_back_and_the_weights_are_the_same_bits() {
    let clean = harming("", "inline").set("run.threads=2").run().succeeded();
    for (how, told) in [
        ("round upward", "plugin `harms` changed in `step_start` how numbers are rounded"),
        ("flush to zero", "plugin `harms` changed in `step_start` how numbers are rounded"),
        ("set threads", "plugin `harms` changed in `step_start` the number of threads from 2 to 3"),
        ("new", "plugin `harms` changed in `new` the number of threads from 2 to 3"),
    ] {
        let ran = harming(how, "inline").set("run.threads=2").run().succeeded();
        assert_eq!(ran.stderr().matches(told).count(), 1, "{how}: once: {}", ran.stderr());
        assert!(weights(&ran) == weights(&clean), "{how} changes the weights");
        assert_eq!(ran.status()["state"], "finished");
    }
    // A thread or a process of its own computes as it likes.
    for (how, dispatch) in [("round upward", "background"), ("round upward", "isolated"), ("set threads", "isolated")] {
        let ran = harming(how, dispatch).set("run.threads=2").run().succeeded();
        assert!(!ran.stderr().contains(" changed in "), "{how} {dispatch}: {}", ran.stderr());
        assert!(weights(&ran) == weights(&clean), "{how} {dispatch} changes the weights");
    }
}

#[test]
fn who_of_several_changed_the_threads_is_named_when_it_does_it_again() {
    let ran = SmallRun::with_libraries(&["harms", "recorder"])
        .recorder("other", "", "")
        .instance("kind = 'harms'\noptions = { how = 'set threads' }")
        .run()
        .succeeded();
    let told = ran.stderr();
    let first = told.find("one of `other`, `harms` changed in `step_start` the number of threads");
    let then = told.find("plugin `harms` changed in `step_start` the number of threads");
    assert!(first.is_some() && first < then, "{told}");
}

#[test]
fn a_batch_that_breaks_the_loss_is_the_failure_of_its_writer() {
    let run_with = |on_error: &str, how: &str, entry: &str| {
        let run = SmallRun::with_libraries(&["harms", "recorder", "checkpoint"]).instance("kind = 'checkpoint'");
        run.instance(&format!(
            "kind = 'writes-batch'\n{entry}\non_error = '{on_error}'\noptions = {{ how = '{how}', at_step = 3 }}"
        ))
        // Written after it, with the same values: not to blame.
        .instance("kind = 'writes-batch'\nname = 'harmless'\noptions = { how = 'inputs as they are' }")
        .recorder("other", "", "")
        .run()
    };
    let run = |on_error: &str, how: &str| run_with(on_error, how, "");
    let clean = run("stop", "inputs as they are").succeeded();
    const TOLD: &str =
        "plugin `writes-batch` failed in `step_start`: the step cannot be computed with what it wrote into the batch: ";
    for on_error in ["disable", "ignore"] {
        let ran = run(on_error, "a wrong class").succeeded();
        assert_eq!(ran.stderr().matches(TOLD).count(), 1, "{}", ran.stderr());
        let failures = &ran.status()["failures"];
        assert_eq!((&failures[0]["plugin"], &failures[0]["hook"]), (&"writes-batch".into(), &"step_start".into()));
        assert!(weights(&ran) == weights(&clean), "the step is computed as if it had written nothing");
    }
    let ran = run_with("disable", "a wrong class", "isolation = 'process'").succeeded();
    assert!(ran.stderr().contains(TOLD) && weights(&ran) == weights(&clean), "{}", ran.stderr());
    let ran = run("stop", "a wrong class");
    assert_eq!(ran.code(), Some(1), "{}", ran.shown());
    assert!(ran.stderr().contains(&format!("error: × {TOLD}")), "{}", ran.stderr());
    assert_eq!(ran.status()["error_kind"], "plugin");
}

#[test]
fn what_is_printed_goes_to_the_log_and_not_into_a_result() {
    for dispatch in WHERE {
        let ran = harming("print", dispatch).arguments(["--json"]).run().succeeded();
        let events = fixture::events(&ran.output.stdout);
        assert!(events.len() > 3 && events.iter().all(|event| event["event"] != "forged"), "{events:?}");
        let printed = printed(&ran);
        assert_eq!(printed, [r#"{"event":"forged"}"#, "from C"], "{dispatch}");
        // The output of a process of its own is no result of this one's.
        let told = ran.stderr().contains("a plugin prints to stdout, which is for results");
        assert_eq!(told, dispatch != "isolated", "{}", ran.stderr());
    }
    for (dispatch, told) in [("inline", "plugins printed too much: "), ("isolated", "printed too much: ")] {
        let ran = harming("print much", dispatch).run().succeeded();
        assert_eq!(ran.output.stdout, format!("{}\n", ran.out.display()).into_bytes());
        let size = std::fs::metadata(ran.out.join("log.jsonl")).expect("a log").len();
        assert!((1 << 20..16 << 20).contains(&size), "20 MB were printed, and the log has {size} bytes");
        assert!(ran.stderr().contains(told), "{}", ran.stderr());
    }
}

#[test]
fn text_of_a_plugin_cannot_steer_a_terminal() {
    let steers = |text: &str| {
        text.chars().any(|one| one != '\n' && (one.is_control() || ('\u{202a}'..='\u{202e}').contains(&one)))
    };
    for dispatch in WHERE {
        let ran = harming("terminal", dispatch).run().succeeded();
        let stderr = ran.stderr();
        assert!(
            stderr.contains("a line  of red") && stderr.contains("it fails") && stderr.contains("a record of the log"),
            "{stderr}"
        );
        assert!(!steers(&stderr), "{stderr:?}");
        let console = std::fs::read_to_string(ran.out.join("console.log")).expect("it is kept");
        assert!(console.contains("a line  of red") && !steers(&console), "{console:?}");
        for command in ["status", "attach"] {
            let output = fixture::host().arg(command).arg(&ran.out).output().expect("the host starts");
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!shown.is_empty() && !steers(&shown), "{command}: {shown:?}");
        }
    }
    let run = SmallRun::with_libraries(&["harms"]);
    for arguments in [&["list"] as &[&str], &["describe", "harms"]] {
        let mut command = fixture::host();
        command.arg("plugins").args(arguments).arg("--plugins").arg(run.plugins());
        let output = command.output().expect("the host starts");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(shown.contains("Harms the process") && !steers(&shown), "{shown:?}");
    }
}

#[test]
fn a_flood_costs_bounded_memory_and_time() {
    let flooded = regex::Regex::new(r"flooded: (\d+) MiB, (\d+) refused").expect("a pattern");
    for how in ["flood controls", "flood records"] {
        for dispatch in WHERE {
            let began = Instant::now();
            let ran = harming(how, dispatch).run().succeeded();
            assert!(began.elapsed() < Duration::from_secs(120));
            let told = ran.stderr();
            let found = flooded.captures(&told).unwrap_or_else(|| panic!("{how}: {told}"));
            let [grown, refused] = [1, 2].map(|group| found[group].parse::<u64>().expect("a number"));
            assert!(grown < 64, "{how} {dispatch}: {grown} MiB");
            if how == "flood records" {
                assert!(refused > 900_000, "{refused}");
                assert!(told.contains("plugin `harms` asks for more than the run can read"), "{told}");
                let seen = ran.lines_of("other", "record").len() as u64;
                assert!(seen > 0 && seen + refused <= 1_000_000, "{seen} of those that were not refused");
            }
            assert_eq!(ran.status()["state"], "finished", "{told}");
        }
    }
    let ran = harming("leave records", "inline").run().succeeded();
    assert!(ran.stderr().contains("a hook leaves at most 65536 records and events"), "{}", ran.stderr());
}

/// How a run whose process ends in a hook is told: by itself, and by the next command.
#[test]
fn the_end_of_the_process_is_told() {
    let ended = |how: &str, dispatch: &str| {
        let run = harming(how, dispatch);
        // No run of these tests needs more, and one of them takes all that there is.
        let limits = |command: &mut std::process::Command| {
            let limit = |resource, most| {
                let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
                // SAFETY: a limit of this type, after the fork.
                unsafe { libc::setrlimit(resource, &limit) };
            };
            let takes_memory = how == "take all memory";
            // SAFETY: only system calls that are safe after a fork.
            unsafe {
                command.pre_exec(move || {
                    limit(libc::RLIMIT_CORE, 0);
                    if takes_memory {
                        limit(libc::RLIMIT_AS, 6 << 30);
                    }
                    Ok(())
                })
            };
        };
        let output = run.start_with(limits).wait_with_output().expect("it ends");
        run.ended(output)
    };
    let afterwards = |ran: &Ran| {
        let output = fixture::host().arg("status").arg(&ran.out).output().expect("the host starts");
        // Without the breaks between its lines.
        String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for dispatch in ["inline", "background"] {
        let crashes = [("overflow the stack", "SIGSEGV"), ("panic twice", "SIGABRT"), ("take all memory", "SIGABRT")];
        for (how, name) in crashes {
            let ran = ended(how, dispatch);
            // After a stack that ran out, Rust's own handler aborts.
            assert_eq!(ran.output.status.signal(), Some(libc::SIGABRT), "{how} {dispatch}: {}", ran.shown());
            let told = format!("crashed with {name} in the hook `step_start` of `harms`");
            assert!(ran.stderr().contains(&format!("host: the process {told}")), "{how} {dispatch}: {}", ran.stderr());
            assert!(afterwards(&ran).contains(&told), "{how} {dispatch}: {}", afterwards(&ran));
        }
        let ran = ended("exit", dispatch);
        assert_eq!(ran.code(), Some(1), "{}", ran.shown());
        let told = "plugin `harms` ended the process in `step_start`, with the exit code 0";
        assert!(ran.status()["state"] == "failed" && ran.status()["error"] == told, "{}", ran.status());
        let ran = ended("exit on a thread", dispatch);
        assert_eq!(ran.code(), Some(1), "{}", ran.shown());
        let told = "something ended the process outside of any hook, with the exit code 0";
        assert!(ran.status()["state"] == "failed" && ran.status()["error"] == told, "{}", ran.status());
        let ran = ended("_exit", dispatch);
        // Nobody can be told of it before; the code is the plugin's.
        assert_eq!(ran.code(), Some(0), "{}", ran.shown());
        assert_ne!(ran.status()["state"], "finished");
        assert!(afterwards(&ran).contains("ended without a word"), "{}", afterwards(&ran));
        // What needs a descriptor says that there is none; the status has its own.
        let ran = ended("take all files", dispatch);
        assert_eq!(ran.code(), Some(1), "{}", ran.shown());
        assert!(ran.stderr().contains("Too many open files"), "{}", ran.stderr());
        assert_eq!((&ran.status()["state"], &ran.status()["error_kind"]), (&"failed".into(), &"plugin".into()));
    }
}

#[test]
fn the_end_of_a_process_of_its_own_is_its_failure_however_it_ends() {
    for how in ["_exit", "exit", "exit on a thread"] {
        let ran = harming(how, "isolated").run().succeeded();
        let failure = &ran.status()["failures"][0];
        assert_eq!((&failure["plugin"], &failure["hook"]), (&"harms".into(), &"step_start".into()), "{how}");
        let message = failure["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("its process ended itself with exit code 0"), "{how}: {message}");
    }
}
