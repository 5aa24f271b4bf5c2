//! `host plugins new`: a project that builds and loads; in Rust and Python it passes a test of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use host_command::arguments::{Language, NewOptions};
use plugin_api::abi::{C_HEADER, C_HEADER_NAME};

use super::output::cannot_write;
use crate::plugins::python::package_files;
use crate::report::{Problem, Problems, Report};

/// What GitHub builds, checks and packs the plugin by.
const CI_FILE: &str = ".github/workflows/plugin.yml";

/// The files of the project and where they go. The words that [`fill`] replaces, in the paths too, are chosen so that
/// the templates read as the files that they become.
fn templates(language: Language) -> &'static [(&'static str, &'static str)] {
    match language {
        Language::Rust => &[
            ("Cargo.toml", include_str!("template/Cargo.toml.template")),
            ("src/lib.rs", include_str!("template/lib.rs.template")),
            ("README.md", include_str!("template/README.md.template")),
            (".gitignore", include_str!("template/gitignore.template")),
            (CI_FILE, include_str!("template/ci.yml.template")),
        ],
        Language::C => &[
            ("plugin-name.c", include_str!("template/plugin.c.template")),
            ("README.md", include_str!("template/README.c.md.template")),
            (".gitignore", include_str!("template/gitignore.c.template")),
            (CI_FILE, include_str!("template/ci.c.yml.template")),
        ],
        Language::Python => &[
            ("plugin_module.py", include_str!("template/plugin.py.template")),
            ("test_plugin_module.py", include_str!("template/test.py.template")),
            ("README.md", include_str!("template/README.py.md.template")),
            (".gitignore", include_str!("template/gitignore.py.template")),
        ],
    }
}

/// How the project is built and where its library is then.
fn build(language: Language, name: &str) -> (String, String) {
    let library = library_file(name);
    match language {
        Language::Rust => ("cargo test\ncargo build --release".to_owned(), format!("target/release/{library}")),
        Language::C => (
            format!("cc -shared -fPIC -O2 -I include -o {library} {name}.c"),
            // A path without a folder would be looked for in the system's.
            format!("./{library}"),
        ),
        Language::Python => ("python3 -m unittest".to_owned(), format!("./{}.py", module(name))),
    }
}

/// Names that Cargo or Rust does not take for a library.
const RESERVED: [&str; 59] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "plugin-api",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "serde-json",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Words of Python, and modules that a file of the same name would hide.
const RESERVED_IN_PYTHON: &str = "\
    abc aifc and antigravity argparse array as assert ast async asynchat asyncio asyncore atexit audioop await \
    base64 bdb binascii bisect break builtins bz2 calendar cgi cgitb chunk class cmath cmd code codecs codeop \
    collections colorsys compileall concurrent configparser contextlib contextvars continue copy copyreg crypt csv \
    ctypes curses dataclasses datetime dbm decimal def del difflib dis distutils doctest elif else email encodings \
    ensurepip enum errno except faulthandler fcntl filecmp fileinput finally fnmatch for fractions from ftplib \
    functools gc genericpath getopt getpass gettext glob global graphlib grp gzip hashlib heapq hmac html http \
    idlelib if imaplib imghdr imp import importlib in inspect io ipaddress is itertools json keras keyword lambda \
    lib2to3 lightning linecache locale logging lzma mailbox mailcap marshal math mimetypes mmap modulefinder msilib \
    msvcrt multiprocessing netrc nis nntplib nonlocal not nt ntpath nturl2path numbers numpy opcode operator \
    optparse or os ossaudiodev pass pathlib pdb pickle pickletools pipes pkgutil platform plistlib poplib posix \
    posixpath pprint profile pstats pty pwd pyclbr pydoc pyexpat queue quopri raise random re readline reprlib \
    resource return rlcompleter runpy sched secrets select selectors shelve shlex shutil signal site smtpd smtplib \
    sndhdr socket socketserver spwd sqlite3 ssl stat statistics string stringprep struct subprocess sunau symtable \
    sys sysconfig syslog tabnanny tarfile telnetlib tempfile tensorpack termios test textwrap this threading time \
    timeit tkinter token tokenize tomllib torch trace traceback tracemalloc transformers try tty turtle turtledemo \
    types typing unicodedata unittest urllib uu uuid venv warnings wave weakref webbrowser while winreg winsound \
    with wsgiref xdrlib xml xmlrpc yield zipapp zipfile zipimport zlib zoneinfo";

