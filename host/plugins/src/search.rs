//! Where plugin libraries are looked for when a command names none.
//!
//! The working folder is not such a place: a library that is loaded runs with all rights of its user, so a command that is
//! started in somebody else's folder must not load what lies there.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::catalogue::libraries_in;

/// The environment variable that names folders of plugin libraries, or libraries, separated as in `PATH`.
pub const VARIABLE: &str = "HOST_PLUGINS";

/// The plugins that a search found, and what it passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Folders and libraries; empty if no place holds a library.
    pub paths: Vec<PathBuf>,
    from: Option<Place>,
    passed: Vec<(Place, Vec<PathBuf>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Variable,
    BesideProgram,
}

impl Found {
    /// Looks into [`VARIABLE`], then beside this program: the first place that holds a library is taken.
    pub fn search() -> Self {
        let program = std::env::current_exe().ok();
        Self::among(std::env::var_os(VARIABLE), program.as_deref())
    }

    fn among(variable: Option<OsString>, program: Option<&Path>) -> Self {
        let named: Vec<PathBuf> = variable.iter().flat_map(std::env::split_paths).collect();
        // A variable that is empty names nothing, as for `PATH`.
        let named: Vec<PathBuf> = named.into_iter().filter(|path| !path.as_os_str().is_empty()).collect();
        let mut places = vec![(Place::Variable, named)];
        places.extend(program.into_iter().flat_map(beside).map(|folder| (Place::BesideProgram, vec![folder])));
        let mut found = Self::default();
        for (place, paths) in places {
            if paths.iter().any(|path| holds_library(path)) {
                return Self { paths, from: Some(place), ..found };
            }
            if !paths.is_empty() {
                found.passed.push((place, paths));
            }
        }
        found
    }

    /// What [`VARIABLE`] names, if no library is there.
    pub fn empty_variable(&self) -> Option<&[PathBuf]> {
        self.passed.iter().find(|(place, _)| *place == Place::Variable).map(|(_, paths)| paths.as_slice())
    }

    /// The folders without a library, in the order in which they were looked into.
    pub fn passed(&self) -> impl Iterator<Item = &Path> {
        self.passed.iter().flat_map(|(_, paths)| paths).map(PathBuf::as_path)
    }
}

/// Where the plugins come from, as a sentence.
impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        match self.from {
            None => write!(formatter, "plugins: none found"),
            Some(Place::Variable) => write!(formatter, "plugins: {} (from `{VARIABLE}`)", paths.join(", ")),
            Some(Place::BesideProgram) => write!(formatter, "plugins: {} (found beside the program)", paths.join(", ")),
        }
    }
}

/// The folders beside a program: `plugins` in its own folder, and in the folder above where Cargo built it, since
/// `target/release/host` has its plugins in `target/plugins`.
fn beside(program: &Path) -> Vec<PathBuf> {
    const PROFILES: [&str; 2] = ["release", "debug"];
    let Some(folder) = program.parent() else { return Vec::new() };
    let built_by_cargo = folder.file_name().is_some_and(|name| PROFILES.iter().any(|profile| name == *profile));
    let above = if built_by_cargo { folder.parent() } else { None };
    std::iter::once(folder).chain(above).map(|folder| folder.join("plugins")).collect()
}

fn holds_library(path: &Path) -> bool {
    path.is_file() || (path.is_dir() && libraries_in(path).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a program in `target/release`, and libraries at `libraries`.
    fn folder(libraries: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        for library in libraries {
            let path = folder.path().join(library).with_extension(std::env::consts::DLL_EXTENSION);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let program = folder.path().join("target/release/host");
        (folder, program)
    }

    #[test]
    fn the_first_place_with_a_library_is_taken() {
        let (folder, program) = folder(&["mine/a", "target/plugins/b", "target/release/plugins/c", "target/release/d"]);
        let at = |path: &str| folder.path().join(path);
        let found = |variable: Option<PathBuf>| Found::among(variable.map(Into::into), Some(&program));
        assert_eq!(found(Some(at("mine"))).paths, [at("mine")]);
        assert_eq!(found(None).paths, [at("target/release/plugins")]);
        assert_eq!(found(Some(PathBuf::new())).paths, [at("target/release/plugins")]);
        std::fs::remove_dir_all(at("target/release/plugins")).unwrap();
        let beside = found(Some(at("nowhere")));
        assert_eq!(beside.paths, [at("target/plugins")]);
        assert_eq!(beside.empty_variable(), Some([at("nowhere")].as_slice()));
        // The libraries of a build also hold those that are no plugins.
        std::fs::remove_dir_all(at("target/plugins")).unwrap();
        assert!(found(None).paths.is_empty());
        assert_eq!(found(None).passed().collect::<Vec<_>>(), [at("target/release/plugins"), at("target/plugins")]);
    }

    #[test]
    fn a_variable_with_several_paths_is_one_place() {
        let (folder, _) = folder(&["a/one", "b/two"]);
        let paths = [folder.path().join("a"), folder.path().join("b")];
        let found = Found::among(Some(std::env::join_paths(&paths).unwrap()), None);
        assert_eq!(found.paths, paths);
    }
}
