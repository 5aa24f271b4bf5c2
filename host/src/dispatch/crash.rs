//! A crash of the process is told: on the terminal at once, and in a file for the next start.
//!
//! A library can end the process where no unwinding helps: a wrong pointer, an abort. The handler below runs on the thread
//! that failed, inside the hook, and then leaves the process to what would have happened without it.

use std::cell::UnsafeCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::hook;

/// The signals of a crash.
const SIGNALS: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGABRT, "SIGABRT"),
];

/// The file for the next start; null for none. Never freed: a handler may be reading it.
static FILE: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// What was to be done on each signal before.
static BEFORE: Before = Before(UnsafeCell::new([const { MaybeUninit::zeroed() }; SIGNALS.len()]));

struct Before(UnsafeCell<[MaybeUninit<libc::sigaction>; SIGNALS.len()]>);

// SAFETY: written once, by `install`, before the handler that reads it is in place.
unsafe impl Sync for Before {}

/// Has a write beyond the limit of a file's size (`ulimit -f`) fail as one on a full disk does, where the system would end
/// the process. The signal gets a handler: one that is ignored would be ignored in the programs that callbacks start, too.
pub fn survive_file_limits() {
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: zeros are a valid `sigaction`, which the first call fills in; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let is_known = libc::sigaction(libc::SIGXFSZ, ptr::null(), &raw mut action) == 0;
        // What somebody has set stays.
        if is_known && action.sa_sigaction == libc::SIG_DFL {
            action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGXFSZ, &raw const action, ptr::null_mut());
        }
    }
}

/// Tells of crashes from now on, in `file`, which is written then and not before. The last call counts.
pub fn watch_crashes(file: &Path) {
    use std::os::unix::ffi::OsStrExt;
    static INSTALLED: Once = Once::new();
    // A path with a null byte cannot be opened.
    let path = CString::new(file.as_os_str().as_bytes()).map_or(ptr::null_mut(), CString::into_raw);
    FILE.store(path, Ordering::Release);
    INSTALLED.call_once(install);
}

/// Tells of crashes on the terminal only.
pub fn forget_crash_file() {
    FILE.store(ptr::null_mut(), Ordering::Release);
}

fn install() {
    survive_file_limits();
    for (index, (signal, _)) in SIGNALS.into_iter().enumerate() {
        // SAFETY: zeros are a valid `sigaction`, whose fields are set below; `BEFORE` is written once, by this function, and
        // its place in the array exists.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = tell as extern "C" fn(c_int) as usize;
            // Where the thread has another stack, the handler of a stack that has run out needs it.
            action.sa_flags = libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            let before = (*BEFORE.0.get())[index].as_mut_ptr();
            libc::sigaction(signal, &raw const action, before);
        }
    }
}

/// The handler: only what is safe in one. It returns to the instruction that failed, or to `abort`, with the handler of before.
extern "C" fn tell(signal: c_int) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let Some(index) = SIGNALS.iter().position(|(known, _)| *known == signal) else { return };
    // SAFETY: `install` has written it.
    unsafe { libc::sigaction(signal, (*BEFORE.0.get())[index].as_ptr(), ptr::null_mut()) };
    if TOLD.swap(true, Ordering::AcqRel) {
        return;
    }
    let name = SIGNALS[index].1;
    hook::with_current(|current| {
        let (plugin, event) = current.unzip();
        let event = event.map(plugin_api::abi::kinds::EventKind::name);
        match (plugin, event) {
            (Some(plugin), Some(event)) => {
                write(libc::STDERR_FILENO, &["\nhost: the process crashed with ", name, " in the hook `", event]);
                write(libc::STDERR_FILENO, &["` of `", plugin, "`\n"]);
            }
            _ => write(libc::STDERR_FILENO, &["\nhost: the process crashed with ", name, ", outside of any hook\n"]),
        }
        let path = FILE.load(Ordering::Acquire);
        if path.is_null() {
            return;
        }
        // SAFETY: a string that `watch_crashes` made and nobody frees.
        let path = unsafe { CStr::from_ptr(path) };
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        // SAFETY: a path that ends with a null byte; `open` may be called in a handler.
        let file = unsafe { libc::open(path.as_ptr(), flags, 0o644) };
        if file < 0 {
            return;
        }
        // Names of signals, hooks and instances need no escapes.
        write(file, &["{\"signal\":\"", name, "\""]);
        if let (Some(plugin), Some(event)) = (plugin, event) {
            write(file, &[",\"plugin\":\"", plugin, "\",\"hook\":\"", event, "\""]);
        }
        write(file, &["}\n"]);
        // SAFETY: the file that was opened above.
        unsafe { libc::close(file) };
    });
}

fn write(file: c_int, parts: &[&str]) {
    for part in parts {
        // SAFETY: the bytes are there; `write` may be called in a handler. Nothing can be done about a failure.
        let _ = unsafe { libc::write(file, part.as_ptr().cast(), part.len()) };
    }
}
