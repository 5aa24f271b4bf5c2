//! The program that computes: `host-engine`, beside this one.
//!
//! It loads libtorch, which takes a fifth of a second and a hundred megabytes; this program does not. A command that
//! computes becomes it: the same process, with the same arguments.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::report::{Problem, Problems};

/// The program's name without an extension.
pub const NAME: &str = "host-engine";

/// Turns of the loop in which a thread waits at a barrier, about 0.1 ms of them.
///
/// libgomp's own 300,000 keep a core busy for milliseconds. Measured with the built-in run and two threads on two
/// cores: 0.81 s with this setting, 1.14 s with libgomp's; with two other busy processes 3.7 s and 19 s.
const SPIN_COUNT: &str = "10000";

const SPIN_COUNT_NAME: &str = "GOMP_SPINCOUNT";

/// If one of these is set, it is left as it is.
const SETTINGS: [&str; 2] = [SPIN_COUNT_NAME, "OMP_WAIT_POLICY"];

/// The setting of libgomp with which a program that computes should start: it is read when libgomp is loaded, long before
/// `main`. None if the environment says how to wait, or with one core, where nothing waits.
pub fn short_waits() -> Option<(&'static str, &'static str)> {
    let one_core = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let is_said = SETTINGS.iter().any(|name| std::env::var_os(name).is_some());
    (cfg!(target_os = "linux") && !one_core && !is_said).then_some((SPIN_COUNT_NAME, SPIN_COUNT))
}

/// Becomes the program that computes, with the arguments of this process.
///
/// # Errors
///
/// When it is not there or cannot be started.
pub fn become_engine() -> Result<ExitCode, Problems> {
    let program = find()?;
    let mut command = Command::new(&program);
    let mut arguments = std::env::args_os();
    let own_name = arguments.next();
    command.args(arguments);
    if let Some((name, value)) = short_waits() {
        command.env(name, value);
    }
    replace(command, own_name)
        .map_err(|error| Problem::new(format!("cannot start `{}`", program.display())).with_cause(&error).into())
}

/// The program beside this one; of a link to this one, beside what it leads to.
///
/// # Errors
///
/// When it is not there.
pub fn find() -> Result<PathBuf, Problems> {
    let own = std::env::current_exe()
        .map_err(|error| Problem::new("cannot find the folder of this program").with_cause(&error))?;
    let name = format!("{NAME}{}", std::env::consts::EXE_SUFFIX);
    let beside = |path: PathBuf| path.with_file_name(&name);
    let places = [Some(beside(own.clone())), own.canonicalize().ok().map(beside)];
    places.into_iter().flatten().find(|path| path.is_file()).ok_or_else(|| {
        Problem::new(format!("`{name}` is not beside `{}`", own.display()))
            .with_hint("the two programs belong together: install both in one folder".to_owned())
            .into()
    })
}

/// Replaces this process: signals, the terminal and the process number stay those that the user knows.
#[cfg(unix)]
fn replace(mut command: Command, own_name: Option<std::ffi::OsString>) -> std::io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    if let Some(name) = own_name {
        command.arg0(name);
    }
    Err(command.exec())
}

/// Waits for it and ends as it does. Ctrl-C reaches both; the first of them to end is the other.
#[cfg(not(unix))]
fn replace(mut command: Command, _own_name: Option<std::ffi::OsString>) -> std::io::Result<ExitCode> {
    let status = command.status()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
