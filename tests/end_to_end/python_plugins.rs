//! Plugins in Python: the package, its files in runs of the host, and callbacks of other frameworks.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Output};

use fixture::{host, python, shown, temporary_folder, workspace_root};
use serde_json::Value;

use crate::small_run::{Ran, SmallRun, text};

/// A callback that does what its options say.
const DOES: &str = r#"# host-plugin: does
import logging
from host_plugin import Callback, Need

class Does(Callback):
    """Does what a test says."""

    version = "3"
    needs = [Need("parameters", hook="epoch_end")]
    produces = ["seen"]

    def __init__(self, how: str = "reads", size: int = 1):
        self.how, self.seen = how, 0

    def on_epoch_end(self, run, event):
        self.seen += 1
        if self.how == "reads":
            elements = [tensor.tolist() for tensor in run.tensors("parameters").values()]
            assert elements and run.metric("val_loss") > 0
            run.put_metric("seen", self.seen)
            print("seen", self.seen)
            logging.getLogger("mine").info("logged %d", self.seen)
        if self.how == "raises":
            raise ValueError("on purpose")
        if self.how == "exits":
            exit(0)
        if self.how == "dies":
            import os, signal
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "stops" and event.epoch == 1:
            run.stop("after the first epoch")

    def save_state(self):
        return self.seen

    def load_state(self, state, version):
        assert version == "3"
        self.seen = state
"#;

/// A run with the callback above in its folder of plugins.
fn run(entry: &str, options: &str) -> SmallRun {
    let run = SmallRun::with_libraries(&["checkpoint"]).instance("kind = 'checkpoint'");
    std::fs::write(run.plugins().join("does.py"), DOES).expect("a file can be written");
    if entry == "none" { run } else { run.instance(&format!("kind = 'does'\n{entry}\noptions = {{ {options} }}")) }
}

fn weights(ran: &Ran) -> Vec<u8> {
    std::fs::read(ran.out.join("checkpoints/last/model.safetensors")).expect("there is a checkpoint")
}

fn log(ran: &Ran) -> String {
    std::fs::read_to_string(ran.out.join("log.jsonl")).expect("there is a log")
}

#[test]
fn a_callback_reads_beside_the_training_which_keeps_its_bits() {
    let untouched = weights(&run("none", "").run().succeeded());
    for dispatch in ["inline", "background"] {
        let ran = run(&format!("dispatch = '{dispatch}'"), "how = 'reads'").run().succeeded();
        assert_eq!(weights(&ran), untouched, "{dispatch}");
        let log = log(&ran);
        for said in ["seen 1", "seen 2", "logged 2"] {
            assert!(log.contains(&format!("\"message\":\"{said}\"")), "{dispatch}: {said}");
        }
        assert!(!String::from_utf8_lossy(&ran.output.stdout).contains("seen"), "{}", ran.shown());
        assert_eq!(ran.status()["metrics"]["seen"], 2.0, "{dispatch}: {}", ran.shown());
    }
}

#[test]
fn what_fails_in_python_is_the_failure_of_its_plugin() {
    let untouched = weights(&run("none", "").run().succeeded());
    for (how, told) in [
        ("raises", "ValueError: on purpose"),
        ("exits", "SystemExit: 0"),
        ("dies", "its process was ended by signal 11 (SIGSEGV)"),
    ] {
        let ran = run("on_error = 'disable'\ndispatch = 'inline'", &format!("how = '{how}'")).run().succeeded();
        let failures = ran.status()["failures"].clone();
        let failure = failures.get(0).cloned().unwrap_or_default();
        assert_eq!((text(&failure, "plugin"), text(&failure, "hook")), ("does", "epoch_end"), "{how}: {failures}");
        assert!(text(&failure, "message").contains(told), "{how}: {failure}");
        assert_eq!(weights(&ran), untouched, "{how}");
        if how != "dies" {
            assert!(text(&failure, "place").contains("does.py:"), "{how}: {failure}");
        }
    }
    let ran = run("dispatch = 'inline'", "how = 'stops'").run().succeeded();
    assert_eq!(ran.status()["reason"], "`does`: after the first epoch", "{}", ran.shown());
}

#[test]
fn options_and_files_are_checked_before_the_training() {
    let wrong = run("", "sice = 2").run();
    let said = wrong.shown();
    assert!(said.contains("sice") && said.contains("did you mean `size`?"), "{said}");
    let broken = run("", "how = 'reads'");
    std::fs::write(broken.plugins().join("does.py"), DOES.replace("import logging", "import no_such_package")).unwrap();
    let said = broken.run().shown();
    assert!(said.contains("No module named 'no_such_package'"), "{said}");
    assert!(said.contains("install the package for this Python"), "{said}");
    let nowhere = run("", "how = 'reads'").set("run.python=\"/nowhere/python3\"").run().shown();
    assert!(nowhere.contains("`/nowhere/python3` cannot be started for the plugin"), "{nowhere}");
    assert!(nowhere.contains("install Python 3.9 or newer, or name one with `[run] python`"), "{nowhere}");
    // What is not named is not run.
    let unnamed = run("none", "");
    std::fs::write(unnamed.plugins().join("does.py"), "# host-plugin: does\n1 / 0\n").unwrap();
    unnamed.run().succeeded();
}

