//! The kinds of plugins in Python, among those of the folders.

use std::path::Path;

use super::{Class, Python, describe, expected};
use crate::catalogue::{Catalogue, Kind, Rejected, Source};
use crate::error::{CatalogueError, LoadError};
use crate::lock::same_kinds;

impl Catalogue {
    /// Opens the source files of Python that say a kind which is `wanted`, each in a process of its own.
    ///
    /// # Errors
    ///
    /// A named file that cannot be opened, or a kind that there is already. A file of a folder that cannot be opened is in
    /// [`Self::rejected`].
    pub fn open_sources(&mut self, python: &Python, wanted: impl Fn(&str) -> bool) -> Result<(), CatalogueError> {
        let (opened, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sources)
            .into_iter()
            .partition(|source| source.kinds.iter().any(|kind| wanted(kind)));
        self.sources = left;
        for source in opened {
            match kinds_of(&source, python) {
                Ok(kinds) => self.add_kinds(kinds)?,
                Err(error) if source.is_named => return Err(error.into()),
                Err(error) => self.rejected.push(Rejected { path: source.path, error }),
            }
        }
        Ok(())
    }

    /// The kinds that source files of Python say, and that were not opened.
    pub fn unopened(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().flat_map(|source| &source.kinds).map(String::as_str)
    }

    /// Lets the run file's entry at the place `entry` run a class.
    ///
    /// # Errors
    ///
    /// When there is no Python, or no such class.
    pub fn choose(&mut self, entry: usize, class: &Class, python: &Python) -> Result<(), LoadError> {
        let path = class.file.as_deref().unwrap_or(Path::new(""));
        if self.is_locked {
            return Err(LoadError::NotLocked { path: class.file.clone().unwrap_or_else(|| class.name.clone().into()) });
        }
        let expected = class.file.as_deref().map(expected).transpose()?;
        let starter = python.starter(Some(class), false)?;
        let description = describe(&starter, path, expected.as_ref())?;
        let mut kinds = Kind::in_python(path, description, starter, expected);
        if let Some(kind) = kinds.next() {
            self.chosen.insert(entry, kind);
        }
        Ok(())
    }

    /// The kind of the run file's entry at the place `entry`, which is called `name`.
    pub fn kind_of(&self, entry: usize, name: &str) -> Option<&Kind> {
        self.chosen.get(&entry).or_else(|| self.kind(name))
    }
}

