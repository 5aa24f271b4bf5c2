//! Where the standard streams lead.

use host_command::stdout::Stdout;

/// Keeps stdout for results: what plugins print goes to the log. Comes after this program has started itself anew.
#[cfg(unix)]
pub(super) fn log_what_plugins_print() {
    warn_of(crate::console::log_what_is_printed());
}

/// The same for a command without a log: it goes to stderr.
#[cfg(unix)]
pub(super) fn show_what_plugins_print() {
    warn_of(host_command::stdout::keep_for_results(std::io::stderr()));
}

#[cfg(unix)]
fn warn_of(kept: std::io::Result<()>) {
    if let Err(error) = kept {
        eprintln!("warning: what plugins print goes to stdout: {error}");
    }
}

#[cfg(not(unix))]
pub(super) fn log_what_plugins_print() {}

#[cfg(not(unix))]
pub(super) fn show_what_plugins_print() {}

/// Whether stdout and stderr lead to one place, such as a terminal or the pipe of `2>&1`, so that what was told on one need
/// not be told on the other.
#[cfg(unix)]
pub(super) fn stdout_is_stderr() -> bool {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    let place = |stream: std::os::fd::BorrowedFd<'_>| {
        let metadata = stream.try_clone_to_owned().and_then(|stream| File::from(stream).metadata()).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    matches!((place(Stdout.as_fd()), place(std::io::stderr().as_fd())), (Some(out), Some(err)) if out == err)
}

#[cfg(not(unix))]
pub(super) fn stdout_is_stderr() -> bool {
    use std::io::IsTerminal;

    Stdout.is_terminal() && std::io::stderr().is_terminal()
}
