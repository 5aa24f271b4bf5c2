//! The files by which a person asks the loop for something. Each is removed when it is found, so that it counts once; one with
//! content was made for something else, and stays.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use plugin_api::protocol::Control;

/// A file that a person makes to ask for something.
pub(super) struct RequestFile {
    name: String,
    path: PathBuf,
    /// Whether a person was told why it has no effect.
    told: AtomicBool,
}

/// A file, and what it asks for.
pub(super) struct ControlFile {
    file: RequestFile,
    action: Control,
}

#[derive(Default)]
pub(super) struct ControlFiles(Vec<ControlFile>);

impl RequestFile {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), path: folder.join(name), told: AtomicBool::new(false) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there and has content, so that it asks for nothing; a person is told so.
    pub(super) fn has_content(&self) -> bool {
        let has_content = self.path.symlink_metadata().is_ok_and(|file| file.is_file() && file.len() > 0);
        if has_content {
            self.tell(format_args!("it is not empty; a file that asks for something is, as `touch` makes it"));
        }
        has_content
    }

    /// Removes it; returns whether it was there.
    pub(super) fn take(&self) -> bool {
        if self.has_content() {
            return false;
        }
        match std::fs::remove_file(&self.path) {
            Ok(()) => {
                self.told.store(false, Ordering::Relaxed);
                true
            }
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            // It would be found again and again: a run that paused could never go on.
            Err(error) => {
                self.tell(format_args!("it cannot be removed: {error}"));
                false
            }
        }
    }

    /// Warns, once until it is taken, that it has no effect.
    pub(super) fn tell(&self, why: fmt::Arguments<'_>) {
        if !self.told.swap(true, Ordering::Relaxed) {
            plugin_api::tracing::warn!("`{}` has no effect: {why}", self.name);
        }
    }
}

impl ControlFile {
    pub(super) fn new(folder: &Path, name: &str, action: Control) -> Self {
        Self { file: RequestFile::new(folder, name), action }
    }
}

impl ControlFiles {
    pub(super) fn new(files: Vec<ControlFile>) -> Self {
        Self(files)
    }

    /// Whether one of them asks for an action that is `wanted`.
    pub(super) fn ask_for(&self, wanted: impl Fn(Control) -> bool) -> bool {
        self.0.iter().any(|file| wanted(file.action))
    }

    /// Removes the files that are there and whose action is `wanted`; returns the actions, each with its reason.
    pub(super) fn take(&self, wanted: impl Fn(Control) -> bool) -> Vec<(Control, String)> {
        let found = self.0.iter().filter(|file| wanted(file.action) && file.file.take());
        found.map(|file| (file.action, format!("the file `{}` appeared", file.file.name()))).collect()
    }
}
