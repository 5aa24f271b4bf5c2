//! The standard output of this process, which is for results.
//!
//! Plugins live in this process, and a `print` of theirs in the middle of an answer would make it unreadable to the program that
//! asked. So the host's own stream can be kept apart from what the descriptor 1 leads to.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

#[cfg(unix)]
use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::OnceLock,
};

#[cfg(unix)]
static KEPT: OnceLock<File> = OnceLock::new();

/// Keeps the standard output only for [`Stdout`]: what anybody else in this process prints goes to `elsewhere` from now on.
/// The first call counts.
///
/// # Errors
///
/// When the system gives no descriptor.
#[cfg(unix)]
pub fn keep_for_results(elsewhere: impl AsFd) -> io::Result<()> {
    io::stdout().flush()?;
    // Closed in programs that are started: they have what `elsewhere` is.
    let own = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    if KEPT.set(own).is_err() {
        return Ok(());
    }
    // SAFETY: two descriptors that are open; what was 1 lives on in `KEPT`.
    let moved = unsafe { libc::dup2(elsewhere.as_fd().as_raw_fd(), libc::STDOUT_FILENO) };
    if moved < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The standard output, for the host's own results.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stdout;

impl Stdout {
    /// Whether a person sees it.
    pub fn is_terminal(self) -> bool {
        #[cfg(unix)]
        return io::IsTerminal::is_terminal(&self.as_fd());
        #[cfg(not(unix))]
        return io::IsTerminal::is_terminal(&io::stdout());
    }
}

#[cfg(unix)]
impl AsFd for Stdout {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match KEPT.get() {
            Some(file) => file.as_fd(),
            // SAFETY: by Rust's standard library, the descriptor is open as long as the process is.
            None => unsafe { BorrowedFd::borrow_raw(libc::STDOUT_FILENO) },
        }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(unix)]
        if let Some(mut file) = KEPT.get() {
            return file.write(bytes);
        }
        io::stdout().write(bytes)
    }

    /// All at once: no other thread's bytes come between them.
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
