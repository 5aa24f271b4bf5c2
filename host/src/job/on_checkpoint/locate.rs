//! Which checkpoint a path means.

use std::path::{Path, PathBuf};

use host_command::runs::folder::is_run;
use host_command::runs::ranks::run_of_rank;
use host_command::runs::status::find_run;

use crate::checkpoint::{self, read_pointer};
use crate::report::{Problem, Problems, did_you_mean, list};

/// The checkpoints that are taken where none is named, the better first.
const POINTERS: [&str; 2] = ["best", "last"];

/// A checkpoint, and the run that it belongs to.
#[derive(Debug)]
pub(super) struct Located {
    /// The folder, not a pointer to it: a pointer may change.
    pub(super) path: PathBuf,
    /// The run folder, if it lies in one.
    pub(super) run_folder: Option<PathBuf>,
    /// Whether the command named the checkpoint itself, and no run folder.
    pub(super) is_bare: bool,
}

impl Located {
    /// The checkpoint at `path` or, if that is a run folder, the one called `name`, else the best, else the last.
    pub(super) fn find(path: &Path, name: Option<&str>) -> Result<Self, Problems> {
        if is_checkpoint(path) {
            if let Some(name) = name {
                let message = format!("`{}` is a checkpoint already", path.display());
                let hint = format!("give its run folder with `--checkpoint {name}`, or only the checkpoint");
                return Err(Problem::new(message).with_hint(hint).into());
            }
            let path = absolute(path)?;
            let run_folder = path.parent().and_then(Path::parent).filter(|folder| is_run(folder)).map(Path::to_owned);
            return Ok(Self { path, run_folder, is_bare: true });
        }
        let is_folder = run_of_rank(path).is_none() && (is_run(path) || path.join(checkpoint::FOLDER).is_dir());
        let folder = if is_folder { Some(path.to_owned()) } else { find_run(path) };
        let Some(folder) = folder else {
            let is = if path.exists() { "is neither a run folder nor a checkpoint" } else { "does not exist" };
            return Err(Problem::new(format!("`{}` {is}", path.display()))
                .with_hint("`host list` shows the run folders in `runs`".to_owned())
                .into());
        };
        let folders = checkpoint_folders(&folder);
        let path = match name {
            Some(name) => named(&folders, name)?.ok_or_else(|| no_such(&folders, &folder, name))?,
            None => {
                let mut found = None;
                for pointer in POINTERS {
                    found = found.map_or_else(|| named(&folders, pointer), |found| Ok(Some(found)))?;
                }
                let found = found.or_else(|| folders.iter().find_map(|folder| newest(folder)));
                found.ok_or_else(|| {
                    Problem::new(format!("`{}` holds no checkpoint yet", folder.display()))
                        .with_hint("the callback `checkpoint` writes them".to_owned())
                })?
            }
        };
        Ok(Self { path: absolute(&path)?, run_folder: Some(absolute(&folder)?), is_bare: false })
    }

    /// The checkpoint's own name.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

fn is_checkpoint(path: &Path) -> bool {
    path.join(checkpoint::MANIFEST).is_file()
}

fn absolute(path: &Path) -> Result<PathBuf, Problem> {
    path.canonicalize().map_err(|error| Problem::new(format!("cannot find `{}`", path.display())).with_cause(&error))
}

/// The newest whole checkpoint, where there are no pointers.
fn newest(checkpoints: &Path) -> Option<PathBuf> {
    checkpoint::find_latest(checkpoints).ok()?.checkpoint.map(|checkpoint| checkpoint.path().to_owned())
}

/// The folders of checkpoints of a run: the usual one first, then `checkpoints-NAME` of instances with names of their own.
fn checkpoint_folders(run: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}-", checkpoint::FOLDER);
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    let of_names = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let mut folders: Vec<PathBuf> = of_names.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.insert(0, run.join(checkpoint::FOLDER));
    folders
}

/// The checkpoint of this name, or the one that a pointer of this name leads to, in the first folder that has it.
fn named(folders: &[PathBuf], name: &str) -> Result<Option<PathBuf>, Problems> {
    for folder in folders {
        let pointed = read_pointer(folder, name).map_err(|error| Problem::from(&error))?;
        let path = pointed.unwrap_or_else(|| folder.join(name));
        if is_checkpoint(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn no_such(folders: &[PathBuf], run: &Path, name: &str) -> Problem {
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let mut names: Vec<String> = entries
        .filter(|entry| is_checkpoint(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let near = did_you_mean(name, names.iter().map(String::as_str));
    let hint = near.unwrap_or_else(|| match names.is_empty() {
        true => "there is none".to_owned(),
        false => format!("there is {}", list(names.iter().map(String::as_str), "and")),
    });
    Problem::new(format!("there is no checkpoint `{name}` in `{}`", run.display())).with_hint(hint)
}
