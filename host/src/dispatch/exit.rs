//! The end of the process by `exit`: a plugin that calls it does not make a run look finished.
//!
//! The handler runs before the destructors of libtorch, and after those of libraries that were loaded later.

use std::ffi::c_int;
use std::sync::{Mutex, PoisonError};

use super::hook;

/// Who ended the process, with the code that it gave, if the system tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The plugin and the hook in progress on the thread that ended it; `None` on a thread of somebody's own.
    pub hook: Option<(String, &'static str)>,
    /// The exit code.
    pub code: Option<c_int>,
}

type Told = Box<dyn FnOnce(Exit) + Send>;

/// Whom an exit is told, while a run is in progress.
static RUN: Mutex<Option<Told>> = Mutex::new(None);

fn run() -> std::sync::MutexGuard<'static, Option<Told>> {
    RUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `tell` called, on the thread that ends the process, if somebody does before [`forget_exits`]; the process fails then.
/// The last call counts.
pub fn watch_exits(tell: impl FnOnce(Exit) + Send + 'static) {
    *run() = Some(Box::new(tell));
}

/// From now on the process may end.
pub fn forget_exits() {
    *run() = None;
}

/// Handles exits of this process from now on, on Unix: call it once, first in `main`. With glibc, the process then also ends without the
/// destructors of what was loaded before: to take its thousands of operators out of their tables again, libtorch takes a tenth
/// of a second. Handlers that plugins registered run, and C's streams are flushed.
pub fn handle_exits() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the handler lives as long as the process. A failure leaves exits as they are.
    unsafe {
        on_exit(leave_with, std::ptr::null_mut());
    }
    #[cfg(all(unix, not(all(target_os = "linux", target_env = "gnu"))))]
    // SAFETY: as above.
    unsafe {
        libc::atexit(leave);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    /// Of glibc's `stdlib.h`: as `atexit`, and tells the code.
    fn on_exit(handler: extern "C" fn(c_int, *mut std::ffi::c_void), argument: *mut std::ffi::c_void) -> c_int;
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
extern "C" fn leave_with(code: c_int, _: *mut std::ffi::c_void) {
    let code = if told(Some(code)) { 1 } else { code };
    // SAFETY: null stands for all streams. Nothing of this process is used after it.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(code)
    }
}

#[cfg(all(unix, not(all(target_os = "linux", target_env = "gnu"))))]
extern "C" fn leave() {
    if told(None) {
        // SAFETY: as above.
        unsafe {
            libc::fflush(std::ptr::null_mut());
            libc::_exit(1)
        }
    }
}

/// Tells the run of the exit; false if there is none.
#[cfg(unix)]
fn told(code: Option<c_int>) -> bool {
    // Taken out first: whoever is told may end the process, too.
    let Some(tell) = run().take() else { return false };
    hook::with_current(|current| {
        let hook = current.map(|(plugin, event)| (plugin.to_owned(), event.name()));
        tell(Exit { hook, code });
    });
    true
}