/// The kinds that a source file says.
fn kinds_of(source: &Source, python: &Python) -> Result<Vec<Kind>, LoadError> {
    let Source { path, kinds: marked, locked, locked_kinds, .. } = source;
    let expected = locked.clone().map_or_else(|| expected(path), Ok)?;
    let starter = python.starter(None, locked.is_some())?;
    let description = describe(&starter, path, Some(&expected))?;
    if locked.is_some() {
        same_kinds(path, locked_kinds, &description.descriptors)?;
    }
    let has: Vec<String> = description.descriptors.iter().map(|descriptor| descriptor.kind.clone()).collect();
    if let Some(missing) = marked.iter().find(|kind| !has.contains(kind)) {
        let has = has.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ");
        return Err(LoadError::OtherMark { path: path.clone(), marked: missing.clone(), has });
    }
    let kinds = Kind::in_python(path, description, starter, Some(expected));
    Ok(kinds.filter(|kind| marked.contains(&kind.descriptor().kind)).collect())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::path::PathBuf;

    use host_command::report::Report as _;

    use super::*;

    const MINE: &str = r#"# host-plugin: mine
from host_plugin import Callback

class Mine(Callback):
    """Does nothing."""

    def __init__(self, size: int = 3):
        self.size = size

    def on_epoch_end(self, run, event):
        pass

class Other(Callback):
    pass
"#;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let path = folder.path().to_owned();
        (folder, path)
    }

    fn names(catalogue: &Catalogue) -> Vec<&str> {
        catalogue.kinds().iter().map(|kind| kind.descriptor().kind.as_str()).collect()
    }

    #[test]
    fn a_source_is_opened_only_if_its_kind_is_wanted() {
        let (_folder, path) =
            folder(&[("a.py", MINE), ("b.py", "# host-plugin: broken\n1 / 0\n"), ("c.py", "1 / 0\n")]);
        let mut catalogue = Catalogue::load(std::slice::from_ref(&path)).unwrap();
        assert!(names(&catalogue).is_empty());
        assert_eq!(catalogue.unopened().collect::<Vec<_>>(), ["mine", "broken"]);
        catalogue.open_sources(&Python::default(), |kind| kind == "mine").unwrap();
        assert_eq!(names(&catalogue), ["mine"]);
        let kind = catalogue.kind("mine").unwrap();
        assert_eq!((kind.descriptor().hooks.as_slice(), kind.is_apart()), (["epoch_end".to_owned()].as_slice(), true));
        assert!(!kind.descriptor().by_default);
        assert_eq!(kind.descriptor().options.as_ref().unwrap()["properties"]["size"]["default"], 3);
        assert!(kind.build().contains("CPython"), "{}", kind.build());
        catalogue.open_sources(&Python::default(), |_| true).unwrap();
        let rejected = &catalogue.rejected()[0];
        let place = format!("ZeroDivisionError: division by zero ({}:2)", path.join("b.py").display());
        assert!(rejected.error.to_string().contains(&place), "{}", rejected.error);
    }

    #[test]
    fn what_a_file_says_must_be_what_it_has() {
        let (_folder, path) = folder(&[("a.py", &MINE.replace("plugin: mine", "plugin: mime"))]);
        let mut catalogue = Catalogue::load(&[path.join("a.py")]).unwrap();
        let error = catalogue.open_sources(&Python::default(), |_| true).unwrap_err();
        let expected = format!("`{}` says `# host-plugin: mime`, and has `mine`, `other`", path.join("a.py").display());
        assert_eq!(error.to_string(), expected);
        let (_folder, path) = folder(&[("a.py", "x = 1\n")]);
        let error = Catalogue::load(&[path.join("a.py")]).err().unwrap();
        assert!(error.to_string().ends_with("has no line `# host-plugin: KIND`"), "{error}");
        assert!(Catalogue::load(&[path]).err().unwrap().to_string().contains("holds no"));
    }

    #[test]
    fn a_class_is_chosen_for_an_entry() {
        let (_folder, path) = folder(&[("a.py", MINE)]);
        let mut catalogue = Catalogue::default();
        let class = |name: &str| Class { file: Some(path.join("a.py")), name: name.to_owned(), ..Class::default() };
        catalogue.choose(2, &class("Mine"), &Python::default()).unwrap();
        assert!(catalogue.kind_of(1, "python").is_none());
        let descriptor = catalogue.kind_of(2, "python").unwrap().descriptor();
        assert_eq!(descriptor.kind, "python");
        assert_eq!(descriptor.options.as_ref().unwrap()["properties"]["file"]["format"], "input-path");
        let error = catalogue.choose(0, &class("Mime"), &Python::default()).unwrap_err();
        assert!(error.to_string().ends_with("has no class `Mime`"), "{error}");
        assert_eq!(error.hint().as_deref(), Some("it has Mine, Other"));
        let error = catalogue.choose(0, &class(""), &Python::default()).unwrap_err();
        assert!(error.to_string().ends_with("has 2 callbacks: Mine, Other"), "{error}");
    }

    #[test]
    fn there_must_be_a_python_that_is_new_enough() {
        let (_folder, path) = folder(&[("a.py", MINE)]);
        let mut catalogue = Catalogue::load(&[path.join("a.py")]).unwrap();
        let nowhere = Python::new(Some(PathBuf::from("/nowhere/python3")));
        let error = catalogue.open_sources(&nowhere, |_| true).unwrap_err();
        let expected = "`/nowhere/python3` cannot be started for the plugin";
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.hint().unwrap(), "install Python 3.9 or newer, or name one with `[run] python`");
    }
}
