//! The programs that must be installed, and the sentence for each that is not.

use std::ffi::OsString;
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;

/// Fails unless a C++ compiler is found where the build scripts will look for one.
pub fn check_compiler() -> Result<()> {
    // The MSVC compiler is found through the registry rather than by name: the build says so if it is missing.
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

/// The Python 3 that fetches wheels, known to have pip.
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
                          pip fetches libtorch with it, and training needs no Python",
            });
        }
        if process::probe(Command::new(&interpreter).args(["-m", "pip", "--version"])).is_none() {
            return Err(Error::MissingTool {
                tool: "pip",
                install: "install `python3-pip`, or run `python3 -m ensurepip`; it fetches libtorch",
            });
        }
        Ok(Self { interpreter })
    }

    /// Runs the interpreter.
    pub fn command(&self) -> Command {
        Command::new(&self.interpreter)
    }

    /// Runs pip, never asking a question.
    pub fn pip(&self) -> Command {
        let mut command = self.command();
        command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
        command
    }
}

/// The interpreter's name, chosen as torch-sys chooses it.
pub fn interpreter() -> OsString {
    if cfg!(windows) {
        "python.exe".into()
    } else if std::env::var_os("VIRTUAL_ENV").is_some() {
        "python".into()
    } else {
        "python3".into()
    }
}
