//! The programs that must be installed, and a message for each that is missing.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, FileContext, Result};
use crate::process;
use crate::workspace::Workspace;

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

/// By which names the tests find a browser.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Where the tests find a second compiler, and the Cargo beside it.
const SECOND_COMPILER: [&str; 2] = ["/usr/bin/rustc", "/usr/bin/cargo"];

/// The packages in which Debian has compilers, the usual one first; the other follows what browsers are built with.
const COMPILER_PACKAGES: [[&str; 2]; 2] = [["rustc", "cargo"], ["rustc-web", "cargo-web"]];

/// Installs the programs that some tests use, on Debian and if this is root; otherwise says which are missing.
///
/// Whatever does not work is told and no error: the tests that lack a program are skipped, or fail where none may be.
pub fn provide_programs(workspace: &Workspace) {
    let is_there = |program: &&str| process::probe(Command::new(program).arg("--version")).is_some();
    let browser = BROWSERS.iter().any(is_there);
    let compiler = SECOND_COMPILER.iter().all(is_there);
    if browser && compiler {
        return;
    }
    let is_root = process::probe(Command::new("id").arg("-u")).is_some_and(|output| output.stdout.trim_ascii() == b"0");
    let may_install = is_root && process::probe(Command::new("apt-get").arg("--version")).is_some();
    if may_install {
        eprintln!("test: some programs that tests use are missing; looking for them with apt-get");
        // Without it, a fresh container knows no packages. What could not be fetched is told below, as missing.
        let _ = process::probe(apt("apt-get").args(["update", "--quiet"]));
    }
    if !browser {
        let known = may_install && candidate("chromium").is_some();
        install("a browser, for the tests of pages", known.then_some(&["chromium"]), "Chromium");
    }
    if !compiler {
        let packages = if may_install { compiler_packages(workspace) } else { None };
        install("a second Rust compiler, for the test of plugins of another one", packages, "Debian's rustc and cargo");
    }
}

/// Installs `packages`, if there are any; `what` they are for, and which `programs` are in them, is told.
fn install(what: &str, packages: Option<&[&str]>, programs: &str) {
    let Some(packages) = packages else {
        eprintln!("test: {what}, is missing, and is installed only on Debian and as root: install {programs} yourself");
        return;
    };
    eprintln!("test: installing {what}: {}", packages.join(", "));
    let mut command = apt("apt-get");
    command.args(["install", "--yes", "--no-install-recommends", "--quiet=2"]).args(packages);
    // A line for each package that is unpacked; what goes wrong is on the other stream.
    command.stdout(Stdio::null());
    if let Err(error) = process::run(&mut command) {
        eprintln!("test: {what}, cannot be installed: {}", crate::report(&error));
    }
}

/// A program of apt that asks nothing and does not wait long for a network.
fn apt(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command.args(["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20"]);
    command
}

/// The version of a package that apt would install.
fn candidate(package: &str) -> Option<String> {
    let output = process::probe(apt("apt-cache").args(["policy", package]))?;
    candidate_of(&String::from_utf8_lossy(&output.stdout))
}

/// The candidate that `apt-cache policy` tells.
fn candidate_of(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// The packages of a compiler that can build the example of a plugin, and is another one than ours.
fn compiler_packages(workspace: &Workspace) -> Option<&'static [&'static str]> {
    let ours =
        process::probe(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version"));
    let ours = ours.and_then(|output| release(String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1)?));
    let oldest = oldest(&workspace.root().join("examples/third-party-plugin/Cargo.toml"));
    let oldest = oldest.inspect_err(|error| eprintln!("test: {}", crate::report(error))).ok()??;
    let fits = |packages: &&[&str; 2]| {
        let release = candidate(packages[0]).and_then(|version| release(&version));
        release.is_some_and(|release| release >= oldest && Some(release) != ours)
    };
    COMPILER_PACKAGES.iter().find(fits).map(<[_; 2]>::as_slice)
}

/// The oldest compiler that a manifest allows.
fn oldest(manifest: &Path) -> Result<Option<(u32, u32)>> {
    let text = std::fs::read_to_string(manifest).on("read", manifest)?;
    let version = text.lines().find_map(|line| line.strip_prefix("rust-version = "));
    Ok(version.and_then(|version| release(version.trim_matches('"'))))
}

/// The first two numbers of a version.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '+', '-', '~']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_apt_and_manifests_write_them() {
        let policy = "rustc:\n  Installed: (none)\n  Candidate: 1.85.0+dfsg3-1~deb12u3\n  Version table:\n";
        assert_eq!(candidate_of(policy).as_deref().and_then(release), Some((1, 85)));
        assert_eq!(candidate_of("rustc:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_of(""), None);
        assert_eq!((release("1.95"), release("nightly")), (Some((1, 95)), None));
    }

    #[test]
    fn the_example_says_its_oldest_compiler() {
        let manifest = Workspace::find().root().join("examples/third-party-plugin/Cargo.toml");
        assert!(oldest(&manifest).unwrap() >= Some((1, 85)));
    }
}
