//! `TORCHELASTIC_ERROR_FILE`: where torchrun and its relatives read why a process failed.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

/// The variable that names the file.
const VARIABLE: &str = "TORCHELASTIC_ERROR_FILE";

/// Writes the error of a run that failed, in the form of `torch.distributed.elastic.multiprocessing.errors.ErrorHandler`, if
/// the process was started by such a program. A file that cannot be written is told in the log.
pub(super) fn tell(message: &str, kind: &str, details: &str) {
    let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from) else { return };
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let text = json!({
        "message": {
            "message": format!("{kind}: {message}"),
            "extraInfo": { "py_callstack": details, "timestamp": seconds.to_string() },
        },
    });
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = folder.and_then(|()| std::fs::write(&path, text.to_string())) {
        tracing::warn!(path = %path.display(), %error, "cannot write the error for torchrun");
    }
}
