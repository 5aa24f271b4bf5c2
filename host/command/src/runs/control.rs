//! Requests to a run from other processes: a file in the folder `control` of the run folder, which only the run's owner may
//! write.
//!
//! A request appears whole, by a rename; the run removes it when it has read it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder::write_whole;

/// The folder of the requests in the run folder.
pub const CONTROL_FOLDER: &str = "control";

/// The ending of a request's file.
const EXTENSION: &str = "request.json";

/// What a run is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// To stop, with its end hooks.
    Stop,
    /// To pause.
    Pause,
    /// To go on after a pause.
    Resume,
    /// To take a checkpoint.
    Checkpoint,
}

impl Action {
    /// Its name, which is that of the command.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlRequest {
    /// What is asked for.
    pub action: Action,
    /// Who asks.
    pub by: String,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// Leaves a request for the run in `folder`; the path of its file.
///
/// # Errors
///
/// When the system refuses.
pub fn leave(folder: &Path, request: &ControlRequest) -> std::io::Result<PathBuf> {
    let control = folder.join(CONTROL_FOLDER);
    make_own(&control)?;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // The names sort as the requests came.
    let name = format!("{:020}-{}.{EXTENSION}", since.as_nanos(), std::process::id());
    let path = control.join(name);
    write_whole(&path, &serde_json::to_vec(request)?)?;
    Ok(path)
}

/// Makes the folder of requests, which only its owner can enter.
fn make_own(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Takes the requests that were left for the run in `folder`, in their order. One that cannot be read, or that somebody else
/// than the owner of this process has left, is an error and is removed.
pub fn take(folder: &Path) -> Vec<Result<ControlRequest, RequestError>> {
    let Ok(entries) = std::fs::read_dir(folder.join(CONTROL_FOLDER)) else { return Vec::new() };
    let is_request = |path: &PathBuf| path.to_string_lossy().ends_with(&format!(".{EXTENSION}"));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_request).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let read = read(&path);
            // If that fails it would be read again and again.
            match std::fs::remove_file(&path) {
                Ok(()) => read,
                Err(source) => Err(RequestError::System { path, source }),
            }
        })
        .collect()
}

/// Removes all requests: they were for an earlier process.
///
/// # Errors
///
/// When the system refuses.
pub fn clear(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder.join(CONTROL_FOLDER)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Why a request is not followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It cannot be read or removed.
    #[error("cannot read the request `{path}`")]
    System {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not understood.
    #[error("the request `{path}` is not understood")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is another user's, or no plain file.
    #[error("the request `{path}` is not a file of the user who runs this")]
    NotOwn {
        /// The file.
        path: PathBuf,
    },
}

/// A request is some hundred bytes.
const MOST_BYTES: u64 = 64 << 10;

fn read(path: &Path) -> Result<ControlRequest, RequestError> {
    let system = |source| RequestError::System { path: path.to_owned(), source };
    // Not of what a link leads to: a FIFO would hang.
    let metadata = path.symlink_metadata().map_err(system)?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES || !is_own(&metadata) {
        return Err(RequestError::NotOwn { path: path.to_owned() });
    }
    let bytes = std::fs::read(path).map_err(system)?;
    serde_json::from_slice(&bytes).map_err(|source| RequestError::Unknown { path: path.to_owned(), source })
}

#[cfg(unix)]
fn is_own(metadata: &std::fs::Metadata) -> bool {
    // SAFETY: it reads a number of this process and cannot fail.
    let own = unsafe { libc::geteuid() };
    // Root may ask anything.
    [own, 0].contains(&std::os::unix::fs::MetadataExt::uid(metadata))
}

#[cfg(not(unix))]
fn is_own(_metadata: &std::fs::Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(action: Action) -> ControlRequest {
        ControlRequest { action, by: "ann".to_owned(), reason: "lunch".to_owned() }
    }

    #[test]
    fn requests_are_taken_once_and_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        assert!(take(folder.path()).is_empty());
        for action in [Action::Pause, Action::Checkpoint, Action::Resume, Action::Stop] {
            leave(folder.path(), &request(action)).unwrap();
        }
        let taken: Vec<Action> = take(folder.path()).into_iter().map(|taken| taken.unwrap().action).collect();
        assert_eq!(taken, [Action::Pause, Action::Checkpoint, Action::Resume, Action::Stop]);
        assert!(take(folder.path()).is_empty());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = folder.path().join(CONTROL_FOLDER).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }

    #[test]
    fn what_is_no_request_is_told_once_and_never_hangs() {
        let folder = tempfile::tempdir().unwrap();
        leave(folder.path(), &request(Action::Stop)).unwrap();
        let control = folder.path().join(CONTROL_FOLDER);
        std::fs::write(control.join("1-2.request.json"), "{}").unwrap();
        std::fs::write(control.join("notes"), "not looked at").unwrap();
        #[cfg(unix)]
        {
            let name = std::ffi::CString::new(control.join("2-2.request.json").to_str().unwrap()).unwrap();
            // SAFETY: the name is a text that ends with a zero.
            assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        }
        let taken = take(folder.path());
        let wrong = taken.iter().filter(|taken| taken.is_err()).count();
        assert_eq!((taken.len() - wrong, wrong), (1, if cfg!(unix) { 2 } else { 1 }));
        assert!(take(folder.path()).is_empty());
    }
}
