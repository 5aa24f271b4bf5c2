//! Which process of a run this is.

pub use host_command::launch::{Launch, LaunchError, Origin, restart_count};

/// Which process of its run this one is, as the environment says; `None` if it is the only one.
///
/// # Errors
///
/// Variables of which only some are set, or with a value that cannot be.
pub fn of_this_process() -> Result<Option<Launch>, LaunchError> {
    let launch = Launch::from_environment(variable)?;
    #[cfg(unix)]
    if let Some(socket) = launch.as_ref().and_then(|launch| launch.listening) {
        close_in_programs(socket);
    }
    Ok(launch)
}

/// How often this process was started again by the one who watches it; 0 where nobody says.
pub fn restarts_of_this_process() -> u32 {
    restart_count(variable)
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Keeps a socket out of the programs that this process starts, which would keep its port open. What is no open file is told
/// by the one who uses it.
#[cfg(unix)]
fn close_in_programs(socket: i32) {
    // SAFETY: the call changes a flag of the file of this number, or fails.
    unsafe { libc::fcntl(socket, libc::F_SETFD, libc::FD_CLOEXEC) };
}
