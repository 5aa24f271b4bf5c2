//! Signals: the first asks the run to end with its end hooks, the second ends the process.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use crate::console::Console;
use crate::train::Interrupt;

/// The number of the first signal; that of Ctrl-C before there is one.
static SIGNAL: AtomicU8 = AtomicU8::new(SIGINT);

/// SIGINT on every system.
const SIGINT: u8 = 2;

/// The exit code of a process that a signal ended: 128 and the signal's number, as shells have it.
pub(crate) fn exit_code() -> u8 {
    128 + SIGNAL.load(Ordering::Relaxed)
}

/// Counts signals from now on; a process has one count. The second clears the `console` and ends the process.
///
/// # Errors
///
/// When the system refuses a handler.
pub(super) fn watch(console: &Arc<Console>) -> std::io::Result<Interrupt> {
    static INTERRUPT: OnceLock<Interrupt> = OnceLock::new();
    if let Some(interrupt) = INTERRUPT.get() {
        return Ok(interrupt.clone());
    }
    let interrupt = Interrupt::default();
    let (count, console) = (interrupt.0.clone(), Arc::clone(console));
    listen(move |signal| {
        if count.load(Ordering::Relaxed) == 0 {
            SIGNAL.store(signal, Ordering::Relaxed);
        }
        if count.fetch_add(1, Ordering::Relaxed) > 0 {
            console.clear();
            // The user asked twice. Incomplete files have temporary names.
            std::process::exit(i32::from(exit_code()));
        }
        tracing::warn!("ending after this step, with the end hooks; a second signal ends at once");
    })?;
    Ok(INTERRUPT.get_or_init(|| interrupt).clone())
}

/// Calls `on_signal` with the number of each signal that asks for the end, on a thread of its own. A signal that was ignored
/// when the process began stays ignored: `nohup host run … &` goes on when the terminal closes.
#[cfg(unix)]
fn listen(on_signal: impl Fn(u8) + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal)))?;
    let forever = move || signals.forever().for_each(|signal| on_signal(u8::try_from(signal).unwrap_or(self::SIGINT)));
    std::thread::Builder::new().name("signals".to_owned()).spawn(forever).map(drop)
}

#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is changed; the action is written if the call succeeds, and zeros are a valid one.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
fn listen(on_signal: impl Fn(u8) + Send + 'static) -> std::io::Result<()> {
    ctrlc::set_handler(move || on_signal(SIGINT)).map_err(std::io::Error::other)
}
