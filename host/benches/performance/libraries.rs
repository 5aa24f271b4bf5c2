//! Builds the plugins to measure: no-ops, libraries of different kinds from one source, and the host's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Result;

/// The number of plugins that the measurements load.
pub const COUNT: usize = 10;

/// The built libraries, in their own folder.
pub struct Libraries {
    folder: tempfile::TempDir,
}

impl Libraries {
    pub fn build() -> Result<Self> {
        let libraries = Self { folder: tempfile::tempdir()? };
        std::fs::create_dir(libraries.noops())?;
        for kind in kinds() {
            std::fs::copy(build(Some(&kind))?, libraries.noops().join(file_name(&kind)))?;
        }
        std::fs::copy(build(None)?, libraries.all_kinds())?;
        Ok(libraries)
    }

    /// The folder of [`COUNT`] libraries with one no-op each.
    pub fn noops(&self) -> PathBuf {
        self.folder.path().join("noops")
    }

    /// The library with every kind of the benchmark's.
    pub fn all_kinds(&self) -> PathBuf {
        self.folder.path().join(file_name("all"))
    }

    /// A folder that lives as long as the libraries, for other files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The kinds of the no-ops.
pub fn kinds() -> Vec<String> {
    (0..COUNT).map(|index| format!("noop-{index}")).collect()
}

pub fn file_name(name: &str) -> String {
    format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// Builds the plugin of a package of the workspace.
pub fn build_package(package: &str) -> Result<PathBuf> {
    build_library(package, |_| {})
}

/// Builds the no-op plugin as `kind`.
fn build(kind: Option<&str>) -> Result<PathBuf> {
    build_library("noop", |command| {
        match kind {
            Some(kind) => command.env("NOOP_KIND", kind),
            None => command.env_remove("NOOP_KIND"),
        };
    })
}

/// Builds a package's library, and returns its path as Cargo reports it.
fn build_library(package: &str, change: impl FnOnce(&mut Command)) -> Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--package", package, "--message-format=json-render-diagnostics"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::piped());
    change(&mut command);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("cannot build `{package}`:\n{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == package)
        .find_map(|message| message["filenames"][0].as_str().map(PathBuf::from))
        .ok_or_else(|| format!("Cargo built no library from the package `{package}`").into())
}
