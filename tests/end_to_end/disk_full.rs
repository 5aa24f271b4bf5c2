use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fixture::{compile_c, shared_folder, shown, workspace_root};

use crate::resume::assert_whole;
use crate::training::Training;

/// A recorder whose journal tells of errors, and checkpoints.
const CHECKPOINTS: &str = r#"
[[plugins]]
kind = "recorder"
options = { path = "JOURNAL", sleep_ms = 500, sleep_in = "error" }

[[plugins]]
kind = "checkpoint"
on_error = "POLICY"
options = { background = false }
"#;

const FIRST: &str = "epoch-0001-step-00000023";

/// What the system says of each kind of trouble.
const TROUBLES: [(&str, &str); 3] = [
    ("space", "No space left on device (os error 28)"),
    ("sync", "No space left on device (os error 28)"),
    ("broken", "Input/output error (os error 5)"),
];

/// The library that fails writes, as `full_disk.c` says.
fn library() -> &'static Path {
    static BUILT: OnceLock<std::path::PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compile_c(&workspace_root().join("tests/end_to_end/full_disk.c"), &shared_folder("full-disk")))
}

/// The run, on a disk that is in trouble for files with `part` in their paths while the file `flag` exists.
fn in_trouble(training: &Training, kind: &str, part: &str, flag: &Path) -> Command {
    let mut command = training.command("run");
    command.env("LD_PRELOAD", library()).env("FULL_DISK_KIND", kind);
    command.env("FULL_DISK_PATH", part).env("FULL_DISK_WHILE", flag);
    command
}

/// Its output, up to an epoch.
fn output(mut command: Command, epochs: u64) -> Output {
    command.args(["--set", &format!("train.epochs={epochs}")]).output().expect("the host starts")
}

/// Trains an epoch, and returns a file: while it is there, the disk is in trouble.
fn begun(training: &Training) -> std::path::PathBuf {
    training.run("run", &["--set", "train.epochs=1"]);
    let flag = training.path("full");
    std::fs::write(&flag, "").expect("a file");
    flag
}

/// Asserts that the checkpoints of the run are whole, and that there is nothing else than them and the pointers.
fn assert_nothing_partial(training: &Training) {
    assert_whole(training, "run/checkpoints");
    let entries = training.path("run/checkpoints").read_dir().expect("a folder");
    let names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    let is_known = |name: &String| name.starts_with("epoch-") || name == "last" || name == "best";
    assert!(names.iter().all(is_known), "{names:?}");
}

fn told(training: &Training, output: &Output) -> String {
    shown(output, &[training.folder()])
}

/// Asserts that the output and the status say that a plugin failed for `cause`, which hit a path with `part`.
fn assert_told(training: &Training, output: &Output, plugin: &str, part: &str, cause: &str) {
    let told = told(training, output);
    let is_it = |line: &&str| line.contains(&format!("plugin `{plugin}` failed in")) && line.contains(part);
    let line = told.lines().find(is_it);
    assert!(line.is_some_and(|line| line.contains(cause)), "{told}");
    let status = training.status("run");
    let failures = status["failures"].as_array().expect("a list");
    let message = failures.iter().find(|one| one["plugin"] == plugin).and_then(|one| one["message"].as_str());
    assert!(message.is_some_and(|message| message.contains(part) && message.contains(cause)), "{failures:?}");
}

#[test]
fn a_checkpoint_without_room_ends_the_run_where_the_policy_says_so() {
    for (kind, cause) in TROUBLES {
        // A schedule that does not depend on the number of epochs.
        let training = Training::new(&CHECKPOINTS.replace("POLICY", "stop"))
            .with("schedule = { type = \"cosine\" }", "schedule = { type = \"constant\" }");
        training.run("unbroken", &[]);
        let flag = begun(&training);
        let failed = output(in_trouble(&training, kind, "/checkpoints/", &flag), 2);
        assert_eq!(failed.status.code(), Some(1), "{}", told(&training, &failed));
        assert_told(&training, &failed, "checkpoint", "/run/checkpoints/.tmp-epoch-0002-step-00000046-", cause);
        let status = training.status("run");
        assert_eq!((&status["state"], &status["outcome"]), (&"failed".into(), &"failed".into()));
        assert!(status["error"].as_str().is_some_and(|error| error.contains(cause)), "{status}");
        assert_eq!(training.checkpoints("run/checkpoints"), [FIRST]);
        assert_nothing_partial(&training);
        // With room again, it goes on from there.
        std::fs::remove_file(flag).expect("it can be removed");
        training.run("run", &[]);
        training.assert_same("unbroken/checkpoints/last", "run/checkpoints/last");
    }
}

