//! What commands get, and what happens to a run whose commands misbehave.
#![cfg(unix)]

use std::path::{Path, PathBuf};

use command::Command;
use plugin_api::event::Outcome;
use plugin_api::testing::{FakeHost, json};
use plugin_api::{EventKind, Result};
use proptest::prelude::*;
use serde_json::Value;

/// A host whose command is a script; `arguments` are its `$1`, `$2`, ….
fn host(script: &str, arguments: &[&str], options: Value) -> FakeHost {
    let mut all = options;
    let command: Vec<&str> = std::iter::once(script).chain(arguments.iter().copied()).collect();
    (all["command"], all["shell"]) = (json!(command), true.into());
    let mut host = FakeHost::new::<Command>(all).unwrap().with_info(|info| info.name = "digits".to_owned());
    host.setup().unwrap();
    host.train_start().unwrap();
    host
}

fn end(host: &mut FakeHost) -> Result<()> {
    host.train_end(Outcome::Finished)?;
    host.teardown()
}

fn file(host: &FakeHost, name: &str) -> PathBuf {
    host.folder().join(name)
}

fn content(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_command_reads_its_arguments_and_its_environment() -> Result<()> {
    let script =
        r#"{ echo "$1"; echo "$2"; env | grep ^HOST_ | grep -v ^HOST_TEST_ | sort; } > "$HOST_RUN_FOLDER/told""#;
    let arguments = ["{val_loss:.2} {val_loss}", "{run} {{{event}}} {exports} {no_such_thing}; $(rm -r /nowhere) \""];
    let mut host = host(script, &arguments, json!({}));
    host.put_metric("val_loss", 0.125);
    host.put_metric("a/b c", f64::NAN);
    host.epoch_end(2)?;
    host.artifact("export", "/exports/model.onnx", "onnx")?;
    host.trigger("best val_loss")?;
    host.teardown()?;
    let told = content(&file(&host, "told"));
    let (constant, differs): (Vec<&str>, Vec<&str>) =
        told.lines().partition(|line| !line.starts_with("HOST_SECONDS=") && !line.starts_with("HOST_TIME="));
    assert_eq!(differs.len(), 2);
    let folder = format!("HOST_RUN_FOLDER={}", host.folder().display());
    assert_eq!(
        constant,
        [
            "0.12 0.125",
            "digits {improved} /exports/model.onnx n/a; $(rm -r /nowhere) \"",
            "HOST_CAUSE=best val_loss",
            "HOST_EPOCH=2",
            "HOST_EPOCHS=3",
            "HOST_EVENT=improved",
            "HOST_EXPORTS=/exports/model.onnx",
            "HOST_METRIC=val_loss",
            "HOST_METRIC_A_B_C=NaN",
            "HOST_METRIC_VAL_LOSS=0.125",
            "HOST_RUN=digits",
            &folder,
            "HOST_STEP=20",
            "HOST_STEPS=30",
            "HOST_SUMMARY=val_loss is 0.1250 after epoch 2 of 3, step 20",
            "HOST_TITLE=digits: val_loss improved",
        ]
    );
    Ok(())
}

#[test]
fn a_command_without_a_shell_gets_its_arguments_as_they_are() -> Result<()> {
    let command = json!(["touch", "{run_folder}/$HOME; {event}"]);
    let mut host = FakeHost::new::<Command>(json!({ "command": command }))?;
    host.setup()?;
    end(&mut host)?;
    assert!(file(&host, "$HOME; finished").exists());
    Ok(())
}

#[test]
fn it_runs_when_it_is_said_and_in_order() -> Result<()> {
    let script = r#"echo "$HOST_EVENT $HOST_ARTIFACT $HOST_ERROR $1" >> "$HOST_RUN_FOLDER/told""#;
    let mut host = host(script, &["{error}"], json!({ "events": ["artifact", "trigger", "failed"] }));
    host.artifact("export", "model.onnx", "onnx")?;
    host.trigger("epoch")?;
    host.trigger("best val_loss")?;
    host.error("onnx", "trigger", "a \0 byte")?;
    host.train_end(Outcome::Failed)?;
    host.teardown()?;
    assert_eq!(
        content(&file(&host, "told")),
        "artifact export  n/a\ntrigger   n/a\nfailed  a \u{fffd} byte a \u{fffd} byte\n"
    );
    Ok(())
}

#[test]
fn what_fails_does_not_fail_the_run() -> Result<()> {
    end(&mut host("exit 3", &[], json!({})))?;
    let mut nowhere = FakeHost::new::<Command>(json!({ "command": ["/no/such/program"] }))?;
    nowhere.setup()?;
    end(&mut nowhere)
}

#[test]
fn one_that_takes_too_long_is_ended_with_all_that_it_started() -> Result<()> {
    // A process that still held the pipe would delay the end of the run, and write the file.
    let script = r#"(sleep 300; touch "$HOST_RUN_FOLDER/late") & echo $! > "$HOST_RUN_FOLDER/child"; wait"#;
    let mut by_timeout = host(script, &[], json!({ "timeout_seconds": 0.5 }));
    end(&mut by_timeout)?;
    let mut by_end = host(script, &[], json!({ "drain_seconds": 0.7 }));
    end(&mut by_end)?;
    for host in [&by_timeout, &by_end] {
        let child = content(&file(host, "child"));
        assert!(is_gone(child.trim()), "{child}");
    }
    Ok(())
}

/// Whether the process is gone, or is a zombie until its parent waits for it.
fn is_gone(process: &str) -> bool {
    let state = || std::process::Command::new("ps").args(["-o", "stat=", "-p", process]).output().unwrap().stdout;
    becomes(|| matches!(state().first(), None | Some(b'Z')))
}

/// Waits until `so` holds; fails after half a minute.
fn becomes(is: impl Fn() -> bool) -> bool {
    (0..3000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        is()
    })
}

