//! Signals to this process.

use std::sync::mpsc::Sender;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::Event;

/// Those that are passed on to all ranks.
pub(super) const PASSED_ON: [i32; 5] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2];

/// Those of them that ask for the end.
pub(super) const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Sends an event for each signal from now on; SIGCHLD wakes the one that watches. A signal that was ignored when the process
/// began stays ignored, here and in the ranks: `nohup host run … &` goes on when the terminal closes.
///
/// # Errors
///
/// When the system refuses a handler or a thread.
pub(super) fn listen(events: Sender<Event>) -> std::io::Result<()> {
    let watched = PASSED_ON.into_iter().chain([SIGTSTP]).filter(|signal| !is_ignored(*signal)).chain([SIGCHLD]);
    let mut signals = Signals::new(watched)?;
    let forever = move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(forever).map(drop)
}

fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is changed; the action is written if the call succeeds, and zeros are a valid one.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
