//! How long libtorch's threads spin before they sleep.
//!
//! `host` sets this before it becomes the program that computes. A program of one's own that trains starts itself once more,
//! in the same process, with the setting in place.

/// Starts this program again with the setting of [`host_command::engine::short_waits`], if there is one to make. Returns if it
/// does not, or cannot; the training is correct either way.
#[cfg(target_os = "linux")]
pub(super) fn start_with_short_waits() {
    use std::os::unix::process::CommandExt;

    let Some((name, value)) = host_command::engine::short_waits() else { return };
    let (Ok(program), mut arguments) = (std::env::current_exe(), std::env::args_os()) else { return };
    let mut command = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Returns only on an error.
    let _ = command.args(arguments).env(name, value).exec();
}

#[cfg(not(target_os = "linux"))]
pub(super) fn start_with_short_waits() {}
