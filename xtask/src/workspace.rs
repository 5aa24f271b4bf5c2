//! Where things lie in the workspace.

use std::path::{Path, PathBuf};

use crate::error::{FileContext, Result};

/// The workspace's root and the places that tasks use in it.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace that this program belongs to, whatever the current folder.
    pub fn find() -> Self {
        // Cargo sets it when it runs a package's program; the value of the build serves a program started by hand.
        let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let package = package.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        Self { root: package.parent().unwrap_or(&package).to_owned() }
    }

    /// The folder of the workspace's `Cargo.toml`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The libtorch that set-up makes; `.cargo/config.toml` points here.
    pub fn libtorch(&self) -> PathBuf {
        self.root.join("target/libtorch")
    }

    /// Wheels on their way to [`Self::libtorch`].
    pub fn downloads(&self) -> PathBuf {
        self.root.join("target/downloads")
    }

    /// The shipped plugins as built last.
    pub fn plugins(&self) -> PathBuf {
        self.root.join("target/plugins")
    }

    /// A Python virtual environment, by the name of its folder.
    pub fn environment(&self, name: &str) -> PathBuf {
        self.root.join("target").join(name)
    }

    /// The script that trains the same models with the host and with others.
    pub fn comparison(&self) -> PathBuf {
        self.root.join("host/benches/comparison/compare.py")
    }

    /// What `cargo xtask dist` makes.
    pub fn dist(&self) -> PathBuf {
        self.root.join("target/dist")
    }

    /// Whether a package's manifest is that of a plugin which this workspace ships.
    pub fn ships_plugin(&self, manifest: &Path) -> bool {
        manifest.starts_with(self.root.join("plugins"))
    }

    /// The manifests of the Cargo projects that lie here without being members: programs and plugins
    /// as a stranger writes them.
    pub fn projects(&self) -> Result<Vec<PathBuf>> {
        let mut manifests = Vec::new();
        for folder in ["examples", "tests/plugins"] {
            let folder = self.root.join(folder);
            if !folder.is_dir() {
                continue;
            }
            for entry in folder.read_dir().on("read", &folder)? {
                let manifest = entry.on("read", &folder)?.path().join("Cargo.toml");
                if manifest.is_file() {
                    manifests.push(manifest);
                }
            }
        }
        manifests.sort();
        Ok(manifests)
    }

    /// A path as a person in the workspace's root would write it.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}
