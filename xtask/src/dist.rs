//! Collects what a machine without Rust needs to train.

use std::path::Path;

use crate::cargo::{self, Cargo};
use crate::error::{FileContext, Result};
use crate::libtorch::Libtorch;
use crate::workspace::Workspace;

/// Puts the host, its plugins and the slim libtorch into `target/dist`.
pub fn run(workspace: &Workspace, cargo: &Cargo, libtorch: &Libtorch) -> Result<()> {
    let built = cargo.build()?;
    let folder = workspace.dist();
    if folder.exists() {
        std::fs::remove_dir_all(&folder).on("remove", &folder)?;
    }
    cargo::gather(&built.plugins, &folder.join("plugins"))?;
    // `host` becomes the other one where something is computed.
    for program in ["host", "host-engine", "host-plugin"] {
        let name = format!("{program}{}", std::env::consts::EXE_SUFFIX);
        let built = built.host.with_file_name(&name);
        std::fs::copy(&built, folder.join(&name)).on("copy", &built)?;
    }

    let text = match libtorch {
        Libtorch::Slim(slim) => {
            for part in ["lib", "licenses"] {
                copy_folder(&slim.join(part), &folder.join(part))?;
            }
            "`host` finds libtorch in the folder `lib` next to it"
        }
        // A PyTorch with CUDA has gigabytes, and its licenses are up to its owner.
        Libtorch::Own(_) | Libtorch::PyTorch => {
            "`host` finds libtorch where it was built, or in a folder `lib` next to it"
        }
    };
    let readme = folder.join("README.md");
    let text = format!("Train with `./host run RUN.toml`; {text}.\n");
    std::fs::write(&readme, text).on("write", &readme)?;
    eprintln!("dist: ready in `{}`", workspace.shown(&folder));
    Ok(())
}

/// Copies a folder and its subfolders, with hard links if the file system supports them.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).on("create", to)?;
    for entry in from.read_dir().on("read", from)? {
        let source = entry.on("read", from)?.path();
        let target = to.join(source.file_name().unwrap_or_default());
        if source.is_dir() {
            copy_folder(&source, &target)?;
        } else if std::fs::hard_link(&source, &target).is_err() {
            std::fs::copy(&source, &target).on("copy", &source)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_copied_with_the_folders_in_it() {
        let temporary = tempfile::tempdir().unwrap();
        let (from, to) = (temporary.path().join("from"), temporary.path().join("to"));
        std::fs::create_dir_all(from.join("torch")).unwrap();
        std::fs::write(from.join("outer"), "outer").unwrap();
        std::fs::write(from.join("torch/inner"), "inner").unwrap();
        copy_folder(&from, &to).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("outer")).unwrap(), "outer");
        assert_eq!(std::fs::read_to_string(to.join("torch/inner")).unwrap(), "inner");
    }
}