#[test]
fn a_slow_command_holds_up_nothing() -> Result<()> {
    let script = r#"touch "$HOST_RUN_FOLDER/begun"; sleep 40"#;
    let mut host = host(script, &[], json!({ "queue": 1, "drain_seconds": 0.3 }));
    host.trigger("epoch")?;
    assert!(becomes(|| file(&host, "begun").exists()));
    for _ in 0..100 {
        host.trigger("epoch")?;
    }
    end(&mut host)?;
    assert!(host.logs().iter().any(|line| line.ends_with("some are dropped")), "{:?}", host.logs());
    let left = "WARN commands not finished within the 0.3 s of `drain_seconds`: 1";
    assert!(host.logs().iter().any(|line| line == left), "{:?}", host.logs());
    Ok(())
}

#[test]
fn much_output_does_not_hold_up_a_command() -> Result<()> {
    let script = r#"head -c 1000000 /dev/zero; yes | head -n 100000 >&2; touch "$HOST_RUN_FOLDER/done""#;
    let mut host = host(script, &[], json!({}));
    end(&mut host)?;
    assert!(file(&host, "done").exists());
    Ok(())
}

#[test]
fn very_many_metrics_keep_no_command_from_starting() -> Result<()> {
    let mut host = host(r#"touch "$HOST_RUN_FOLDER/done""#, &[], json!({}));
    for index in 0..30_000 {
        host.put_metric(&format!("{index}{}", "/layer".repeat(20)), 0.5);
    }
    end(&mut host)?;
    assert!(file(&host, "done").exists());
    Ok(())
}

#[test]
fn options_are_refused_before_the_run() {
    for (options, expected) in [
        (json!({}), "`command` must say what to run"),
        (json!({ "command": [""] }), "`command` must say what to run"),
        (json!({ "command": ["echo", "{val_loss"] }), "`command`: a single `{` in `{val_loss`"),
        (json!({ "command": ["echo {val_loss:.4}"], "shell": true }), "in a script, `{val_loss:.4}` is not replaced"),
        (json!({ "command": ["true"], "events": [] }), "`events` is empty"),
        (json!({ "command": ["true"], "queue": 0 }), "must be more than 0"),
        (json!({ "command": ["true"], "timeout_seconds": -1 }), "`timeout_seconds` = `-1` is not a time"),
    ] {
        let found = FakeHost::new::<Command>(options.clone()).err().expect("an error").message().to_owned();
        assert!(found.contains(expected), "{options}: {found}");
    }
}

#[test]
fn a_trial_runs_nothing() -> Result<()> {
    let command = json!(["touch", "{run_folder}/told"]);
    let mut host = FakeHost::new::<Command>(json!({ "command": command }))?.with_info(|info| info.trial = true);
    assert!(!host.subscribes(EventKind::STEP_END) && host.descriptor().dispatch == "background");
    host.setup()?;
    end(&mut host)?;
    assert!(!file(&host, "told").exists());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_text_reaches_the_command_as_it_is(text in "[^\\x00]{0,200}") {
        let mut host = host(r#"printf %s "$1" > "$HOST_RUN_FOLDER/told""#, &["{error}"], json!({ "events": ["failed"] }));
        host.error("onnx", "trigger", &text).unwrap();
        host.train_end(Outcome::Failed).unwrap();
        host.teardown().unwrap();
        prop_assert_eq!(content(&file(&host, "told")), text);
    }
}
