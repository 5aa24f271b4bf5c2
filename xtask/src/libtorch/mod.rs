//! Selects the libtorch: the user's own, or the slim one that set-up makes.

mod manifest;
mod slim;
mod version;
mod wheel;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::prerequisites;
use crate::process;
use crate::workspace::Workspace;

/// The version that the `tch` in `Cargo.lock` is made for.
pub const VERSION: &str = "2.11.0";

/// The source of the selected libtorch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Libtorch {
    /// The folder that set-up makes.
    Slim(PathBuf),
    /// The folder in the user's `LIBTORCH`.
    Own(PathBuf),
    /// The PyTorch that Python imports, selected by `LIBTORCH_USE_PYTORCH`.
    PyTorch,
}

/// Makes sure that there is a libtorch of the right version, and returns which one is used.
pub fn provide(workspace: &Workspace) -> Result<Libtorch> {
    let libtorch = choose(
        std::env::var_os("LIBTORCH_USE_PYTORCH").as_deref(),
        std::env::var_os("LIBTORCH").as_deref(),
        &workspace.libtorch(),
    );
    match &libtorch {
        Libtorch::PyTorch => check_pytorch()?,
        Libtorch::Own(folder) => check_own(folder)?,
        Libtorch::Slim(folder) => slim::set_up(workspace, folder)?,
    }
    Ok(libtorch)
}

/// Decides like torch-sys: PyTorch first, then `LIBTORCH`. Cargo itself sets `LIBTORCH` to the slim folder for the
/// programs that it starts (`.cargo/config.toml`), so only another value is the user's.
fn choose(use_pytorch: Option<&OsStr>, libtorch: Option<&OsStr>, slim: &Path) -> Libtorch {
    match libtorch.map(PathBuf::from) {
        _ if use_pytorch.is_some() => Libtorch::PyTorch,
        Some(folder) if !same_folder(&folder, slim) => Libtorch::Own(folder),
        _ => Libtorch::Slim(slim.to_owned()),
    }
}

/// Whether two paths mean the same folder, which need not exist.
fn same_folder(one: &Path, other: &Path) -> bool {
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    one == other || resolved(one) == resolved(other)
}

fn check_own(folder: &Path) -> Result<()> {
    let unusable = |problem: String| Error::UnusableLibtorch { path: folder.to_owned(), problem };
    if folder.is_relative() {
        return Err(unusable("is not an absolute path".to_owned()));
    }
    if !folder.join("lib").is_dir() {
        return Err(unusable("has no folder `lib`".to_owned()));
    }
    match version::of_folder(folder) {
        Some(found) if version::fits(&found) => {
            eprintln!("libtorch: using {found} from LIBTORCH={}", folder.display());
            Ok(())
        }
        Some(found) => Err(unusable(format!("has version {found}, but {VERSION} is needed"))),
        None => {
            eprintln!(
                "libtorch: using LIBTORCH={}; it does not state its version; {VERSION} is needed",
                folder.display()
            );
            Ok(())
        }
    }
}

fn check_pytorch() -> Result<()> {
    let unusable = |problem: String| Error::UnusablePyTorch { problem };
    let interpreter = prerequisites::interpreter();
    let shown = interpreter.to_string_lossy().into_owned();
    let program = "import torch; print(torch.__version__); print(torch.__path__[0])";
    let output = process::probe(Command::new(&interpreter).args(["-c", program]))
        .ok_or_else(|| unusable(format!("`{shown} -c 'import torch'` fails")))?;
    let output = String::from_utf8_lossy(&output.stdout);
    let mut lines = output.lines();
    let (found, folder) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if !version::fits(found) {
        return Err(unusable(format!("`{shown}` imports PyTorch {found}, but {VERSION} is needed")));
    }
    eprintln!("libtorch: using {found} from PyTorch in {folder}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLIM: &str = "/somewhere/target/libtorch";

    fn chosen(use_pytorch: Option<&str>, libtorch: Option<&str>) -> Libtorch {
        choose(use_pytorch.map(OsStr::new), libtorch.map(OsStr::new), Path::new(SLIM))
    }

    #[test]
    fn the_value_that_cargo_sets_is_not_the_users() {
        assert_eq!(chosen(None, Some(SLIM)), Libtorch::Slim(SLIM.into()));
        assert_eq!(chosen(None, None), Libtorch::Slim(SLIM.into()));
    }

    #[test]
    fn the_users_own_wins() {
        assert_eq!(chosen(None, Some("/opt/libtorch")), Libtorch::Own("/opt/libtorch".into()));
        assert_eq!(chosen(Some("1"), Some("/opt/libtorch")), Libtorch::PyTorch);
        assert_eq!(chosen(Some("1"), Some(SLIM)), Libtorch::PyTorch);
    }

    #[cfg(unix)]
    #[test]
    fn another_spelling_of_the_slim_folder_is_the_slim_folder() {
        let folder = tempfile::tempdir().unwrap();
        let slim = folder.path().join("libtorch");
        std::fs::create_dir(&slim).unwrap();
        let spelling = folder.path().join("link");
        std::os::unix::fs::symlink(&slim, &spelling).unwrap();
        assert_eq!(choose(None, Some(spelling.as_os_str()), &slim), Libtorch::Slim(slim));
    }

    #[test]
    fn an_own_libtorch_of_another_version_is_refused_with_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lib")).unwrap();
        std::fs::write(folder.path().join("build-version"), "2.9.1+cpu\n").unwrap();
        let message = check_own(folder.path()).unwrap_err().to_string();
        assert!(message.contains("2.9.1+cpu") && message.contains(VERSION), "{message}");

        std::fs::write(folder.path().join("build-version"), "2.11.0+cu130\n").unwrap();
        check_own(folder.path()).unwrap();
    }

    #[test]
    fn an_own_libtorch_must_be_a_folder_that_build_scripts_find() {
        let message = check_own(Path::new("libtorch")).unwrap_err().to_string();
        assert!(message.contains("is not an absolute path"), "{message}");
        let folder = tempfile::tempdir().unwrap();
        let message = check_own(folder.path()).unwrap_err().to_string();
        assert!(message.contains("has no folder `lib`"), "{message}");
    }
}
