//! A folder of checkpoints: their names, the latest valid one, and what crashes leave behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Checkpoint, CheckpointError, TEMPORARY_PREFIX};
use crate::history::Position;

/// The name of a checkpoint's folder: `epoch-0003-step-00000084`, with the global step.
pub fn folder_name(position: Position) -> String {
    format!("epoch-{:04}-step-{:08}", position.epoch, position.global_step)
}

/// Whether a checkpoint's folder has the name of another position than its own: somebody renamed or copied it.
pub fn is_misnamed(checkpoint: &Checkpoint) -> bool {
    let name = checkpoint.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    parse_folder_name(name).is_some() && name != folder_name(checkpoint.position())
}

/// The global step and the epoch of a checkpoint's name.
fn parse_folder_name(name: &str) -> Option<(u64, u64)> {
    let (epoch, step) = name.strip_prefix("epoch-")?.split_once("-step-")?;
    let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
    Some((number(step)?, number(epoch)?))
}

/// The result of [`find_latest`].
#[derive(Debug)]
pub struct Latest {
    /// The latest valid checkpoint, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// The later ones that are damaged, the latest first.
    pub skipped: Vec<Skipped>,
}

/// A folder that has a checkpoint's name, but is not a valid one.
#[derive(Debug)]
pub struct Skipped {
    /// The folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: CheckpointError,
}

/// The latest checkpoint of a folder by global step, verified; damaged ones are skipped and reported.
///
/// It considers only folders with a checkpoint's name, not temporary ones, moved ones or pointers. A folder that does
/// not exist has none.
///
/// # Errors
/// The folder cannot be read.
pub fn find_latest(folder: &Path) -> Result<Latest, CheckpointError> {
    let mut named: Vec<((u64, u64), PathBuf)> = entries(folder)?
        .into_iter()
        .filter_map(|path| Some((parse_folder_name(path.file_name()?.to_str()?)?, path)))
        .collect();
    named.sort();
    let mut skipped = Vec::new();
    for (_, path) in named.into_iter().rev() {
        match Checkpoint::open(&path) {
            Ok(checkpoint) => {
                return Ok(Latest { checkpoint: Some(checkpoint), skipped });
            }
            Err(error) => skipped.push(Skipped { path, error }),
        }
    }
    Ok(Latest { checkpoint: None, skipped })
}

/// Removes what interrupted writes have left in a folder of checkpoints, and returns what it removed.
///
/// Call it before the first write: it recognizes temporary entries only by their names.
///
/// # Errors
/// The folder cannot be read, or an entry cannot be removed.
pub fn remove_temporaries(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let mut removed = Vec::new();
    for path in entries(folder)? {
        let temporary = |name: &str| name.starts_with(TEMPORARY_PREFIX);
        if !path.file_name().and_then(|name| name.to_str()).is_some_and(temporary) {
            continue;
        }
        let kind = fs::symlink_metadata(&path).map_err(CheckpointError::io("read", &path))?;
        let result = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        result.map_err(CheckpointError::io("remove", &path))?;
        removed.push(path);
    }
    removed.sort();
    Ok(removed)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CheckpointError::io("read", folder)(error)),
    };
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()
        .map_err(CheckpointError::io("read", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let position = Position { epoch: 3, step: 28, global_step: 84, samples: 5376 };
        assert_eq!(folder_name(position), "epoch-0003-step-00000084");
        assert_eq!(parse_folder_name("epoch-0003-step-00000084"), Some((84, 3)));
        let far = Position { epoch: 123_456, global_step: 1_234_567_890, ..position };
        assert_eq!(parse_folder_name(&folder_name(far)), Some((1_234_567_890, 123_456)));
        for name in ["epoch-3", "epoch--step-", "epoch-+3-step-84", "epoch-3-step-84.damaged-1", ".tmp-epoch-3-step-84"]
        {
            assert_eq!(parse_folder_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_checkpoints() {
        let folder = Path::new("no such folder");
        let latest = find_latest(folder).unwrap();
        assert!(latest.checkpoint.is_none() && latest.skipped.is_empty());
        assert!(remove_temporaries(folder).unwrap().is_empty());
    }
}
