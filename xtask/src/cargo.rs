//! Runs Cargo as from the workspace's root, and reads what it built.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::{Error, FileContext, Result};
use crate::libtorch::Libtorch;
use crate::process;
use crate::workspace::Workspace;

/// The Cargo that every task runs, always with the same environment: torch-sys compiles for minutes whenever
/// the environment of its build script changes.
#[derive(Clone, Debug)]
pub struct Cargo {
    workspace: Workspace,
    own_libtorch: bool,
}

/// The results of a build of the workspace.
#[derive(Clone, Debug)]
pub struct Built {
    /// The program `host`.
    pub host: PathBuf,
    /// The libraries of the shipped plugins.
    pub plugins: Vec<PathBuf>,
}

impl Cargo {
    /// For a workspace whose libtorch is in place.
    pub fn new(workspace: &Workspace, libtorch: &Libtorch) -> Self {
        Self { workspace: workspace.clone(), own_libtorch: !matches!(libtorch, Libtorch::Slim(_)) }
    }

    /// Cargo in the workspace's root.
    pub fn command(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(self.workspace.root());
        // Variables that Cargo set only for this program.
        for (name, _) in std::env::vars_os() {
            let shown = name.to_string_lossy();
            if shown.starts_with("CARGO_PKG_") || shown.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        // Cargo sets it again (`.cargo/config.toml`), as when it is called directly.
        if !self.own_libtorch {
            command.env_remove("LIBTORCH");
        }
        command
    }

    /// Downloads the sources of every dependency, also those of the projects outside the workspace.
    pub fn fetch(&self) -> Result<()> {
        process::run(self.command().arg("fetch"))?;
        for manifest in self.workspace.projects()? {
            process::run(self.command().arg("fetch").arg("--manifest-path").arg(manifest))?;
        }
        Ok(())
    }

    /// Builds the workspace and collects its plugins in one folder.
    pub fn build(&self) -> Result<Built> {
        let output = process::read(self.command().args([
            "build",
            "--release",
            "--workspace",
            "--message-format=json-render-diagnostics",
        ]))?;
        let built = self.read_artifacts(&String::from_utf8_lossy(&output))?;
        gather(&built.plugins, &self.workspace.plugins())?;
        Ok(built)
    }

    /// Picks the host and the shipped plugins from Cargo's messages, one JSON object per line.
    fn read_artifacts(&self, messages: &str) -> Result<Built> {
        let mut host = None;
        let mut plugins = Vec::new();
        for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if message["reason"] != "compiler-artifact" {
                continue;
            }
            if message["target"]["name"] == "host"
                && let Some(executable) = message["executable"].as_str()
            {
                host = Some(PathBuf::from(executable));
            }
            let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
            let is_library = items(&message["target"]["crate_types"]).any(|kind| kind == "cdylib");
            if is_library && self.workspace.ships_plugin(manifest) {
                let files = items(&message["filenames"]).map(PathBuf::from);
                plugins.extend(
                    files.filter(|file| file.extension().is_some_and(|end| end == std::env::consts::DLL_EXTENSION)),
                );
            }
        }
        Ok(Built { host: host.ok_or(Error::NotBuilt { what: "program `host`" })?, plugins })
    }
}

/// The strings in a JSON array; none for anything else.
fn items(array: &Value) -> impl Iterator<Item = &str> {
    array.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Copies libraries into a folder and removes all other files from it; its subfolders stay.
pub fn gather(libraries: &[PathBuf], folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).on("create", folder)?;
    for entry in folder.read_dir().on("read", folder)? {
        let path = entry.on("read", folder)?.path();
        let current = libraries.iter().any(|library| library.file_name() == path.file_name());
        if path.is_file() && !current {
            std::fs::remove_file(&path).on("remove", &path)?;
        }
    }
    for library in libraries {
        let Some(name) = library.file_name() else {
            continue;
        };
        // Rename into place: a host that runs with the older file keeps it.
        let (path, partial) = (folder.join(name), folder.join("partial"));
        std::fs::copy(library, &partial).on("copy", library)?;
        std::fs::rename(&partial, &path).on("replace", &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_and_the_shipped_plugins_are_picked_from_cargos_messages() {
        let workspace = Workspace::find();
        let cargo = Cargo { workspace: workspace.clone(), own_libtorch: true };
        let artifact = |manifest: &str, name: &str, crate_type: &str, file: &str, executable: Option<&str>| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": workspace.root().join(manifest),
                "target": { "name": name, "crate_types": [crate_type] },
                "filenames": [file, "/built/lib.rlib"],
                "executable": executable,
            })
            .to_string()
        };
        let library = format!("/built/libstandard.{}", std::env::consts::DLL_EXTENSION);
        let other = format!("/built/libother.{}", std::env::consts::DLL_EXTENSION);
        let messages = [
            artifact("plugins/standard/Cargo.toml", "standard", "cdylib", &library, None),
            artifact("elsewhere/Cargo.toml", "other", "cdylib", &other, None),
            artifact("host/Cargo.toml", "host", "lib", "/built/libhost.rlib", None),
            artifact("host/Cargo.toml", "host", "bin", "/built/host", Some("/built/host")),
            "a line that a build script wrote".to_owned(),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let built = cargo.read_artifacts(&messages.join("\n")).unwrap();
        assert_eq!(built.host, Path::new("/built/host"));
        assert_eq!(built.plugins, [PathBuf::from(library)]);

        let without_host = cargo.read_artifacts(&messages[..3].join("\n"));
        assert!(matches!(without_host, Err(Error::NotBuilt { .. })), "{without_host:?}");
    }

    #[test]
    fn stale_libraries_leave_the_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let (built, folder) = (temporary.path().join("libnew.so"), temporary.path().join("plugins"));
        std::fs::write(&built, "new").unwrap();
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("libstale.so"), "stale").unwrap();
        std::fs::write(folder.join("libnew.so"), "old").unwrap();

        gather(&[built], &folder).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("libnew.so")).unwrap(), "new");
        assert_eq!(folder.read_dir().unwrap().count(), 1);
    }
}
