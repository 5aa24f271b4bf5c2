//! Signals: the first asks the run to end with its end hooks, the second ends the process.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use crate::console::Console;
use crate::train::Interrupt;

/// The exit code of a process that a signal ended (128 + SIGINT).
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// Counts signals from now on; a process has one count. The second clears the `console` and ends the process.
///
/// # Errors
///
/// When the system refuses a handler.
pub(super) fn watch(console: &Arc<Console>) -> Result<Interrupt, ctrlc::Error> {
    static INTERRUPT: OnceLock<Interrupt> = OnceLock::new();
    if let Some(interrupt) = INTERRUPT.get() {
        return Ok(interrupt.clone());
    }
    let interrupt = Interrupt::default();
    let (count, console) = (interrupt.0.clone(), Arc::clone(console));
    ctrlc::set_handler(move || {
        if count.fetch_add(1, Ordering::Relaxed) > 0 {
            console.clear();
            // The user asked twice. Incomplete files have temporary names.
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        }
        tracing::warn!("ending after this step, with the end hooks; a second signal ends at once");
    })?;
    Ok(INTERRUPT.get_or_init(|| interrupt).clone())
}
