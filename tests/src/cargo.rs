//! Cargo, as a user in the workspace's root would run it, and what it reports to have built.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Something that Cargo has built, now or earlier.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The package's name: that of its folder.
    pub package: String,
    /// The package's manifest.
    pub manifest: PathBuf,
    /// The target's name, as Rust writes it.
    pub target: String,
    /// The shared library, if it is one.
    pub library: Option<PathBuf>,
    /// The program, if it is one.
    pub executable: Option<PathBuf>,
}

/// `cargo SUBCOMMAND`, without the variables that the Cargo of this test has set.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with("CARGO_PKG_") || shown.starts_with("CARGO_MANIFEST_") || shown == "CARGO_CRATE_NAME" {
            command.env_remove(&name);
        }
    }
    command.arg(subcommand).stdin(Stdio::null());
    command
}

/// Leaves the host's own packages as they are compiled fastest: for programs that the host is compiled for once more, with other
/// features, and that compute little.
pub fn unoptimized(command: &mut Command) -> &mut Command {
    for package in ["host", "host-command", "plugin-api"] {
        command.arg("--config").arg(format!("profile.release.package.{package}.opt-level=0"));
    }
    command
}

/// The folder that Cargo builds into.
pub fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        // A relative one is relative to where Cargo was called.
        Some(folder) => crate::workspace_root().join(folder),
        None => crate::workspace_root().join("target"),
    }
}

/// Runs a build and reads what it has built.
///
/// # Panics
///
/// When it fails, with Cargo's output.
pub fn cargo_artifacts(command: &mut Command) -> Vec<Artifact> {
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::piped());
    let output = command.output().expect("cargo can be started");
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8_lossy(&output.stdout);
    messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter_map(|message| artifact(&message))
        .collect()
}

fn artifact(message: &Value) -> Option<Artifact> {
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    let files = message["filenames"].as_array()?.iter().filter_map(Value::as_str).map(PathBuf::from);
    let shared = |file: &PathBuf| file.extension().is_some_and(|end| end == std::env::consts::DLL_EXTENSION);
    let is_library = message["target"]["crate_types"].as_array()?.iter().any(|kind| kind == "cdylib");
    Some(Artifact {
        package: manifest.parent().and_then(Path::file_name)?.to_string_lossy().into_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        library: if is_library { files.into_iter().find(shared) } else { None },
        executable: message["executable"].as_str().map(PathBuf::from),
        manifest,
    })
}
