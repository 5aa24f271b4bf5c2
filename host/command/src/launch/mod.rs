//! The processes of one run: which one this is, as whoever started it says in the environment, and the host's own way to
//! start them.

mod environment;
mod error;
#[cfg(unix)]
mod launcher;
mod origin;
mod processes;
#[cfg(unix)]
mod restarts;
mod slurm;

#[cfg(any(unix, test))]
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::arguments::RunArguments;
use crate::report::{Problem, Problems};

pub use environment::{Launch, restart_count};
pub use error::LaunchError;
pub use origin::Origin;
pub use processes::Processes;

/// The option that asks for several processes; those get the other arguments.
const OPTION: &str = "--processes";

/// The variables by which `host run --processes` tells a process which one it is.
pub mod variables {
    /// The rank, from 0.
    pub const RANK: &str = "HOST_RANK";
    /// How many processes the run has.
    pub const WORLD_SIZE: &str = "HOST_WORLD_SIZE";
    /// The port on 127.0.0.1 at which rank 0 serves the store.
    pub const MASTER_PORT: &str = "HOST_MASTER_PORT";
    /// How often all ranks were started again; not set the first time.
    pub const RESTART_COUNT: &str = "HOST_RESTART_COUNT";
    /// The number of the open socket that listens at the port; only rank 0 has it.
    pub const LISTEN_FD: &str = "HOST_LISTEN_FD";
}

/// Runs `program` in as many processes as the arguments of this process ask for with `--processes`, and watches them to their
/// end; `None` if they ask for one, which the caller is.
///
/// # Errors
///
/// A process that is itself one of several; a program that cannot be started.
pub fn run(program: &Path, arguments: &RunArguments) -> Result<Option<ExitCode>, Problems> {
    let Some(world_size) = arguments.processes.map(Processes::count).filter(|count| *count > 1) else {
        return Ok(None);
    };
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    if let Some(launch) = Launch::from_environment(variable).map_err(|error| Problem::from(&error))? {
        let problem = Problem::new(format!(
            "`{OPTION}` is given to a process that is already one of {}, by {}",
            launch.world_size, launch.origin
        ));
        return Err(problem.with_hint(format!("leave out `{OPTION}`: all of them are one run")).into());
    }
    start(program, arguments, world_size).map(Some)
}

#[cfg(unix)]
fn start(program: &Path, arguments: &RunArguments, world_size: usize) -> Result<ExitCode, Problems> {
    launcher::run(&launcher::Job {
        program: program.to_owned(),
        arguments: without_processes(std::env::args_os().skip(1)),
        world_size,
        restarts: restarts::restarts(arguments.run_file.as_deref(), &arguments.overrides),
    })
}

#[cfg(not(unix))]
fn start(_: &Path, _: &RunArguments, _: usize) -> Result<ExitCode, Problems> {
    Err(Problem::new(format!("`{OPTION}` starts several processes on Linux and other systems of Unix only")).into())
}

/// The arguments without `--processes` and its value. What follows `--` is no option.
#[cfg(any(unix, test))]
fn without_processes(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut kept = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            kept.push(argument);
            kept.extend(arguments);
            break;
        }
        if argument == OPTION {
            let _ = arguments.next();
        } else if !argument.to_string_lossy().starts_with("--processes=") {
            kept.push(argument);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranks_get_the_other_arguments() {
        let without = |arguments: &str| {
            let kept = without_processes(arguments.split(' ').map(OsString::from));
            kept.into_iter().map(|argument| argument.into_string().expect("text")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(without("run a.toml --processes 2 --out b"), "run a.toml --out b");
        assert_eq!(without("run --processes=auto a.toml"), "run a.toml");
        assert_eq!(without("run --processes 2 -- --processes"), "run -- --processes");
    }
}
