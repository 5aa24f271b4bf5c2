//! The run folder: created once, owned by one process.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::report::Report;

/// A run folder that this process owns until it is dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Locked; the system releases it however the process ends.
    _lock: File,
}

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The operating system refused.
    #[error("cannot {action} `{path}`")]
    System {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process trains in it.
    #[error("another process trains in the run folder `{path}`")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It holds something else.
    #[error("the folder `{path}` holds other files, and no run")]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// It holds a run, and the command said not to resume it.
    #[error("the run folder `{path}` already holds a run")]
    Taken {
        /// The folder.
        path: PathBuf,
    },
}

impl Report for FolderError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::System { .. } => None,
            Self::InUse { .. } => Some("wait for it, or choose another folder: `--out DIR`".to_owned()),
            Self::NotARun { .. } => Some("choose a folder that is empty or new: `--out DIR`".to_owned()),
            Self::Taken { .. } => Some("resume it: `--resume auto`; or choose another folder: `--out DIR`".to_owned()),
        }
    }
}

/// The lock's name: hidden, since people do not need to see it. Where it is, a run is.
const LOCK: &str = ".host-run";

/// Its name until now.
const OLD_LOCK: &str = ".lock";

/// What the console of the run shows, for `host attach`.
pub const CONSOLE_FILE: &str = "console.log";

/// The names of files that are not complete begin so.
const TEMPORARY_PREFIX: &str = ".tmp-";

/// How often the lock is tried.
const PATIENCE: u32 = 10;

/// Whether a folder holds a run: what a run wrote there says so.
pub fn is_run(folder: &Path) -> bool {
    [LOCK, OLD_LOCK].iter().any(|lock| folder.join(lock).is_file())
}

/// Whether a process owns the folder: it holds the lock. `None` if the folder has none, or the system does not tell.
pub fn is_owned(folder: &Path) -> Option<bool> {
    let lock = File::open(folder.join(LOCK)).ok()?;
    match lock.try_lock_shared() {
        // Released when the file is closed.
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

impl RunFolder {
    /// Creates `path`, or takes it over. With `fresh`, a folder that holds a run is an error; one that holds something else
    /// is one in any case, so that no file of a user's is replaced.
    ///
    /// # Errors
    ///
    /// See [`FolderError`].
    pub fn take(path: &Path, fresh: bool) -> Result<Self, FolderError> {
        let system = |action, path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::System { action, path, source }
        };
        std::fs::create_dir_all(path).map_err(system("create the folder", path))?;
        let path = path.canonicalize().map_err(system("find", path))?;
        if !is_run(&path) && std::fs::read_dir(&path).map_err(system("list", &path))?.next().is_some() {
            return Err(FolderError::NotARun { path });
        }
        let lock_path = path.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(system("open", &lock_path))?;
        let mut patience = PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // A command that only looks whether the run lives holds the lock for an instant.
                Err(TryLockError::WouldBlock) if patience > 0 => {
                    patience -= 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => return Err(FolderError::InUse { path }),
                Err(TryLockError::Error(source)) => return Err(system("lock", &lock_path)(source)),
            }
        }
        if fresh && path.join("run.toml").exists() {
            return Err(FolderError::Taken { path });
        }
        Ok(Self { path, _lock: lock })
    }

    /// The folder, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the incomplete files that a killed process left.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn remove_temporaries(&self) -> Result<(), FolderError> {
        let refused = |action, path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::System { action, path, source }
        };
        for entry in std::fs::read_dir(&self.path).map_err(refused("list", &self.path))? {
            let entry = entry.map_err(refused("list", &self.path))?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file && entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
                std::fs::remove_file(entry.path()).map_err(refused("remove", &entry.path()))?;
            }
        }
        Ok(())
    }

    /// Writes a file of the folder whole: to a temporary name, then renamed.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        let path = self.path.join(name);
        write_whole(&path, bytes).map_err(|source| FolderError::System { action: "write", path, source })
    }
}

/// Replaces a file by one with these bytes: readers see the old file or the new one, never a part.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    // By default only the owner could read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The folder of a run that starts now: `runs/<name>/<start time>`, in local time.
pub fn by_start_time(name: &str) -> PathBuf {
    let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H-%M-%S").to_string();
    let parent = Path::new("runs").join(name);
    let mut path = parent.join(&now);
    // Two runs of one second get two folders.
    let mut count = 2;
    while path.exists() {
        path = parent.join(format!("{now}-{count}"));
        count += 1;
    }
    path
}
