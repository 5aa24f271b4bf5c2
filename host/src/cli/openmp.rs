//! How long libtorch's threads spin before they sleep.
//!
//! libgomp reads its settings when it is loaded, long before `main`, and has no function that changes them later. So a
//! training starts itself once more, in the same process, with the setting in place.

/// Turns of the loop in which a thread waits at a barrier, about 0.1 ms of them.
///
/// libgomp's own 300,000 keep a core busy for milliseconds. Measured with the built-in run and two threads on two
/// cores: 0.81 s with this setting, 1.14 s with libgomp's; with two other busy processes 3.7 s and 19 s.
const SPIN_COUNT: &str = "10000";

const SPIN_COUNT_NAME: &str = "GOMP_SPINCOUNT";

/// If one of these is set, it is left as it is.
const SETTINGS: [&str; 2] = [SPIN_COUNT_NAME, "OMP_WAIT_POLICY"];

/// Starts this program again with [`SPIN_COUNT`], unless the environment says how to wait or there is only one core.
/// Returns if it does not, or cannot; the training is correct either way.
#[cfg(target_os = "linux")]
pub(super) fn start_with_short_waits() {
    use std::os::unix::process::CommandExt;

    let one_core = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    if one_core || SETTINGS.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let (Ok(program), mut arguments) = (std::env::current_exe(), std::env::args_os()) else { return };
    let mut command = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Returns only on an error.
    let _ = command.args(arguments).env(SPIN_COUNT_NAME, SPIN_COUNT).exec();
}

#[cfg(not(target_os = "linux"))]
pub(super) fn start_with_short_waits() {}
