//! The base of the end-to-end tests: the host and the plugins as Cargo builds them, folders, and the text that a
//! user would see.
//!
//! Everything is found through Cargo's own messages, and built once in a process. A build that fails is a panic with
//! Cargo's output: no test can continue without it.

mod cargo;
mod outcome;
mod skipped;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub use cargo::{Artifact, cargo, cargo_artifacts, target_folder, unoptimized};
pub use outcome::{lines, shown};
pub use skipped::skipped;
pub use tempfile::TempDir;

/// The libraries of a build: the name of the package, `early-stopping`, and its file.
pub type Libraries = BTreeMap<String, PathBuf>;

/// The root of the repository.
pub fn workspace_root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// The libraries of `tests/plugins`, by package. Most are wrong on purpose; the first line of each says how.
pub fn build_test_plugins() -> &'static Libraries {
    static BUILT: OnceLock<Libraries> = OnceLock::new();
    BUILT.get_or_init(|| {
        let build = |arguments: &[&str]| {
            let mut command = cargo("build");
            command.args(arguments).arg("--manifest-path").arg(workspace_root().join("tests/plugins/Cargo.toml"));
            command.arg("--target-dir").arg(target_folder().join("test-plugins"));
            libraries(&cargo_artifacts(&mut command))
        };
        // A profile's panic strategy is that of the whole build. `minor` is built in several ways by its own test.
        let mut built = build(&["--release", "--workspace", "--exclude", "aborts-on-panic", "--exclude", "minor"]);
        built.extend(build(&["--profile", "abort", "--package", "aborts-on-panic"]));
        built
    })
}

/// The plugins in C and C++, by the names of their files: those of `tests/plugins/c`, wrong on purpose, and the examples.
pub fn build_c_plugins() -> &'static Libraries {
    static BUILT: OnceLock<Libraries> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = shared_folder("c-plugins");
        let sources = ["tests/plugins/c", "examples/c-plugin", "examples/cpp-plugin"].map(|from| {
            let entries = workspace_root().join(from).read_dir().expect("the folder can be read");
            entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
        });
        let is_source = |path: &PathBuf| path.extension().is_some_and(|end| end == "c" || end == "cpp");
        let sources = sources.into_iter().flatten().filter(is_source);
        sources.map(|source| (file_stem(&source), compile_c(&source, &folder))).collect()
    })
}

fn file_stem(path: &Path) -> String {
    path.file_stem().expect("a file has a name").to_string_lossy().into_owned()
}

/// Builds a plugin in C or C++ into `folder`, as its author would, and with every warning as an error.
///
/// # Panics
///
/// When the compiler finds something to say.
pub fn compile_c(source: &Path, folder: &Path) -> PathBuf {
    compile_c_with(source, folder, &[])
}

/// As [`compile_c`], with more arguments for the compiler.
///
/// # Panics
///
/// When the compiler finds something to say.
pub fn compile_c_with(source: &Path, folder: &Path, arguments: &[&str]) -> PathBuf {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    let library = folder.join(format!("{DLL_PREFIX}{}{DLL_SUFFIX}", file_stem(source)));
    let is_c = source.extension().is_some_and(|end| end == "c");
    let (compiler, standard) = if is_c { ("cc", "-std=c99") } else { ("c++", "-std=c++17") };
    let mut command = Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-shared", "-fPIC", "-I"]);
    command
        .arg(workspace_root().join("plugin-api/include"))
        .arg("-o")
        .arg(&library)
        .arg(source)
        .arg("-lm")
        .args(arguments);
    let output = command.output().expect("there is a compiler");
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// What the workspace builds, in one build: built with other packages, the host's dependencies could have other
/// features, and it would be compiled again.
fn build_workspace() -> &'static [Artifact] {
    static BUILT: OnceLock<Vec<Artifact>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut command = cargo("build");
        command.args(["--release", "--workspace", "--exclude", "end-to-end"]).current_dir(workspace_root());
        cargo_artifacts(&mut command)
    })
}

/// The libraries of `plugins/`, by package: those that we ship.
pub fn build_workspace_plugins() -> &'static Libraries {
    static BUILT: OnceLock<Libraries> = OnceLock::new();
    BUILT.get_or_init(|| {
        let shipped = workspace_root().join("plugins");
        libraries(build_workspace().iter().filter(|artifact| artifact.manifest.starts_with(&shipped)))
    })
}

/// The program `host`.
pub fn host_binary() -> &'static Path {
    let host = build_workspace().iter().find(|artifact| artifact.target == "host" && artifact.executable.is_some());
    host.and_then(|artifact| artifact.executable.as_deref()).expect("Cargo tells where the program is")
}

/// Copies the program `host`, and the one that it becomes, into `folder`, as an installation has them.
///
/// # Panics
///
/// When they cannot be copied.
pub fn install_host(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder).expect("a folder can be made");
    for name in ["host", "host-engine", "host-plugin"] {
        let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        std::fs::copy(host_binary().with_file_name(&name), folder.join(&name)).expect("the program can be copied");
    }
    folder.join(format!("host{}", std::env::consts::EXE_SUFFIX))
}

/// What `--json` wrote: an object a line.
///
/// # Panics
///
/// When a line is something else.
pub fn events(stdout: &[u8]) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The program `host`; see [`program`].
pub fn host() -> Command {
    program(host_binary())
}

/// A program with an empty environment, so that it does the same for everyone.
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear();
    // Without a setting the program would start itself again, in every test.
    command.env("GOMP_SPINCOUNT", "10000");
    // What libraries say of themselves stays out of the user's own cache.
    command.env("HOST_CACHE", target_folder().join("tmp/host-cache"));
    // What a program needs to start at all, and the user's own libtorch.
    for name in ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    with_interrupts(&mut command);
    command
}

/// Has the program take the signals of Ctrl-C and of a terminal that closes: a shell that starts the tests in the background
/// may let them ignore these, and so would the program.
#[cfg(unix)]
fn with_interrupts(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: `signal` may be called between `fork` and `exec`.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
}

#[cfg(not(unix))]
fn with_interrupts(_: &mut Command) {}

/// The Python that has the packages of `tests/requirements.txt`; `None`, with a message, if there is none.
pub fn python() -> Option<OsString> {
    let python = std::env::var_os("HOST_TEST_PYTHON");
    if python.is_none() {
        skipped("`HOST_TEST_PYTHON` names no Python that has the packages of tests/requirements.txt");
    }
    python
}

/// A folder below the target folder, empty at first, for files that the tests of a process share.
pub fn shared_folder(name: &str) -> PathBuf {
    let folder = target_folder().join("tmp").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("what an earlier run left can be removed");
    }
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

/// A folder that is removed with the value.
pub fn temporary_folder() -> TempDir {
    tempfile::Builder::new().prefix("host-test-").tempdir().expect("there is a folder for temporary files")
}

/// A folder with copies of libraries, named as Cargo names them.
pub fn folder_of<'a>(libraries: impl IntoIterator<Item = &'a Path>) -> TempDir {
    let folder = temporary_folder();
    for library in libraries {
        let name = library.file_name().expect("a library has a file name");
        std::fs::copy(library, folder.path().join(name)).expect("a library can be copied");
    }
    folder
}

fn libraries<'a>(artifacts: impl IntoIterator<Item = &'a Artifact>) -> Libraries {
    artifacts.into_iter().filter_map(|artifact| Some((artifact.package.clone(), artifact.library.clone()?))).collect()
}