#[test]
fn a_run_goes_on_without_the_checkpoints_that_the_policy_gives_up() {
    for kind in ["space", "broken"] {
        let training = Training::new(&CHECKPOINTS.replace("POLICY", "disable"));
        let flag = begun(&training);
        let ended = output(in_trouble(&training, kind, "/checkpoints/", &flag), 4);
        assert!(ended.status.success(), "{}", told(&training, &ended));
        let status = training.status("run");
        assert_eq!((&status["state"], &status["position"]["epoch"]), (&"finished".into(), &4.into()));
        assert_eq!(status["failures"].as_array().map(Vec::len), Some(1), "{status}");
        assert_eq!(training.checkpoints("run/checkpoints"), [FIRST]);
        assert_nothing_partial(&training);
    }
}

#[test]
fn the_first_checkpoint_with_room_again_is_written() {
    const EPOCHS: u64 = 40;
    let training = Training::new(&CHECKPOINTS.replace("POLICY", "ignore"));
    let flag = begun(&training);
    let mut command = in_trouble(&training, "space", "/checkpoints/", &flag);
    command.args(["--set", &format!("train.epochs={EPOCHS}")]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = command.spawn().expect("the host starts");
    // The recorder waits at each failure, so that there is time to make room long before the end.
    let begun = Instant::now();
    while !training.journal().iter().any(|line| line["event"] == "error") {
        let goes_on = run.try_wait().expect("a process").is_none() && begun.elapsed() < Duration::from_secs(60);
        if !goes_on {
            let _ = run.kill();
            panic!("{}", told(&training, &run.wait_with_output().expect("its output")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::remove_file(flag).expect("it can be removed");
    let ended = run.wait_with_output().expect("its output");
    assert!(ended.status.success(), "{}", told(&training, &ended));
    assert_told(&training, &ended, "checkpoint", "/.tmp-epoch-0002-step-00000046-", TROUBLES[0].1);
    let status = training.status("run");
    assert_eq!(status["state"], "finished");
    let failed = status["failures"].as_array().expect("a list").len() as u64;
    assert!((1..EPOCHS - 1).contains(&failed), "{status}");
    let name = |epoch: u64| format!("epoch-{epoch:04}-step-{:08}", epoch * 23);
    let kept = training.checkpoints("run/checkpoints");
    // The one from which it went on, and the last three.
    assert!(kept.contains(&name(1)) && kept.ends_with(&[name(EPOCHS - 2), name(EPOCHS - 1), name(EPOCHS)]), "{kept:?}");
    assert_nothing_partial(&training);
    let log = std::fs::read_to_string(training.path("run/log.jsonl")).expect("there is a log");
    assert_eq!(log.matches("plugin `checkpoint` failed in `checkpoint`").count() as u64, failed);
}

/// What writes metrics: the plugin, its entry, and a part of the paths that it writes.
const MONITORS: [(&str, &str, &str); 4] = [
    ("json-lines", "options = { every_steps = 5 }", "/run/metrics.jsonl"),
    ("csv", "options = { every_steps = 5 }", "/run/metrics.csv"),
    ("tensorboard", "when = { every = \"5 steps\" }\noptions = { flush = 0 }", "/run/tensorboard/small/"),
    ("wandb", "when = { every = \"5 steps\" }\noptions = { flush = 0 }", "/run/wandb/offline-run-"),
];

/// The steps of the rows of a monitor, each of which must be whole.
fn steps(training: &Training, plugin: &str) -> Vec<u64> {
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("`{text}` is no step"));
    match plugin {
        "json-lines" => training.metrics("run").iter().map(|line| line["step"].as_u64().expect("a step")).collect(),
        "csv" => {
            let text = std::fs::read_to_string(training.path("run/metrics.csv")).expect("there is a file");
            assert!(text.ends_with('\n'), "{text}");
            let width = text.lines().next().unwrap_or_default().split(',').count();
            let cells = text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
            cells.inspect(|cells| assert_eq!(cells.len(), width, "{text}")).map(|cells| number(cells[2])).collect()
        }
        "wandb" => {
            let found = crate::wandb::read(training, "run");
            found.map(|found| crate::wandb::rows(&found).into_keys().collect()).unwrap_or_default()
        }
        _ => {
            let script = crate::tensorboard::READ;
            let found = crate::tensorboard::python(script, training, &format!("run/{}", crate::tensorboard::LOGS));
            let Some(found) = found else { return Vec::new() };
            let points = found["train"]["scalars"]["loss"].as_array().cloned().unwrap_or_default();
            points.iter().map(|point| point[0].as_u64().expect("a step")).collect()
        }
    }
}

#[test]
fn metrics_without_room_are_told_and_leave_whole_rows() {
    for (plugin, entry, part) in MONITORS {
        for (kind, cause) in TROUBLES.into_iter().filter(|(kind, _)| *kind != "sync") {
            let plugins = |policy: &str| {
                format!(
                    "[[plugins]]\nkind = \"{plugin}\"\non_error = \"{policy}\"\n{entry}\n[[plugins]]\nkind = \"checkpoint\"\n"
                )
            };
            let training = Training::new(&plugins("stop"));
            let flag = begun(&training);
            let before = steps(&training, plugin);
            let failed = output(in_trouble(&training, kind, part, &flag), 2);
            assert_eq!(failed.status.code(), Some(1), "{}", told(&training, &failed));
            assert_told(&training, &failed, plugin, part, cause);
            assert_eq!(training.status("run")["outcome"], "failed");
            assert_eq!(steps(&training, plugin), before, "{plugin}");

            let training = training.with("on_error = \"stop\"", "on_error = \"ignore\"");
            let ended = output(in_trouble(&training, kind, part, &flag), 2);
            assert!(ended.status.success(), "{}", told(&training, &ended));
            assert_told(&training, &ended, plugin, part, cause);
            assert_eq!(steps(&training, plugin), before, "{plugin}");

            std::fs::remove_file(&flag).expect("it can be removed");
            training.run("run", &["--set", "train.epochs=3"]);
            let all = steps(&training, plugin);
            let after: Vec<u64> = all.iter().copied().filter(|step| *step > 46).collect();
            assert!(all.starts_with(&before) && all.len() == before.len() + after.len(), "{plugin}: {all:?}");
            // Where there is no Python, nothing was read.
            assert!(all.is_empty() || after.ends_with(&[69]), "{plugin}: {all:?}");
        }
    }
}

/// All that writes during a run; each goes on whatever happens.
const EVERYTHING: &str = r#"
[[plugins]]
kind = "json-lines"
on_error = "POLICY"

[[plugins]]
kind = "csv"
on_error = "POLICY"

[[plugins]]
kind = "tensorboard"
on_error = "POLICY"

[[plugins]]
kind = "onnx"
when = { every = "1 epoch" }
on_error = "POLICY"

[[plugins]]
kind = "checkpoint"
on_error = "POLICY"
"#;

#[test]
fn the_error_of_a_start_without_room_names_path_and_cause() {
    let training = Training::new(&EVERYTHING.replace("POLICY", "stop"));
    let refused = output(in_trouble(&training, "space", "/run/", &training.path("run.toml")), 1);
    assert_ne!(refused.status.code(), Some(0));
    let told = told(&training, &refused);
    assert!(told.contains("[FOLDER]/run/") && told.contains(TROUBLES[0].1), "{told}");
}

#[test]
fn a_write_beyond_the_limit_of_a_file_is_an_error_and_not_the_end_of_the_process() {
    let training = Training::new("[[plugins]]\nkind = \"checkpoint\"\n");
    let host = training.command("run");
    let mut command = Command::new("sh");
    // Blocks of 512 or 1024 bytes, depending on the shell. The signal that comes with such a write ends a process that
    // does nothing about it.
    command.args(["-c", "ulimit -f 14; exec \"$0\" \"$@\""]).arg(host.get_program()).args(host.get_args());
    let failed = output(command, 2);
    assert_eq!(failed.status.code(), Some(1), "{:?} {}", failed.status, told(&training, &failed));
    assert_told(&training, &failed, "checkpoint", ".safetensors", "File too large (os error 27)");
    assert_eq!(training.status("run")["outcome"], "failed");
    let left: Vec<_> = training.path("run/checkpoints").read_dir().expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The run on a disk that is full for all of its folder from the first checkpoint on.
fn filled_up(training: &Training, kind: &str) -> Output {
    let flag = training.path("run/checkpoints").join(FIRST).join("manifest.json");
    output(in_trouble(training, kind, "/run/", &flag), 3)
}

#[test]
fn the_status_says_how_a_run_ended_on_a_full_disk() {
    for (policy, code, outcome) in [("stop", 1, "failed"), ("ignore", 0, "finished")] {
        let training = Training::new(&EVERYTHING.replace("POLICY", policy));
        let ended = filled_up(&training, "blocks");
        let text = told(&training, &ended);
        assert_eq!(ended.status.code(), Some(code), "{text}");
        assert_eq!(text.matches("cannot write the status").count(), 1, "told once: {text}");
        let status = training.status("run");
        assert_eq!((&status["state"], &status["outcome"]), (&outcome.into(), &outcome.into()), "{text}");
        assert_eq!(status["error"].is_string(), policy == "stop", "{status}");
        assert_nothing_partial(&training);
        // With room again, it goes on, and says nothing of a process that was killed.
        let again = told(&training, &training.run("run", &["--set", "train.epochs=3"]));
        assert!(again.contains("resuming after epoch 1, step 23"), "{again}");
        assert!(!again.contains("ended without a word"), "{again}");
        assert_eq!(training.status("run")["state"], "finished");
    }
}

#[test]
fn a_log_without_room_is_told_once_and_has_whole_lines() {
    for kind in ["space", "broken"] {
        let training = Training::new("[[plugins]]\nkind = \"checkpoint\"\n");
        let flag = begun(&training);
        let ended = output(in_trouble(&training, kind, "/run/log.jsonl", &flag), 2);
        let text = told(&training, &ended);
        assert!(ended.status.success(), "{text}");
        assert_eq!(text.matches("warning: cannot write `[FOLDER]/run/log.jsonl`: ").count(), 1, "{text}");
        std::fs::remove_file(flag).expect("it can be removed");
        training.run("run", &["--set", "train.epochs=3"]);
        let epochs = fixture::lines(&training.path("run/log.jsonl"));
        let epochs: Vec<_> = epochs.iter().filter(|line| line["target"] == "epoch").collect();
        let epochs: Vec<_> = epochs.iter().map(|line| line["fields"]["epoch"].as_u64()).collect();
        assert_eq!(epochs, [Some(1), Some(3)]);
    }
}

#[test]
fn a_run_goes_on_after_the_checkpoints_of_an_instance_with_a_name_of_its_own() {
    let training = Training::new("[[plugins]]\nkind = \"checkpoint\"\nname = \"rare\"\n");
    training.run("run", &["--set", "train.epochs=1"]);
    let again = training.run("run", &["--set", "train.epochs=2"]);
    let told = shown(&again, &[training.folder()]);
    assert!(told.contains("resuming after epoch 1, step 23 from [FOLDER]/run/checkpoints-rare/"), "{told}");
}
