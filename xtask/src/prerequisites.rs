//! The programs that must be installed, and a message for each that is missing.

use std::ffi::OsString;
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;

/// Fails unless there is a C++ compiler where the build scripts look for one.
pub fn check_compiler() -> Result<()> {
    // The MSVC compiler is found through the registry, not by name; the build reports it if it is missing.
    if cfg!(windows) {
        return Ok(());
    }
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    // `CXX` may carry options, as in `ccache g++`.
    let compiler = compiler.to_string_lossy();
    let mut words = compiler.split_whitespace();
    let found = words.next().and_then(|program| process::probe(Command::new(program).args(words).arg("--version")));
    match found {
        Some(_) => Ok(()),
        None => Err(Error::MissingTool {
            tool: "a C++ compiler",
            install: "install `g++` (Debian, Ubuntu), `gcc-c++` (Fedora) or the Xcode command line tools \
                      (macOS), or name yours in `CXX`",
        }),
    }
}

/// A Python 3 with pip, which downloads wheels.
#[derive(Debug)]
pub struct Python {
    interpreter: OsString,
}

impl Python {
    /// Fails unless Python 3 and its pip run.
    pub fn find() -> Result<Self> {
        let interpreter = interpreter();
        if process::probe(Command::new(&interpreter).arg("--version")).is_none() {
            return Err(Error::MissingTool {
                tool: "Python 3",
                install: "install `python3` and `python3-pip` (Debian, Ubuntu, Fedora), or `python` (Homebrew); \
                          pip downloads libtorch with it; training does not need Python",
            });
        }
        if process::probe(Command::new(&interpreter).args(["-m", "pip", "--version"])).is_none() {
            return Err(Error::MissingTool {
                tool: "pip",
                install: "install `python3-pip`, or run `python3 -m ensurepip`; it downloads libtorch",
            });
        }
        Ok(Self { interpreter })
    }

    /// Runs the interpreter.
    pub fn command(&self) -> Command {
        Command::new(&self.interpreter)
    }

    /// Runs pip without prompts.
    pub fn pip(&self) -> Command {
        let mut command = self.command();
        command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
        command
    }
}

/// The interpreter's name, chosen like torch-sys does.
pub fn interpreter() -> OsString {
    if cfg!(windows) {
        "python.exe".into()
    } else if std::env::var_os("VIRTUAL_ENV").is_some() {
        "python".into()
    } else {
        "python3".into()
    }
}
