use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use fixture::{TempDir, build_workspace_plugins, folder_of, host, lines, shared_folder, temporary_folder};
use serde_json::Value;

use crate::small_run::{Ran, SmallRun, text};

fn shipped() -> TempDir {
    folder_of(build_workspace_plugins().values().map(std::path::PathBuf::as_path))
}

fn output(command: &mut Command) -> Output {
    command.output().expect("the host starts")
}

/// Sorted: whether an object keeps its order depends on what else is built.
fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value.as_object().expect("it is an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("the file is there")).expect("it is JSON")
}

/// The built-in run with the shipped plugins, as in the README, once for all tests of its output.
fn digits() -> &'static (PathBuf, Output) {
    static RUN: OnceLock<(PathBuf, Output)> = OnceLock::new();
    RUN.get_or_init(|| {
        // A value that is never dropped does not remove its folder.
        let (folder, plugins) = (shared_folder("digits"), shipped());
        let output = output(host().args(["run", "--plugins"]).arg(plugins.path()).current_dir(&folder).args([
            "--out",
            "out",
            "--set",
            "run.device=cpu",
        ]));
        (folder, output)
    })
}

#[test]
fn the_built_in_run_learns_the_digits() {
    let (folder, output) = digits();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let out = folder.join("out").canonicalize().expect("there is a run folder");
    // Data to stdout, everything else to stderr.
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", out.display()));

    let epochs = lines(&out.join("metrics.jsonl"));
    assert_eq!(epochs.len(), 12);
    for (index, epoch) in (1..).zip(&epochs) {
        assert_eq!(
            (&epoch["kind"], &epoch["epoch"], &epoch["step"]),
            (&"epoch".into(), &index.into(), &(index * 23).into())
        );
        for metric in ["train_loss", "train_accuracy", "val_loss", "val_accuracy"] {
            assert!(epoch[metric].is_f64(), "{epoch}");
        }
    }
    let accuracy = epochs[11]["val_accuracy"].as_f64();
    assert!(accuracy > Some(0.97), "{accuracy:?}");
}

