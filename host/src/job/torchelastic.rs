//! `torchrun` and its relatives: where they read why a process failed, and whom they take for the one who did.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::interrupt;

/// The variable that names the file in which they look for the error.
const ERROR_FILE: &str = "TORCHELASTIC_ERROR_FILE";

/// The variable that tells that they started this process.
const RUN_ID: &str = "TORCHELASTIC_RUN_ID";

/// How long a process that only lost another one waits to be ended: an agent looks at its processes ten times a second, and
/// those of other machines tell each other within some seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How often it looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Writes the error of a run that failed, if the process was started by such a program; `details` may be empty. A file that
/// cannot be written is told in the log.
pub(crate) fn tell(message: &str, kind: &str, details: &str) {
    let Some(path) = value(ERROR_FILE).map(PathBuf::from) else { return };
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = folder.and_then(|()| std::fs::write(&path, error_file(message, kind, details, seconds))) {
        tracing::warn!(path = %path.display(), %error, "cannot write the error for torchrun");
    }
}

/// What `ProcessFailure` of `torch.distributed.elastic.multiprocessing.errors` reads: a text, which it shows as it is. Of the
/// other form, an object as Python's exceptions leave it, it shows only the call stack.
fn error_file(message: &str, kind: &str, details: &str, seconds: u64) -> String {
    let separator = if details.is_empty() { "" } else { "\n  hint: " };
    json!({ "message": format!("{kind}: {message}{separator}{details}"), "timestamp": seconds }).to_string()
}

/// Whether `torchrun` or a relative watches this process.
pub(crate) fn is_under_torchrun() -> bool {
    value(RUN_ID).is_some()
}

/// Waits some seconds for the signal with which `torchrun` ends a process after another one has failed; at once without
/// `torchrun`. It shows the error of the process that ends first: one that only lost another calls this before it tells its own
/// error and ends.
pub(crate) fn let_the_culprit_be_first() {
    if is_under_torchrun() {
        wait_until(interrupt::has_come, LONGEST_WAIT);
    }
}

fn wait_until(is: impl Fn() -> bool, longest: Duration) {
    let began = Instant::now();
    while !is() && began.elapsed() < longest {
        std::thread::sleep(PAUSE);
    }
}

fn value(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_error_is_a_text_and_a_number() {
        insta::assert_snapshot!(error_file("the \"disk\" is full", "io", "", 7), @r#"{"message":"io: the \"disk\" is full","timestamp":7}"#);
        insta::assert_snapshot!(error_file("it is wrong", "plugin", "correct it", 7), @r#"{"message":"plugin: it is wrong\n  hint: correct it","timestamp":7}"#);
    }

    #[test]
    fn a_wait_ends_with_the_signal_or_with_the_time() {
        let asked = Cell::new(0);
        let third = || {
            asked.set(asked.get() + 1);
            asked.get() == 3
        };
        let began = Instant::now();
        wait_until(third, Duration::from_secs(60));
        assert!(asked.get() == 3 && began.elapsed() < Duration::from_secs(30));
        let began = Instant::now();
        wait_until(|| false, Duration::from_millis(60));
        assert!(began.elapsed() >= Duration::from_millis(60));
    }
}
