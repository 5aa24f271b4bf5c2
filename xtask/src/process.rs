//! Runs programs and turns their exit status into a result.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// Runs to the end with the terminal inherited.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|source| Error::NotStarted { command: line(command), source })?;
    if !status.success() {
        return Err(Error::Failed { command: line(command), status });
    }
    Ok(())
}

/// Runs to the end and returns the standard output; standard error goes to the terminal.
pub fn read(command: &mut Command) -> Result<Vec<u8>> {
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = command.output().map_err(|source| Error::NotStarted { command: line(command), source })?;
    if !output.status.success() {
        return Err(Error::Failed { command: line(command), status: output.status });
    }
    Ok(output.stdout)
}

/// Runs without output; `None` if the program is missing or fails.
pub fn probe(command: &mut Command) -> Option<Output> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then_some(output)
}

/// The command line, for messages: only the file name of the program.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