#[test]
fn the_status_of_a_finished_run() {
    let status = json(&digits().0.join("out/status.json"));
    insta::assert_debug_snapshot!(names(&status), @r#"
    [
        "artifacts",
        "best",
        "callbacks",
        "elapsed",
        "error",
        "error_kind",
        "failures",
        "machine",
        "metrics",
        "outcome",
        "position",
        "process",
        "process_started",
        "progress",
        "reason",
        "run",
        "started",
        "state",
        "stopped_by",
        "time_left",
        "updated",
        "waited_for_data",
        "warnings",
    ]
    "#);
    insta::assert_debug_snapshot!(names(&status["artifacts"]), @r#"
    [
        "best_checkpoint",
        "exports",
        "last_checkpoint",
        "metrics",
    ]
    "#);
    assert_eq!((text(&status, "state"), text(&status, "outcome")), ("finished", "finished"));
    assert_eq!(status["progress"], 1.0);
    assert_eq!((&status["position"]["epoch"], &status["position"]["global_step"]), (&12.into(), &276.into()));
    assert_eq!((&status["error"], &status["time_left"]), (&Value::Null, &Value::Null));
    assert!(status["metrics"]["val_accuracy"].as_f64() > Some(0.97), "{status}");
    let seconds = |name: &str| status[name].as_f64().unwrap_or(f64::NAN);
    assert!(0.0 <= seconds("waited_for_data") && seconds("waited_for_data") < seconds("elapsed"), "{status}");
    // What each hook cost, by plugin.
    assert!(status["callbacks"].as_array().is_some_and(|all| all.iter().any(|one| one["plugin"] == "checkpoint")));
}

#[test]
fn the_log_has_a_line_for_each_epoch_and_none_for_each_hook() {
    let log = lines(&digits().0.join("out/log.jsonl"));
    let epochs: Vec<_> = log.iter().filter(|line| line["target"] == "epoch").collect();
    assert_eq!(epochs.len(), 12);
    let last = &epochs[11]["fields"];
    assert_eq!((&last["epoch"], &last["step"]), (&12.into(), &276.into()));
    let metrics = text(last, "metrics");
    assert!(metrics.contains("train_loss=") && metrics.contains("val_accuracy="), "{metrics}");
    assert!(log.iter().all(|line| line["target"] != "hook"));
}

#[test]
fn a_verbose_log_tells_the_hooks_in_declared_order() {
    let (folder, plugins) = (temporary_folder(), shipped());
    let mut command = host();
    command.args(["run", "-vv", "--out", "out", "--set", "train.epochs=1", "--set", "run.device=cpu", "--plugins"]);
    let ran = output(command.arg(plugins.path()).current_dir(folder.path()));
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    let log = lines(&folder.path().join("out/log.jsonl"));
    let hooks: Vec<(&str, &str)> = log
        .iter()
        .filter(|line| line["target"] == "hook")
        .map(|line| (text(&line["fields"], "hook"), text(&line["fields"], "plugin")))
        .collect();
    let first = |hook: &str| -> Vec<&str> {
        let once: BTreeSet<_> = hooks.iter().filter(|(other, _)| *other == hook).map(|(_, plugin)| plugin).collect();
        hooks.iter().filter(|(other, _)| *other == hook).map(|(_, plugin)| *plugin).take(once.len()).collect()
    };
    insta::assert_debug_snapshot!((first("train_start"), first("epoch_end")), @r#"
    (
        [
            "progress",
            "print-metrics",
            "json-lines",
        ],
        [
            "print-metrics",
            "json-lines",
            "terminate-on-nan",
        ],
    )
    "#);
}

#[test]
fn the_run_folder_has_the_documented_files() {
    let out = digits().0.join("out");
    for path in ["run.toml", "status.json", "metrics.jsonl", "log.jsonl"] {
        assert!(out.join(path).is_file(), "{path}");
    }
    for path in ["checkpoints/last", "checkpoints/best", "checkpoints/epoch-0012-step-00000276"] {
        assert!(out.join(path).join("model.safetensors").is_file(), "{path}");
    }
    let leftovers: Vec<_> = std::fs::read_dir(&out)
        .expect("it can be read")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.contains("tmp"))
        .collect();
    assert_eq!(leftovers, [""; 0]);
}

#[test]
fn the_resolved_run_file_is_a_run_file() {
    let (folder, plugins) = (temporary_folder(), shipped());
    let resolved = digits().0.join("out/run.toml");
    // From another folder, and into another one.
    let again = output(
        host().arg("run").arg(&resolved).arg("--plugins").arg(plugins.path()).current_dir(folder.path()).args([
            "--out",
            "again",
            "--set",
            "train.epochs=1",
        ]),
    );
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stderr));
    let read = |path: &Path| std::fs::read_to_string(path).expect("there is a resolved run file");
    let line = |text: &str, key: &str| {
        let found = text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
        assert!(found.is_some(), "the resolved run file has no `{key}`:\n{text}");
        found
    };
    let again = read(&folder.path().join("again/run.toml"));
    for key in ["seed", "batch_size", "type", "normalize"] {
        assert_eq!(line(&again, key), line(&read(&resolved), key));
    }
    assert_eq!(line(&again, "epochs").as_deref(), Some("epochs = 1"));
}

