//! The paths of the workspace.

use std::path::{Path, PathBuf};

use crate::error::{FileContext, Result};

/// The workspace's root and the paths that tasks use in it.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace that this program belongs to, whatever the current folder.
    pub fn find() -> Self {
        // Cargo sets it when it runs a package's program; the value of the build is for a program started by hand.
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

    /// Downloaded wheels for [`Self::libtorch`].
    pub fn downloads(&self) -> PathBuf {
        self.root.join("target/downloads")
    }

    /// The shipped plugins of the last build.
    pub fn plugins(&self) -> PathBuf {
        self.root.join("target/plugins")
    }

    /// A Python virtual environment, by the name of its folder.
    pub fn environment(&self, name: &str) -> PathBuf {
        self.root.join("target").join(name)
    }

    /// The script that trains the same models with the host and with other frameworks.
    pub fn comparison(&self) -> PathBuf {
        self.root.join("host/benches/comparison/compare.py")
    }

    /// The folder of the Cargo projects that train with other frameworks of Rust, for the comparison.
    pub fn peers(&self) -> PathBuf {
        self.root.join("host/benches/comparison/peers")
    }

    /// What is compiled only for the comparison.
    pub fn peers_target(&self) -> PathBuf {
        self.root.join("target/comparison")
    }

    /// The result of `cargo xtask dist`.
    pub fn dist(&self) -> PathBuf {
        self.root.join("target/dist")
    }

    /// Whether a package's manifest is that of a shipped plugin.
    pub fn ships_plugin(&self, manifest: &Path) -> bool {
        manifest.starts_with(self.root.join("plugins"))
    }

    /// The manifests of the Cargo projects that are not members of the workspace: programs and plugins as outside
    /// authors write them.
    pub fn projects(&self) -> Result<Vec<PathBuf>> {
        let mut manifests = manifests_in(&self.root.join("examples"))?;
        manifests.extend(manifests_in(&self.root.join("tests/plugins"))?);
        Ok(manifests)
    }

    /// The manifests of the projects in [`Self::peers`], whose dependencies are downloaded only for the comparison.
    pub fn peer_projects(&self) -> Result<Vec<PathBuf>> {
        manifests_in(&self.peers())
    }

    /// A path relative to the workspace's root, for messages.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// The manifests in the folders of a folder, if there is one.
fn manifests_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut manifests = Vec::new();
    if folder.is_dir() {
        for entry in folder.read_dir().on("read", folder)? {
            let manifest = entry.on("read", folder)?.path().join("Cargo.toml");
            if manifest.is_file() {
                manifests.push(manifest);
            }
        }
    }
    manifests.sort();
    Ok(manifests)
}
