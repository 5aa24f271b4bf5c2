use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fixture::{
    TempDir, build_test_plugins, cargo, cargo_artifacts, host, host_binary, lines, shown, target_folder,
    temporary_folder, unoptimized, workspace_root,
};
use serde_json::{Value, json};

use crate::training::{Training, checks};

/// The plugin `minor` in all its builds, in separate folders: each is called `libminor.so`.
struct Plugins {
    folder: TempDir,
}

/// Features, and the folder for what is built with them.
const BUILDS: [(&str, &str); 4] =
    [("", "present"), ("next-minor", "next"), ("needs-event", "next-event"), ("needs-service", "next-service")];

impl Plugins {
    fn build() -> &'static Self {
        static BUILT: OnceLock<Plugins> = OnceLock::new();
        BUILT.get_or_init(|| {
            let folder = temporary_folder();
            for (features, name) in BUILDS {
                // One build a feature set: features unify within one. Each has the place of the last, hence the copy.
                let mut command = cargo("build");
                command.args(["--release", "--package", "minor", "--features", features, "--manifest-path"]);
                command.arg(workspace_root().join("tests/plugins/Cargo.toml"));
                command.arg("--target-dir").arg(target_folder().join("test-plugins"));
                let library = cargo_artifacts(&mut command).into_iter().find_map(|artifact| artifact.library);
                let library = library.expect("a library was built");
                std::fs::create_dir(folder.path().join(name)).expect("a folder");
                std::fs::copy(&library, folder.path().join(name).join("libminor.so")).expect("a copy");
            }
            Self { folder }
        })
    }

    fn library(&self, name: &str) -> PathBuf {
        self.folder.path().join(name).join("libminor.so")
    }
}

/// The host as its next minor version would be.
fn next_host() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut command = cargo("build");
        command.args(["--release", "--package", "host", "--features", "next-minor", "--bin", "host-next-minor"]);
        let artifacts = cargo_artifacts(unoptimized(command.current_dir(workspace_root())));
        artifacts.into_iter().find_map(|artifact| artifact.executable).expect("a program was built")
    })
}

/// `host` with the environment of [`fixture::host`] in place of its program.
fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear();
    for (name, value) in host().get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

/// Trains with a library in a host; what the plugin wrote, or what the host said.
fn run(host: &Path, library: &str) -> Result<Value, String> {
    let training = Training::new("[[plugins]]\nkind = \"minor\"\noptions = { path = \"JOURNAL\" }\n");
    let mut command = program(host);
    command.arg("run").arg(training.path("run.toml")).arg("--out").arg(training.path("run"));
    command.args(["--set", "train.epochs=1"]);
    let output = command.arg("--plugins").arg(Plugins::build().library(library)).output().expect("the host starts");
    if output.status.success() {
        return Ok(lines(&training.path("journal.jsonl")).remove(0));
    }
    Err(shown(&output, &[(Plugins::build().folder.path(), "[PLUGINS]"), training.folder()]))
}

#[test]
fn every_host_runs_the_plugins_of_every_minor_version() {
    let with = |uptime: Value, safe_points: u64| {
        Ok(json!({ "outcome": "finished", "train_loss": true, "uptime": uptime, "safe_points": safe_points }))
    };
    let (present, next) = (host_binary(), next_host());
    assert_eq!(run(present, "present"), with(Value::Null, 0));
    assert_eq!(run(next, "present"), with(Value::Null, 0));
    assert_eq!(run(next, "next"), with(json!(true), 0));
    // Built with the next SDK, without declaring anything of it: it runs, and its newer call is an error.
    let too_far = "Unknown: this host has no service 35; use a newer host";
    assert_eq!(run(present, "next"), with(json!(too_far), 0));
    // After each of the 23 steps, at the epoch's end, and twice at the run's.
    assert_eq!(run(next, "next-event"), with(json!(true), 26));
    assert_eq!(run(next, "next-service"), with(json!(true), 0));
}

#[test]
fn a_plugin_that_needs_the_next_minor_version_is_refused() {
    let told = |library| run(host_binary(), library).expect_err("it is refused");
    insta::assert_snapshot!(told("next-event"), @r#"
    exit code: 2
    -- stderr
      × `minor` in `[PLUGINS]/next-event/libminor.so` needs plugin ABI 1.1, this host has 1.0
      hint: use a newer host, or an older version of the plugin
    "#);
    insta::assert_snapshot!(told("next-service"), @r#"
    exit code: 2
    -- stderr
      × `minor` in `[PLUGINS]/next-service/libminor.so` needs plugin ABI 1.1, this host has 1.0
      hint: use a newer host, or an older version of the plugin
    "#);
}

#[test]
fn a_descriptor_with_a_further_field_is_read() {
    let described = |host: &Path, library: &str| {
        let mut command = program(host);
        command.args(["plugins", "list", "--json", "--plugins"]).arg(Plugins::build().library(library));
        let output = command.output().expect("the host starts");
        let kinds: Vec<Value> = serde_json::from_slice(&output.stdout).expect("the list is JSON");
        (kinds[0]["kind"].clone(), kinds[0]["hooks"].clone())
    };
    let expected = (json!("minor"), json!(["epoch_end", "train_end"]));
    for library in ["present", "next"] {
        for host in [host_binary(), next_host()] {
            let (kind, mut hooks) = described(host, library);
            if let Some(hooks) = hooks.as_array_mut() {
                hooks.sort_by_key(ToString::to_string);
            }
            assert_eq!((kind, hooks), expected, "{library}");
        }
    }
}

#[test]
fn plugins_of_both_editions_run_side_by_side() {
    // `minor` is of edition 2021, `reader` of 2024.
    let editions = ["minor", "probe"].map(|name| {
        let manifest = workspace_root().join("tests/plugins").join(name).join("Cargo.toml");
        let text = std::fs::read_to_string(manifest).expect("the manifest can be read");
        text.lines().find(|line| line.starts_with("edition")).unwrap_or_default().to_owned()
    });
    assert_eq!(editions, ["edition = \"2021\"", "edition = \"2024\""]);
    assert!(build_test_plugins().contains_key("probe"));
    let training = Training::new(
        "[[plugins]]\nkind = \"minor\"\n[[plugins]]\nkind = \"reader\"\noptions = { path = \"JOURNAL\" }\n",
    );
    let library = Plugins::build().library("present").display().to_string();
    training.run("run", &["--plugins", &library]);
    assert!(checks(&training.journal()).contains("measure is the evaluation"));
    assert_eq!(training.status("run")["metrics"]["minor"], 2.0);
}
