//! Runs that can go on, found by their name.

use std::path::{Path, PathBuf};

use super::status::{STATUS_FILE, State, Status};

/// The newest run folder of a name that has a checkpoint and is not finished.
pub fn newest_unfinished(name: &str) -> Option<PathBuf> {
    folders_of(name).into_iter().rev().find(|path| can_go_on(path))
}

/// The same of those that the parent of this process may have started, which starts it again: an older one is another run.
pub fn newest_of_the_same_launch(name: &str) -> Option<PathBuf> {
    let is_older = |path: &Path| status_of(path).of_process().started_after_parent() == Some(false);
    folders_of(name).into_iter().rev().find(|path| can_go_on(path) && !is_older(path))
}

/// The folders of a name, oldest first.
fn folders_of(name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new("runs").join(name)).into_iter().flatten();
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    // Start times sort as text.
    folders.sort();
    folders
}

fn can_go_on(folder: &Path) -> bool {
    holds_checkpoints(folder) && status_of(folder).state != State::Finished
}

/// Whether a run folder has a folder of checkpoints; an instance with a name of its own has `checkpoints-NAME`.
fn holds_checkpoints(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .any(|entry| entry.file_name().to_string_lossy().starts_with("checkpoints"))
}

/// What a run said last; nothing if it was killed before it said anything.
fn status_of(folder: &Path) -> Status {
    let text = std::fs::read(folder.join(STATUS_FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}
