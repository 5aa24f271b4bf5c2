//! How the process that last trained in a run folder ended, if it did not end by itself.

use std::path::Path;

use serde::Deserialize;

use super::status::{STATUS_FILE, Status};

/// The file that a crash leaves in the run folder.
pub const CRASH_FILE: &str = "crash.json";

/// What a crash leaves.
#[derive(Deserialize)]
struct Crash {
    signal: String,
    plugin: Option<String>,
    hook: Option<String>,
}

/// How the last process of the run in `folder` ended, as the end of a sentence about it; `None` if it ended by itself, or if
/// there was none. Nothing trains in the folder.
pub fn sudden_end(folder: &Path) -> Option<String> {
    let status: Status = read(folder, STATUS_FILE)?;
    status.state.is_live().then(|| describe(folder, &status))
}

/// The same for a status that says that the run lives.
pub(super) fn describe(folder: &Path, status: &Status) -> String {
    let how = match read::<Crash>(folder, CRASH_FILE) {
        Some(Crash { signal, plugin: Some(plugin), hook: Some(hook) }) => {
            format!("crashed with {signal} in the hook `{hook}` of `{plugin}`")
        }
        Some(Crash { signal, .. }) => format!("crashed with {signal}, outside of any hook"),
        None => "ended without a word: it was killed, or the machine stopped".to_owned(),
    };
    // The status is not written at each step.
    format!("(process {}) {how}; it was last seen at step {}", status.process, status.position.global_step)
}

/// Removes what a crash left, once it is told.
pub fn forget(folder: &Path) {
    // If that fails, it is told again when the run is not ended by itself the next time.
    let _ = std::fs::remove_file(folder.join(CRASH_FILE));
}

fn read<T: serde::de::DeserializeOwned>(folder: &Path, name: &str) -> Option<T> {
    serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_did_not_end_by_itself_has_an_end_to_tell() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(sudden_end(folder.path()), None);
        write("status.json", r#"{ "state": "failed", "process": 7, "position": { "global_step": 3 } }"#);
        assert_eq!(sudden_end(folder.path()), None);
        write("status.json", r#"{ "state": "stopping", "process": 7, "position": { "global_step": 3 } }"#);
        let killed =
            "(process 7) ended without a word: it was killed, or the machine stopped; it was last seen at step 3";
        assert_eq!(sudden_end(folder.path()).as_deref(), Some(killed));
        write(CRASH_FILE, r#"{"signal":"SIGBUS","plugin":"mine","hook":"step_end"}"#);
        let crashed = "(process 7) crashed with SIGBUS in the hook `step_end` of `mine`; it was last seen at step 3";
        assert_eq!(sudden_end(folder.path()).as_deref(), Some(crashed));
        forget(folder.path());
        assert_eq!(sudden_end(folder.path()).as_deref(), Some(killed));
        write("status.json", "not JSON");
        assert_eq!(sudden_end(folder.path()), None);
    }
}
