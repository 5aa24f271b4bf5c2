//! How a rank failed.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::REFUSED;
use super::signals::ENDING;

/// The first failure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The rank that failed.
    pub(super) rank: usize,
    /// How.
    pub(super) how: How,
}

/// How a rank failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It ended with this code, which is not 0.
    Code(u8),
    /// This signal killed it.
    Signal(i32),
    /// It went on when everything was done, for longer than this.
    Late(Duration),
}

impl Failure {
    /// The failure of a rank that ended, if it is one.
    pub(super) fn of(rank: usize, status: ExitStatus) -> Option<Self> {
        let how = match (status.signal(), status.code()) {
            (Some(signal), _) => How::Signal(signal),
            (None, Some(0)) => return None,
            (None, code) => How::Code(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        };
        Some(Self { rank, how })
    }

    /// The exit code that tells it.
    pub(super) fn code(&self) -> u8 {
        match self.how {
            How::Code(code) => code,
            How::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
            How::Late(_) => 1,
        }
    }

    /// Whether a signal asked the rank to end, after which it ended in order: this is the run's end, and no failure of it.
    pub(super) fn is_asked_for(&self) -> bool {
        matches!(self.how, How::Code(code) if ENDING.iter().any(|signal| 128 + signal == i32::from(code)))
    }

    /// Whether the rank itself has said what there is to say.
    pub(super) fn is_told(&self) -> bool {
        matches!(self.how, How::Code(code) if self.rank == 0 || code == REFUSED)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rank = self.rank;
        match self.how {
            How::Code(code) => write!(formatter, "rank {rank} failed with exit code {code}"),
            How::Signal(signal) => write!(formatter, "rank {rank} was killed by {}", signal_name(signal)),
            How::Late(time) => write!(formatter, "rank {rank} did not end within {} s after rank 0", time.as_secs()),
        }
    }
}

/// The signal as people write it; a number for one that ends few programs.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}