/// Types that the template imports or defines.
const TAKEN_TYPES: [&str; 15] = [
    "Any",
    "At",
    "Callback",
    "Creation",
    "EventKind",
    "FakeHost",
    "Kind",
    "None",
    "Ok",
    "Option",
    "Optional",
    "Options",
    "Result",
    "Run",
    "Some",
];

/// Why no project was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewError {
    /// The name is none for a kind and a library.
    #[error("`{name}` cannot name a plugin: {reason}")]
    Name {
        /// What was given.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is something of that name.
    #[error("`{path}` exists already")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// `--plugin-api` names no sources of `plugin-api`.
    #[error("`{path}` is not the folder of `plugin-api`: it has no `Cargo.toml`")]
    NoPluginApi {
        /// What was given.
        path: PathBuf,
    },
    /// `--plugin-api` makes no sense for a plugin in another language.
    #[error("`--plugin-api` is for a plugin in Rust: any other has all that it needs in its own folder")]
    NoDependency,
    /// A file or folder cannot be written.
    #[error("cannot write `{path}`")]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Report for NewError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Name { .. } => "use lower-case letters, digits and `-`, as in `loss-alarm`",
            Self::Exists { .. } => "choose another name, or another folder with `--path DIR`",
            Self::NoPluginApi { .. } => "give the folder `plugin-api` of the host's sources",
            Self::NoDependency => "leave it out",
            Self::Unwritable { .. } => "check the path and its permissions",
        };
        Some(hint.to_owned())
    }
}

/// Makes the project and says what to do next.
///
/// # Errors
///
/// See [`NewError`]; a folder that exists is never written to.
pub fn new(options: &NewOptions, out: &mut dyn Write) -> Result<ExitCode, Problems> {
    let folder = make(options).map_err(|error| Problem::from(&error))?;
    let name = &options.name;
    let (build, library) = build(options.language, name);
    write!(
        out,
        "Made the plugin `{name}` in `{folder}`. What to write is marked with `WRITE HERE`.\n\n\
         cd {folder}\n\
         {build}\n\
         host plugins check {library}\n\
         host run --plugins {library} --plugin {name}\n",
        folder = folder.display()
    )
    .map_err(cannot_write)?;
    Ok(ExitCode::SUCCESS)
}

fn make(options: &NewOptions) -> Result<PathBuf, NewError> {
    check_name(&options.name, options.language)?;
    if options.language != Language::Rust && options.plugin_api.is_some() {
        return Err(NewError::NoDependency);
    }
    let dependency = dependency(options.plugin_api.as_deref())?;
    // `./mine` is `mine` to whoever reads it.
    let here = options.path == Path::new(".");
    let folder = if here { PathBuf::from(&options.name) } else { options.path.join(&options.name) };
    if folder.symlink_metadata().is_ok() {
        return Err(NewError::Exists { path: folder });
    }
    let header = format!("include/{C_HEADER_NAME}");
    let mut files: Vec<(String, String)> = Vec::new();
    for (file, template) in templates(options.language) {
        files.push((path_of(file, &options.name), fill(template, &options.name, &dependency)));
    }
    if options.language == Language::C {
        // As it is: nothing in it is a placeholder.
        files.push((header, C_HEADER.to_owned()));
    }
    if options.language == Language::Python {
        files.extend(package_files().map(|(file, text)| (file.to_owned(), text.to_owned())));
    }
    for (file, text) in files {
        let path = folder.join(file);
        let unwritable = |source| NewError::Unwritable { path: path.clone(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(unwritable)?;
        }
        std::fs::write(&path, text).map_err(unwritable)?;
    }
    Ok(folder)
}

/// The path of a template's file.
fn path_of(file: &str, name: &str) -> String {
    file.replace("plugin-name", name).replace("plugin_module", &module(name))
}

fn check_name(name: &str, language: Language) -> Result<(), NewError> {
    let refuse = |reason| Err(NewError::Name { name: name.to_owned(), reason });
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !name.bytes().all(allowed) || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        refuse("a name is lower-case letters, digits and `-`, a letter first")
    } else if name.ends_with('-') || name.contains("--") {
        refuse("a `-` stands between two words")
    } else if language == Language::Python {
        match RESERVED_IN_PYTHON.split_whitespace().any(|word| word == name) || name == "host-plugin" {
            true => refuse("Python has another use for the word"),
            false if name.len() > 64 => refuse("it is longer than 64 characters"),
            false => Ok(()),
        }
    } else if RESERVED.contains(&name) {
        refuse("Rust or Cargo has another use for the word")
    } else if name.len() > 64 {
        refuse("it is longer than 64 characters")
    } else {
        Ok(())
    }
}