#[test]
fn the_kind_python_runs_any_class() {
    let run = SmallRun::with_libraries(&["checkpoint"]);
    let file = run.plugins().join("callbacks.txt.py");
    std::fs::write(&file, DOES.replace("# host-plugin: does\n", "")).expect("a file can be written");
    let options = format!("{{ file = '{}', class = 'Does', args = {{ how = 'stops' }} }}", file.display());
    let entry = format!("kind = 'python'\nname = 'mine'\ndispatch = 'inline'\noptions = {options}");
    let ran = run.instance(&entry).run().succeeded();
    assert_eq!(ran.status()["reason"], "`mine`: after the first epoch", "{}", ran.shown());
    let run = SmallRun::with_libraries(&["checkpoint"]);
    let said = run.instance(&entry.replace("'Does'", "'Doess'").replace(&file.display().to_string(), "gone.py")).run();
    assert!(said.shown().contains("`mine` is a class of `gone.py`, which is not there"), "{}", said.shown());
}

/// Runs Python in a folder of the repository; what it said.
fn unittest(python: &Path, folder: &str, modules: &[&str]) -> Output {
    let mut command = Command::new(python);
    command.args(["-m", "unittest"]).args(modules).current_dir(workspace_root().join(folder));
    command.env("PYTHONPATH", workspace_root().join("plugins/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.output().expect("Python starts")
}

fn passes(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_package_and_the_example_pass_their_own_tests() {
    let Some(python) = python() else { return };
    passes(&unittest(Path::new(&python), "plugins/python", &[]));
    passes(&unittest(Path::new(&python), "examples/python-callback", &[]));
}

/// Runs a run file of an example; its status.
fn example(name: &str, run_file: &str, plugins: &[&str]) -> Value {
    let folder = temporary_folder();
    let out = folder.path().join("out");
    let example = workspace_root().join("examples").join(name);
    let mut command = host();
    command.args(["run", run_file]).args(plugins).arg("--out").arg(&out).current_dir(&example);
    let output = command.output().expect("the host starts");
    assert!(output.status.success(), "{}", shown(&output, &[]));
    let status = std::fs::read_to_string(out.join("status.json")).expect("there is a status");
    serde_json::from_str(&status).expect("it is JSON")
}

#[test]
fn the_examples_run_as_their_pages_say() {
    let status = example("python-callback", "run.toml", &["--plugins", "."]);
    assert!(text(&status, "reason").starts_with("`stop-at-goal`: val_loss is 0.0"), "{status}");
    let status = example("keras-callback", "own.toml", &["--plugins", "../python-callback"]);
    assert_eq!(status["state"], "finished", "{status}");
}

#[test]
fn a_new_plugin_in_python_passes_its_test_and_every_check() {
    let folder = temporary_folder();
    let mut command = host();
    command.args(["plugins", "new", "loss-alarm", "--language", "python"]).current_dir(folder.path());
    let said = shown(&command.output().expect("the host starts"), &[]);
    insta::assert_snapshot!(said, @r#"
    exit code: 0
    -- stdout
    Made the plugin `loss-alarm` in `loss-alarm`. What to write is marked with `WRITE HERE`.

    cd loss-alarm
    python3 -m unittest
    host plugins check ./loss_alarm.py
    host run --plugins ./loss_alarm.py --plugin loss-alarm
    "#);
    let project = folder.path().join("loss-alarm");
    let output =
        Command::new("python3").args(["-m", "unittest"]).current_dir(&project).output().expect("Python starts");
    passes(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Ran 2 tests"));
    let mut command = host();
    command.args(["plugins", "check", "./loss_alarm.py"]).current_dir(&project);
    let output = command.output().expect("the host starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Callbacks of Keras beside the host's own, in one run each: they stop after the same epoch, with the same learning rate.
#[test]
fn callbacks_of_frameworks_do_what_ours_do() {
    let Some(python) = crate::eager::python() else { return };
    passes(&unittest(Path::new(&python), "plugins/python", &["tests.test_frameworks", "tests.test_tensors"]));
    let ended = |entries: &[&str]| {
        let run = SmallRun::with_libraries(&["standard"])
            .with("epochs = 2", "epochs = 40")
            .with("learning_rate = 1e-2", "learning_rate = 0.3")
            .set(&format!("run.python=\"{}\"", Path::new(&python).display()));
        let run = entries.iter().fold(run, |run, entry| run.instance(entry));
        let child = run.start_with(|command| {
            command.env("KERAS_BACKEND", "torch");
        });
        let ran = run.wait(child).succeeded();
        let status = ran.status();
        (status["position"].clone(), status["metrics"]["learning_rate"].clone(), status["metrics"]["val_loss"].clone())
    };
    let keras = |class: &str, args: &str| {
        format!(
            "kind = 'python'\nname = '{class}'\noptions = {{ class = 'keras.callbacks.{class}', args = {{ {args} }} }}"
        )
        .replace(&format!("name = '{class}'"), &format!("name = '{}'", class.to_lowercase()))
    };
    let ours = ended(&[
        "kind = 'reduce-on-plateau'\noptions = { metric = 'val_loss', patience = 2, factor = 0.5 }",
        "kind = 'early-stopping'\noptions = { metric = 'val_loss', patience = 4 }",
    ]);
    let theirs = ended(&[
        &keras("ReduceLROnPlateau", "patience = 2, factor = 0.5, min_delta = 0"),
        &keras("EarlyStopping", "patience = 4"),
    ]);
    assert_eq!(theirs, ours);
}