#[test]
fn the_resolved_run_file_finds_data_that_was_named_relatively() {
    let (folder, plugins) = (temporary_folder(), shipped());
    let run_folder = folder.path().join("runs");
    std::fs::create_dir_all(folder.path().join("files")).expect("a folder can be made");
    for file in ["run.toml", "digits.csv.gz"] {
        let from = fixture::workspace_root().join("examples/digits").join(file);
        std::fs::copy(from, folder.path().join("files").join(file)).expect("the example can be copied");
    }
    let run = |file: &str, out: &str| {
        let mut command = host();
        command.args(["run", file, "--out", out, "--set", "train.epochs=1", "--plugins"]).arg(plugins.path());
        output(command.current_dir(folder.path()))
    };
    for (file, out) in [("files/run.toml", "runs/first"), ("runs/first/run.toml", "runs/second")] {
        let ran = run(file, out);
        assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    assert!(run_folder.join("second/metrics.jsonl").is_file());
}

#[test]
fn keys_are_overridden() {
    let ran = SmallRun::new()
        .recorder("a", "", "")
        .set("train.epochs=1")
        .set("train.batch_size=720")
        .set("plugins.a.options.stop_in=step_end")
        .run()
        .succeeded();
    assert_eq!(ran.status()["position"]["global_step"], 1);
    assert_eq!(ran.status()["position"]["samples"], 720);
    let wrong = SmallRun::new().set("train.epoch=1").run();
    insta::assert_snapshot!(wrong.shown(), @"
    exit code: 2
    -- stderr
      × unknown key `epoch` in `train`
       ╭─[--set:1:7]
     1 │ train.epoch=1
       ·       ──┬──
       ·         ╰── not known here
       ╰────
      hint: did you mean `epochs`?
    ");
}

#[test]
fn json_is_all_that_is_on_stdout() {
    let ran = SmallRun::new().recorder("a", "", "").arguments(["--json"]).run().succeeded();
    let mut events = fixture::events(&ran.output.stdout);
    let mut told = events.pop().expect("the status");
    for key in ["event", "time"] {
        assert!(told.as_object_mut().is_some_and(|status| status.remove(key).is_some()), "{told}");
    }
    assert_eq!(told, ran.status());
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names[..3], ["start", "warning", "state"], "{names:?}");
    assert!(ran.stderr().contains("callbacks, in order: a"), "{}", ran.stderr());
}

#[test]
fn what_a_run_tells_programs_has_a_schema() {
    let schema = |of: &str| {
        let output = host().args(["config", "schema", of]).output().expect("the host starts");
        let schema = serde_json::from_slice(&output.stdout).expect("JSON");
        jsonschema::validator_for(&schema).expect("a schema")
    };
    let (event, status) = (schema("events"), schema("status"));
    let fails = "fail_in = 'epoch_end', at_step = 3, puts = 'NaN'";
    let survived = SmallRun::new().recorder("a", "on_error = 'ignore'", fails).arguments(["--json"]).run().succeeded();
    let failed = SmallRun::new().recorder("a", "", "fail_in = 'setup'").arguments(["--json"]).run();
    let refused = SmallRun::new().set("train.epoch=1").arguments(["--json"]).run();
    let events = |ran: &Ran| fixture::events(&ran.output.stdout);
    let names = |ran: &Ran| -> Vec<String> {
        events(ran).iter().map(|event| event["event"].as_str().expect("a name").to_owned()).collect()
    };
    for ran in [&survived, &failed, &refused] {
        for line in events(ran) {
            assert!(
                event.is_valid(&line),
                "{line}: {:?}",
                event.iter_errors(&line).map(|error| error.to_string()).collect::<Vec<_>>()
            );
        }
    }
    assert!(status.is_valid(&survived.status()) && !status.is_valid(&serde_json::json!({ "state": "asleep" })));
    for wrong in
        [serde_json::json!({ "event": "start", "time": 1 }), serde_json::json!({ "event": "other", "time": 1 })]
    {
        assert!(!event.is_valid(&wrong), "{wrong}");
    }
    let warnings: Vec<String> = events(&survived)
        .iter()
        .filter(|event| event["event"] == "warning")
        .map(|event| event["message"].as_str().expect("a text").to_owned())
        .collect();
    assert_eq!(warnings.len(), 2, "nothing keeps the weights, and a callback failed once: {warnings:?}");
    assert!(warnings[1].starts_with("plugin `a` failed in `epoch_end`"), "{warnings:?}");
    // A run that never ran does not say that it did.
    assert_eq!(names(&failed), ["start", "warning", "error", "end"]);
    assert_eq!(names(&refused), ["refused"]);
}

#[test]
fn a_quiet_run_shows_nothing_but_its_folder() {
    let ran = SmallRun::new().recorder("a", "", "").arguments(["-q"]).run().succeeded();
    assert_eq!(ran.stderr(), "");
    let failed = SmallRun::new().recorder("a", "", "fail_in = 'setup'").arguments(["-q"]).run();
    assert!(failed.stderr().contains("plugin `a` failed in `setup`"), "{}", failed.stderr());
}

#[test]
fn a_trial_calls_every_hook_and_leaves_nothing() {
    let ran = SmallRun::with_libraries(&["recorder", "checkpoint", "standard"])
        .set("run.by_default=true")
        .recorder("a", "", "")
        .recorder("behind", "dispatch = 'background'\nwhen = { every = '90 epochs' }", "")
        .arguments(["--try"])
        .run()
        .succeeded();
    let touched: BTreeSet<String> = ran.events_of("a").into_iter().collect();
    insta::assert_debug_snapshot!(touched, @r#"
    {
        "artifact",
        "checkpoint",
        "checkpoint_written",
        "epoch_end",
        "epoch_start",
        "epoch_trained",
        "eval_end",
        "eval_start",
        "eval_step_end",
        "eval_step_start",
        "gradients",
        "new",
        "save_state",
        "setup",
        "step_end",
        "step_start",
        "teardown",
        "train_end",
        "train_start",
        "trigger",
    }
    "#);
    let behind: BTreeSet<String> = ran.events_of("behind").into_iter().collect();
    assert_eq!(behind, touched);
    assert_eq!(ran.lines_of("a", "step_end").len(), 1);
    assert_eq!(ran.lines_of("a", "eval_step_end").len(), 1);
    // The journal is the recorder's own.
    assert_eq!(ran.files(), ["journal.jsonl", "run.toml"]);
    assert_eq!(ran.output.stdout, b"");
}

#[test]
fn a_run_folder_has_one_run_at_a_time() {
    let first = SmallRun::new().set("train.epochs=100000").recorder("a", "", "sleep_ms = 20, sleep_in = 'step_end'");
    let mut child = first.start();
    first.wait_for("step_end");
    let second = SmallRun::new().recorder("a", "", "");
    let second = second.run_in(first.out());
    assert!(child.try_wait().expect("a process").is_none(), "the first is still there");
    child.kill().expect("the first can be ended");
    child.wait().expect("the first ends");
    assert_eq!(second.code(), Some(2));
    let folder = first.out().canonicalize().expect("there is a run folder");
    let shown = second.shown().replace(&folder.display().to_string(), "[OUT]");
    insta::assert_snapshot!(shown, @"
    exit code: 2
    -- stderr
      × another process trains in the run folder `[OUT]`
      hint: wait for it, or choose another folder: `--out DIR`
    ");
}

/// The weights after two epochs.
fn weights(run: SmallRun) -> (Ran, Vec<u8>) {
    let ran = run.instance("kind = 'checkpoint'").run().succeeded();
    let bytes = std::fs::read(ran.out.join("checkpoints/epoch-0002-step-00000006/model.safetensors"));
    (ran, bytes.expect("there is a checkpoint"))
}

#[test]
fn same_seed_same_bits() {
    let run = || SmallRun::with_libraries(&["checkpoint", "recorder"]);
    let (_, first) = weights(run());
    assert!(first == weights(run()).1, "the same again");
    assert!(first != weights(run().set("run.seed=8")).1, "another seed gives other weights");
}

#[test]
fn plugins_that_only_read_change_no_bit() {
    let run = || SmallRun::with_libraries(&["checkpoint", "recorder", "standard"]);
    let (_, alone) = weights(run());
    let (_, watched) = weights(
        run()
            .set("run.by_default=true")
            .recorder("inline", "", "record_in = 'step_end', emit_in = 'epoch_end'")
            // Another evaluation, in the middle of an epoch.
            .recorder("behind", "dispatch = 'background'", "ask_in = 'step_start', asks = 'evaluate', at_step = 2"),
    );
    assert!(alone == watched);
}

#[test]
fn a_stop_is_not_a_failure() {
    let ran = SmallRun::new().recorder("a", "", "stop_in = 'epoch_end'").run().succeeded();
    assert_eq!((text(&ran.status(), "state"), ran.status()["position"]["epoch"].as_u64()), ("stopped", Some(1)));
}

#[test]
fn a_run_starts_from_the_weights_of_another() {
    let epoch = |ran: &Ran| ran.status()["metrics"]["val_loss"].as_f64().expect("it was evaluated");
    let run =
        || SmallRun::with_libraries(&["recorder", "checkpoint"]).instance("kind = 'checkpoint'").set("train.epochs=1");
    let first = run().run().succeeded();
    let weights = first.out.join("checkpoints/last/model.safetensors");
    let from = format!("model.init_from='{}'", weights.display());
    let second = run().set(&from).run().succeeded();
    assert!(second.stderr().contains("weights: 4 of 4 tensors from"), "{}", second.stderr());
    assert!(epoch(&second) < epoch(&first));
    // It has them now, and resumes without the file.
    std::fs::remove_file(weights).expect("it can be removed");
    let out = second.out.clone();
    run().set(&from).set("train.epochs=2").run_in(out).succeeded();
    let refused = run().set(&from).run();
    assert_eq!(refused.code(), Some(2));
    assert!(refused.stderr().contains("cannot read the weights"), "{}", refused.stderr());
}

#[test]
fn no_file_of_a_users_is_replaced() {
    // The folder of the run file, as with `--out .`.
    let run = SmallRun::new();
    let folder = run.out().parent().expect("it has one").to_owned();
    let ran = run.run_in(folder.clone());
    assert_eq!(ran.code(), Some(2));
    assert!(ran.shown().contains("holds other files, and no run"), "{}", ran.shown());
    let names: BTreeSet<String> = std::fs::read_dir(&folder)
        .expect("it can be read")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, BTreeSet::from(["run.toml".to_owned()]), "nothing is added");

    // The run file in the run folder is one's own once it is given.
    let ran = SmallRun::with_libraries(&["checkpoint"]).instance("kind = 'checkpoint'").run().succeeded();
    let own = ran.out.join("run.toml");
    let before = std::fs::read_to_string(&own).expect("it is there") + "# a remark\n";
    std::fs::write(&own, &before).expect("it is written");
    let plugins = folder_of([build_workspace_plugins()["checkpoint"].as_path()]);
    let mut again = host();
    again.arg("run").arg(&own).args(["--set", "train.epochs=3", "--plugins"]).arg(plugins.path());
    let output = output(again.arg("--out").arg(&ran.out));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(json(&ran.out.join("status.json"))["position"]["epoch"], 3);
    assert_eq!(std::fs::read_to_string(&own).expect("it is there"), before);
}

#[test]
fn more_threads_than_any_machine_has_use_for_are_refused() {
    let ran = SmallRun::new().set("run.threads=100000").run();
    assert_eq!(ran.code(), Some(2));
    assert!(ran.shown().contains("`run.threads` = `100000` is more than 1024"), "{}", ran.shown());
}

#[test]
fn a_folder_whose_checkpoints_are_all_damaged_is_refused() {
    let run = || SmallRun::with_libraries(&["checkpoint"]).instance("kind = 'checkpoint'");
    let ran = run().run().succeeded();
    std::fs::write(ran.out.join(".tmp-left"), "half of a status").expect("it is written");
    let mut damaged = Vec::new();
    for entry in std::fs::read_dir(ran.out.join("checkpoints")).expect("it can be read") {
        let model = entry.expect("an entry").path().join("model.safetensors");
        if model.exists() && !model.parent().expect("a folder").is_symlink() {
            std::fs::write(&model, "damaged").expect("it is written");
            damaged.push(model);
        }
    }
    assert!(!damaged.is_empty());
    let again = run().set("train.epochs=3").run_in(ran.out.clone());
    assert_eq!(again.code(), Some(2), "{}", again.shown());
    assert!(again.shown().contains("can be used"), "{}", again.shown());
    assert!(damaged.iter().all(|model| std::fs::read(model).is_ok_and(|content| content == b"damaged")));
    assert!(!ran.out.join(".tmp-left").exists(), "what a killed process left is removed");
}
