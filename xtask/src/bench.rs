//! Measures: the host's own benchmarks, and the host against PyTorch's loops and frameworks of Rust.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::cargo::{Built, Cargo};
use crate::error::Result;
use crate::process;
use crate::python;
use crate::workspace::Workspace;

/// The projects of the frameworks of Rust; their programs are called `…-peer`.
const PEERS: [&str; 2] = ["burn", "candle"];

/// What is measured.
#[derive(Debug)]
pub struct BenchOptions<'a> {
    /// Whether to leave out the host's own benchmarks.
    pub comparison: bool,
    /// Whether to compare with frameworks of Rust, too.
    pub peers: bool,
    /// Arguments for `cargo bench`; if there are any, only that is run.
    pub arguments: &'a [OsString],
}

/// Runs the host's own benchmarks, then the comparison.
pub fn run(workspace: &Workspace, cargo: &Cargo, options: &BenchOptions<'_>) -> Result<()> {
    let built = cargo.build()?;
    if !options.comparison {
        // The benches of the host without its unit tests, which `cargo bench` would run too.
        let mut command = cargo.command();
        command.args(["bench", "--package", "host", "--bench", "*"]).args(options.arguments);
        process::run(&mut command)?;
    }
    if options.arguments.is_empty() { compare(workspace, cargo, &built, options.peers) } else { Ok(()) }
}

/// Runs the comparison, or logs why it cannot: without Python or a network, the other measurements still count.
fn compare(workspace: &Workspace, cargo: &Cargo, built: &Built, peers: bool) -> Result<()> {
    let python = match python::PYTORCH.provide(workspace) {
        Ok(python) => python,
        Err(error) => {
            eprintln!("bench: skipped the comparison with PyTorch: {}", crate::report(&error));
            return Ok(());
        }
    };
    let mut command = Command::new(python);
    command.arg(workspace.comparison()).arg("--host").arg(&built.host).arg("--plugins").arg(workspace.plugins());
    if peers {
        command.arg("--peers").arg(build_peers(workspace, cargo)?);
    }
    process::run(&mut command)
}

/// Compiles the frameworks of Rust with the versions of their lock files, and returns the folder of the programs.
fn build_peers(workspace: &Workspace, cargo: &Cargo) -> Result<PathBuf> {
    let target = workspace.peers_target();
    eprintln!("bench: building Burn and candle in `{}`, which takes minutes the first time", workspace.shown(&target));
    for peer in PEERS {
        let manifest = workspace.peers().join(peer).join("Cargo.toml");
        let mut command = cargo.command();
        // From there, Cargo reads the flags for this processor (`peers/.cargo/config.toml`).
        command.current_dir(workspace.peers());
        command
            .args(["build", "--release", "--locked", "--manifest-path"])
            .arg(manifest)
            .arg("--target-dir")
            .arg(&target);
        process::run(&mut command)?;
    }
    Ok(target.join("release"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_projects_with_locked_versions_that_set_up_does_not_fetch() {
        let workspace = Workspace::find();
        let fetched = workspace.projects().unwrap();
        assert!(!fetched.is_empty());
        for peer in PEERS {
            let folder = workspace.peers().join(peer);
            let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            assert!(manifest.contains(&format!("name = \"{peer}-peer\"")), "{manifest}");
            assert!(folder.join("Cargo.lock").is_file());
            assert!(workspace.peer_projects().unwrap().contains(&folder.join("Cargo.toml")));
            assert!(!fetched.contains(&folder.join("Cargo.toml")));
        }
    }
}