/// The dependency on `plugin-api`, as TOML. A path is written absolute, so that it holds wherever the project lies.
fn dependency(path: Option<&Path>) -> Result<String, NewError> {
    let Some(path) = path else {
        return Ok(format!("\"{}\"", plugin_api::abi::MAJOR));
    };
    if !path.join("Cargo.toml").is_file() {
        return Err(NewError::NoPluginApi { path: path.to_owned() });
    }
    let absolute =
        std::path::absolute(path).map_err(|source| NewError::Unwritable { path: path.to_owned(), source })?;
    // A JSON string's escapes are TOML's.
    Ok(format!("{{ path = {} }}", serde_json::Value::from(absolute.to_string_lossy())))
}

fn fill(template: &str, name: &str, dependency: &str) -> String {
    template
        .replace("plugin-name", name)
        .replace("PluginType", &type_name(name))
        .replace("PLUGIN_API", dependency)
        .replace("LIBRARY_FILE", &library_file(name))
        .replace("plugin_module", &module(name))
        .replace("LIBRARY_STEM", &name.replace('-', "_"))
}

/// `loss-alarm` is `LossAlarm`.
fn type_name(name: &str) -> String {
    let capitalised = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    let name: String = name.split('-').map(capitalised).collect();
    if TAKEN_TYPES.contains(&name.as_str()) { format!("{name}Callback") } else { name }
}

/// The module of a plugin in Python.
fn module(name: &str) -> String {
    name.replace('-', "_")
}

/// The file that Cargo builds for the project.
fn library_file(name: &str) -> String {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    format!("{DLL_PREFIX}{}{DLL_SUFFIX}", name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, folder: &Path) -> Result<PathBuf, NewError> {
        made_in(Language::Rust, name, folder)
    }

    fn made_in(language: Language, name: &str, folder: &Path) -> Result<PathBuf, NewError> {
        make(&NewOptions { name: name.to_owned(), path: folder.to_owned(), language, plugin_api: None })
    }

    #[test]
    fn no_placeholder_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let projects =
            [(Language::C, "loss-alarm-in-c"), (Language::Python, "loss-alarm-too"), (Language::Rust, "loss-alarm")];
        for (language, name) in projects {
            let project = made_in(language, name, folder.path()).unwrap();
            for (file, _) in templates(language) {
                let text = std::fs::read_to_string(project.join(path_of(file, name))).unwrap();
                let placeholders =
                    ["plugin-name", "plugin_module", "PluginType", "PLUGIN_API", "LIBRARY_FILE", "LIBRARY_STEM"];
                for placeholder in placeholders {
                    assert!(!text.contains(placeholder), "{file} holds `{placeholder}`");
                }
            }
        }
        let project = folder.path().join("loss-alarm");
        let manifest: toml::Table = std::fs::read_to_string(project.join("Cargo.toml")).unwrap().parse().unwrap();
        assert_eq!(manifest["dependencies"]["plugin-api"].as_str(), Some("1"));
    }

    #[test]
    fn what_exists_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("mine")).unwrap();
        let error = made("mine", folder.path()).unwrap_err();
        assert!(matches!(error, NewError::Exists { .. }), "{error}");
        assert_eq!(folder.path().join("mine").read_dir().unwrap().count(), 0);
    }

    #[test]
    fn names_that_cargo_or_a_run_file_would_refuse_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "Mine", "my_plugin", "9lives", "-a", "a-", "a--b", "fn", "plugin-api", "../mine", "é"] {
            assert!(matches!(made(name, folder.path()), Err(NewError::Name { .. })), "`{name}` was taken");
        }
        for name in ["json", "class", "test", "host-plugin"] {
            let error = made_in(Language::Python, name, folder.path()).unwrap_err();
            assert!(matches!(error, NewError::Name { .. }), "`{name}` was taken");
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn types_do_not_hide_those_of_the_sdk() {
        assert_eq!(["loss-alarm", "run", "a1-b2"].map(type_name), ["LossAlarm", "RunCallback", "A1B2"]);
    }
}
