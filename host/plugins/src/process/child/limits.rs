//! What this process may use of the machine.

use std::io;

use rustix::process::{Resource, Rlimit, getpriority_process, getrlimit, setpriority_process, setrlimit};

use crate::process::messages::Limits;

/// Applies the limits: before anything of a plugin runs. They hold for the threads and processes that it starts, too.
pub(super) fn apply(limits: &Limits) -> io::Result<()> {
    if let Some(niceness) = limits.niceness {
        // Beside that of the host, which this process has now.
        let own = getpriority_process(None)?;
        setpriority_process(None, (own + i32::from(niceness)).min(19))?;
    }
    let resources = [(Resource::As, limits.memory), (Resource::Nofile, limits.open_files)];
    for (resource, limit) in resources {
        let Some(limit) = limit else { continue };
        // What is limited already is not widened.
        let limit = getrlimit(resource).maximum.map_or(limit, |maximum| limit.min(maximum));
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}
