//! Signals: the first that asks for the end ends the run with its end hooks, the second ends the process; one of the run
//! file's choice asks for a checkpoint.
//!
//! SIGQUIT keeps its meaning: it ends the process at once, with a core dump where the system makes them. SIGUSR1 and SIGUSR2
//! do nothing where they ask for nothing: by the system's default they would end the run.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use plugin_api::protocol::Control;

use crate::console::Console;
use crate::run_file::CheckpointSignal;
use crate::train::{Interrupt, Requests};

/// The number of the first signal; that of Ctrl-C before there is one.
static SIGNAL: AtomicU8 = AtomicU8::new(SIGINT);

/// Whether one has come.
static HAS_COME: AtomicBool = AtomicBool::new(false);

/// SIGINT on every system.
const SIGINT: u8 = 2;

/// The signal that asks for a checkpoint; 0 for none.
static CHECKPOINT: AtomicI32 = AtomicI32::new(0);

/// Where it asks.
static REQUESTS: Mutex<Option<Requests>> = Mutex::new(None);

/// The exit code of a process that a signal ended: 128 and the signal's number, as shells have it.
pub(crate) fn exit_code() -> u8 {
    128 + SIGNAL.load(Ordering::Relaxed)
}

/// Whether a signal has asked for the end since [`watch`] was called.
pub(super) fn has_come() -> bool {
    HAS_COME.load(Ordering::Relaxed)
}

/// Counts signals from now on; a process has one count. The second clears the `console` and ends the process. The signal
/// `checkpoint` asks for one through `requests`.
///
/// # Errors
///
/// When the system refuses a handler.
pub(super) fn watch(
    console: &Arc<Console>,
    checkpoint: CheckpointSignal,
    requests: &Requests,
) -> std::io::Result<Interrupt> {
    static INTERRUPT: OnceLock<Interrupt> = OnceLock::new();
    CHECKPOINT.store(number(checkpoint), Ordering::Relaxed);
    *REQUESTS.lock().unwrap_or_else(PoisonError::into_inner) = Some(requests.clone());
    if let Some(interrupt) = INTERRUPT.get() {
        return Ok(interrupt.clone());
    }
    let interrupt = Interrupt::default();
    let (count, console) = (interrupt.0.clone(), Arc::clone(console));
    listen(move |signal| {
        if signal == CHECKPOINT.load(Ordering::Relaxed) {
            if let Some(requests) = &*REQUESTS.lock().unwrap_or_else(PoisonError::into_inner) {
                requests.ask(Control::Checkpoint, "host", "a signal asked for it");
            }
            return;
        }
        if is_for_users(signal) {
            tracing::warn!("signal {signal} is ignored: it asks for nothing here");
            return;
        }
        HAS_COME.store(true, Ordering::Relaxed);
        if count.load(Ordering::Relaxed) == 0 {
            SIGNAL.store(u8::try_from(signal).unwrap_or(SIGINT), Ordering::Relaxed);
        }
        if count.fetch_add(1, Ordering::Relaxed) > 0 {
            console.clear();
            // The user asked twice. Incomplete files have temporary names.
            crate::dispatch::forget_exits();
            std::process::exit(i32::from(exit_code()));
        }
        tracing::warn!("ending after this step, with the end hooks; a second signal ends at once");
    })?;
    Ok(INTERRUPT.get_or_init(|| interrupt).clone())
}

#[cfg(unix)]
fn number(signal: CheckpointSignal) -> i32 {
    match signal {
        CheckpointSignal::None => 0,
        CheckpointSignal::Sigusr1 => libc::SIGUSR1,
        CheckpointSignal::Sigusr2 => libc::SIGUSR2,
    }
}

#[cfg(not(unix))]
fn number(_: CheckpointSignal) -> i32 {
    0
}

/// Whether a signal is one whose meaning programs choose.
#[cfg(unix)]
fn is_for_users(signal: i32) -> bool {
    [libc::SIGUSR1, libc::SIGUSR2].contains(&signal)
}

#[cfg(not(unix))]
fn is_for_users(_: i32) -> bool {
    false
}

/// Calls `on_signal` with the number of each signal, on a thread of its own. A signal that was ignored when the process began
/// stays ignored: `nohup host run … &` goes on when the terminal closes.
#[cfg(unix)]
fn listen(on_signal: impl Fn(i32) + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
    use signal_hook::iterator::Signals;

    let watched = [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = Signals::new(watched)?;
    let forever = move || signals.forever().for_each(on_signal);
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
fn listen(on_signal: impl Fn(i32) + Send + 'static) -> std::io::Result<()> {
    ctrlc::set_handler(move || on_signal(i32::from(SIGINT))).map_err(std::io::Error::other)
}
