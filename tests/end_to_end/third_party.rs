use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fixture::{cargo, cargo_artifacts, folder_of, target_folder, workspace_root};
use serde_json::Value;

use crate::training::Training;

fn manifest() -> PathBuf {
    manifest_of("third-party-plugin")
}

fn manifest_of(example: &str) -> PathBuf {
    workspace_root().join("examples").join(example).join("Cargo.toml")
}

/// The example's library, built by the compiler that builds this.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| library_of("third-party-plugin"))
}

/// The library of an example with these versions of its dependencies, which all of them share.
pub fn library_of(example: &str) -> PathBuf {
    built_by(&mut cargo("build"), example, "third-party")
}

fn built_by(build: &mut Command, example: &str, target: &str) -> PathBuf {
    build.args(["--release", "--locked", "--manifest-path"]).arg(manifest_of(example));
    build.arg("--target-dir").arg(target_folder().join(target));
    cargo_artifacts(build).into_iter().find_map(|artifact| artifact.library).expect("a library was built")
}

/// Major and minor number of a version such as `1.85` or `1.85.0`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The oldest compiler that the example is for.
fn oldest() -> Option<(u32, u32)> {
    let manifest: toml::Table = std::fs::read_to_string(manifest()).expect("a manifest").parse().expect("TOML");
    release(manifest["package"]["rust-version"].as_str()?)
}

/// Cargo and the version of its compiler, if Debian's is new enough and differs from ours.
fn another_compiler() -> Option<(Command, String)> {
    let version = |rustc: &str| {
        let output = Command::new(rustc).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1)?.to_owned())
    };
    let ours = version(&std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()));
    let other = version("/usr/bin/rustc").filter(|other| Some(other) != ours.as_ref())?;
    let oldest = oldest().expect("the example says its oldest compiler");
    if release(&other).is_none_or(|release| release < oldest) || !Path::new("/usr/bin/cargo").exists() {
        return None;
    }
    let mut command = Command::new("/usr/bin/cargo");
    // Only what every program needs: rustup's variables would lead back to our compiler.
    command.arg("build").env_clear().env("PATH", "/usr/bin:/bin").env("RUSTC", "/usr/bin/rustc");
    for name in ["HOME", "CARGO_HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    Some((command, other))
}

/// A run with the library in a folder, not named in the run file: its output, and its metric over the epochs.
fn behavior(library: &Path) -> (String, Vec<Value>) {
    let folder = folder_of([library]);
    let training = Training::new(
        "[[plugins]]\nkind = \"weight-watch\"\noptions = { jump = 1.01, slow_down = 0.5 }\n[[plugins]]\nkind = \"json-lines\"\n",
    );
    let output = training.run("run", &["--plugins", &folder.path().display().to_string()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let jumps: Vec<&str> = stderr.lines().filter(|line| line.contains("jumped")).collect();
    (jumps.join("\n"), training.metrics("run"))
}

/// Runs an example's own tests, of which there are so many.
pub fn tests_pass(example: &str, tests: usize) {
    let mut command = cargo("test");
    command.args(["--release", "--locked", "--manifest-path"]).arg(manifest_of(example));
    let output = command.arg("--target-dir").arg(target_folder().join("third-party")).output().expect("cargo starts");
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(words.contains(&format!("{tests} passed")), "{words}");
}

#[test]
fn its_own_tests_pass() {
    tests_pass("third-party-plugin", 3);
}

#[test]
fn dropped_into_a_folder_it_runs() {
    let folder = folder_of([library()]);
    let training = Training::new("").with("by_default = false", "by_default = true");
    training.run("run", &["--plugins", &folder.path().display().to_string()]);
    let norm = training.status("run")["metrics"]["weight_norm"].as_f64();
    assert!(norm > Some(0.0), "{norm:?}");
}

#[test]
fn another_compilers_library_behaves_the_same() {
    let Some((mut command, version)) = another_compiler() else {
        fixture::skipped(
            "there are no `/usr/bin/rustc` and `/usr/bin/cargo` of another version than ours that can build the example",
        );
        return;
    };
    // What another compiler makes of the plugin is the question, not how fast it is.
    command.args(["--config", "profile.release.opt-level=0"]);
    let other = built_by(&mut command, "third-party-plugin", "third-party-other");
    let described = |library: &Path| {
        let output = fixture::host().args(["plugins", "describe", "weight-watch", "--plugins"]).arg(library).output();
        String::from_utf8_lossy(&output.expect("the host starts").stdout).into_owned()
    };
    assert!(described(&other).contains(&version), "{}", described(&other));
    assert!(!described(library()).contains(&version));
    let (ours, theirs) = (behavior(library()), behavior(&other));
    assert!(ours.0.contains("jumped"), "{}", ours.0);
    assert_eq!(ours, theirs);
}
