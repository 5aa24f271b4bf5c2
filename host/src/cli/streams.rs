//! Where the standard streams lead.

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
    matches!((place(std::io::stdout().as_fd()), place(std::io::stderr().as_fd())), (Some(out), Some(err)) if out == err)
}

#[cfg(not(unix))]
pub(super) fn stdout_is_stderr() -> bool {
    use std::io::IsTerminal;

    std::io::stdout().is_terminal() && std::io::stderr().is_terminal()
}
