//! The kinds that the plugin folders of a run offer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use host_command::report::Problem;
use plugin_api::protocol::Descriptor;

use super::descriptor_cache::{Description, DescriptorCache};
use super::error::{CatalogueError, LoadError};
use super::inspect::inspect;
use super::library::{self, Library};
use super::lock::{Admission, Expected, Lock, LockedKind, Refusal};
use super::process::Isolation;
use super::python::{self, Starter};
use super::regular_file::{self, LARGEST};
use super::trust::{self, Exposed};

/// A kind of callback and the library that has it, which is opened when it is used.
#[derive(Clone)]
pub struct Kind {
    listed: Arc<Listed>,
    pub(super) index: u32,
}

impl Kind {
    /// What the kind says of itself.
    pub fn descriptor(&self) -> &Descriptor {
        &self.listed.description.descriptors[self.index as usize]
    }

    /// The library's file, or that of a plugin in Python.
    pub fn path(&self) -> &Path {
        &self.listed.path
    }

    /// Whether it runs in a process of its own, whatever the run file says: it is in Python.
    pub fn is_apart(&self) -> bool {
        self.listed.starter.is_some()
    }

    /// What starts the process of a plugin in Python.
    pub(super) fn starter(&self) -> Option<&Starter> {
        self.listed.starter.as_ref()
    }

    /// The kind of a plugin in Python.
    pub(super) fn in_python(
        path: &Path,
        description: Description,
        starter: Starter,
        expected: Option<Expected>,
    ) -> impl Iterator<Item = Kind> {
        let count = description.descriptors.len() as u32;
        let starter = Some(starter);
        let listed = Arc::new(Listed { starter, ..Listed::new(path, description, expected, OnceLock::new()) });
        (0..count).map(move |index| Kind { listed: Arc::clone(&listed), index })
    }

    /// What built the library: SDK, compiler and target.
    pub fn build(&self) -> &str {
        &self.listed.description.build
    }

    /// What the lock says that the library's file must be, or what a file of Python was when it was described.
    pub fn expected(&self) -> Option<&Expected> {
        self.listed.expected.as_ref()
    }

    /// The library, which is opened unless it is open.
    ///
    /// # Errors
    ///
    /// See [`LoadError`].
    pub fn library(&self) -> Result<&Library, LoadError> {
        self.listed.library()
    }
}

/// A library and what it said of itself, now or when it was opened last.
struct Listed {
    path: PathBuf,
    description: Description,
    expected: Option<Expected>,
    library: OnceLock<Library>,
    starter: Option<Starter>,
    /// Held while it is opened, which happens once.
    opening: Mutex<()>,
}

impl Listed {
    /// A library that is opened only if it is not cached.
    fn find(path: &Path, cache: &DescriptorCache, expected: Option<Expected>) -> Result<Listed, LoadError> {
        match cache.recall(path, expected.as_ref().map(|expected| &expected.sha256)) {
            Some(description) => Ok(Listed::new(path, description, expected, OnceLock::new())),
            None => Listed::open(path, cache, expected),
        }
    }

    fn open(path: &Path, cache: &DescriptorCache, expected: Option<Expected>) -> Result<Listed, LoadError> {
        let library = Library::open_cached(path, cache, expected.as_ref())?;
        Ok(Listed::new(path, library.description(), expected, OnceLock::from(library)))
    }

    /// A library that describes itself in a process of its own, unless it is cached.
    fn find_apart(
        path: &Path,
        cache: &DescriptorCache,
        expected: Option<Expected>,
        isolation: &Isolation,
    ) -> Result<Listed, LoadError> {
        if let Some(description) = cache.recall(path, expected.as_ref().map(|expected| &expected.sha256)) {
            return Ok(Listed::new(path, description, expected, OnceLock::new()));
        }
        let before = path.metadata();
        let bytes = library::read(path)?;
        inspect(path, &bytes)?;
        let description = describe_apart(path, expected.as_ref(), isolation)?;
        if let Ok(before) = before {
            cache.keep_unchanged(path, &before, &bytes, description.clone());
        }
        Ok(Listed::new(path, description, expected, OnceLock::new()))
    }

    fn new(path: &Path, description: Description, expected: Option<Expected>, library: OnceLock<Library>) -> Listed {
        let path = path.to_owned();
        Listed { path, description, expected, library, starter: None, opening: Mutex::new(()) }
    }

    fn library(&self) -> Result<&Library, LoadError> {
        if self.starter.is_some() {
            return Err(LoadError::NotInProcess { path: self.path.clone() });
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = self.library.get() {
            return Ok(library);
        }
        // A wrong entry of the cache is put right for the next start.
        let library = Library::open_cached(&self.path, &DescriptorCache::of_user(), self.expected.as_ref())?;
        let kinds = |descriptors: &[Descriptor]| serde_json::to_string(descriptors).unwrap_or_default();
        if kinds(library.descriptors()) != kinds(&self.description.descriptors) {
            return Err(LoadError::Changed { path: self.path.clone() });
        }
        Ok(self.library.get_or_init(|| library))
    }
}

#[cfg(target_os = "linux")]
fn describe_apart(path: &Path, expected: Option<&Expected>, isolation: &Isolation) -> Result<Description, LoadError> {
    super::process::describe(path, expected, isolation)
}

#[cfg(not(target_os = "linux"))]
fn describe_apart(path: &Path, _: Option<&Expected>, _: &Isolation) -> Result<Description, LoadError> {
    Err(LoadError::NoIsolation { path: path.to_owned() })
}

/// A file of a folder that could not be loaded: a warning, unless the run needs it.
#[derive(Debug)]
pub struct Rejected {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: LoadError,
}

/// A source file of Python that says its kinds.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) kinds: Vec<String>,
    /// Whether it was named, and not found in a folder.
    pub(super) is_named: bool,
    /// What a lock says that it must be.
    pub(super) locked: Option<Expected>,
    /// The kinds that the lock says of it.
    pub(super) locked_kinds: Vec<LockedKind>,
}

/// Every kind found, by file name and then in the library's own order.
#[derive(Default)]
pub struct Catalogue {
    pub(super) kinds: Vec<Kind>,
    /// Their files, by whichever way these were named.
    files: BTreeSet<PathBuf>,
    pub(super) rejected: Vec<Rejected>,
    exposed: Vec<Exposed>,
    /// The source files of Python that say their kinds, and were not opened yet.
    pub(super) sources: Vec<Source>,
    /// The kinds of entries of a run file that say themselves what they run, by their places there.
    pub(super) chosen: BTreeMap<usize, Kind>,
    /// Whether only what a lock lists is opened.
    pub(super) is_locked: bool,
}

impl Catalogue {
    /// Finds the libraries at `paths`, each a library file or a folder (which is not searched recursively), and opens those that
    /// are not cached.
    ///
    /// # Errors
    ///
    /// A missing path, a folder without libraries, a named file that cannot be loaded, or two
    /// libraries with one kind. A file of a folder that cannot be loaded is in [`Self::rejected`].
    pub fn load(paths: &[PathBuf]) -> Result<Self, CatalogueError> {
        Self::load_with(paths, None, None)
    }

    /// As [`Self::load`]; with the file of a lock, only what it lists is opened. Where there is an `isolation`, a library that is
    /// not cached is opened in a process of its own: nothing of it runs in this one.
    ///
    /// # Errors
    ///
    /// Those of [`Self::load`], and all that the lock refuses.
    pub fn load_with(
        paths: &[PathBuf],
        lock: Option<&Path>,
        isolation: Option<&Isolation>,
    ) -> Result<Self, CatalogueError> {
        let cache = DescriptorCache::of_user();
        let find = |path: &Path, expected: Option<Expected>| match isolation {
            Some(isolation) => Listed::find_apart(path, &cache, expected, isolation).map(Some),
            None => Listed::find(path, &cache, expected).map(Some),
        };
        let Some(lock_file) = lock else {
            return Self::of(paths, |path| find(path, None));
        };
        let refused = |refusals| CatalogueError::Refused { lock: lock_file.to_owned(), refusals };
        let lock = Lock::read(lock_file)?;
        let mut files = Vec::new();
        for path in paths {
            if path.is_dir() {
                files.extend(libraries_in(path)?);
                files.extend(python::sources_in(path).into_iter().map(|(path, _)| path));
            } else {
                files.push(path.clone());
            }
        }
        files.retain(|path| path.exists());
        let admission = Admission::check(&lock, lock_file, &files).map_err(refused)?;
        let mut catalogue = Self::of(paths, |path| match admission.expected(path) {
            Some(expected) => find(path, Some(expected)),
            // Never opened; what is no file says so.
            None => regular_file::open(path, LARGEST)
                .map(|_| None)
                .map_err(|detail| LoadError::NoFile { path: path.to_owned(), detail }),
        })?;
        catalogue.is_locked = true;
        // One that the lock does not list, and that is not refused, is never opened.
        let of_source = |source: Source| {
            let locked = Some(admission.expected(&source.path)?);
            Some(Source { locked, locked_kinds: admission.kinds(&source.path), ..source })
        };
        catalogue.sources = std::mem::take(&mut catalogue.sources).into_iter().filter_map(of_source).collect();
        let first_kinds = catalogue.kinds.iter().filter(|kind| kind.index == 0);
        let refusals: Vec<Refusal> = first_kinds
            .filter_map(|kind| admission.check_kinds(kind.path(), &kind.listed.description.descriptors).err())
            .collect();
        if refusals.is_empty() { Ok(catalogue) } else { Err(refused(refusals)) }
    }

    /// As [`Self::load`], but each library is opened, whatever is cached of it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::load`].
    pub fn open(paths: &[PathBuf]) -> Result<Self, CatalogueError> {
        let cache = DescriptorCache::of_user();
        Self::of(paths, |path| Listed::open(path, &cache, None).map(Some))
    }

    /// Lists every file by `list`, which may pass one over.
    fn of(
        paths: &[PathBuf],
        list: impl Fn(&Path) -> Result<Option<Listed>, LoadError>,
    ) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::default();
        for path in paths {
            if path.is_dir() {
                let sources = python::sources_in(path).into_iter();
                catalogue.sources.extend(sources.map(|(path, kinds)| Source {
                    path,
                    kinds,
                    is_named: false,
                    locked: None,
                    locked_kinds: Vec::new(),
                }));
                catalogue.expose(trust::open_folder(path));
                for file in libraries_in(path)? {
                    match list(&file) {
                        Ok(listed) => listed.into_iter().try_for_each(|listed| catalogue.add(listed))?,
                        Err(error) => catalogue.rejected.push(Rejected { path: file, error }),
                    }
                }
            } else if python::is_source(path) && path.exists() {
                let unreadable = |source| LoadError::Unreadable { path: path.clone(), source };
                let kinds = python::kinds_of(path).map_err(unreadable)?;
                if kinds.is_empty() {
                    return Err(LoadError::NoMark { path: path.clone() }.into());
                }
                let (path, locked_kinds) = (path.clone(), Vec::new());
                catalogue.sources.push(Source { path, kinds, is_named: true, locked: None, locked_kinds });
            } else if path.exists() {
                if let Some(listed) = list(path)? {
                    catalogue.add(listed)?;
                }
            } else {
                return Err(CatalogueError::Missing { path: path.clone() });
            }
        }
        Ok(catalogue)
    }

    fn add(&mut self, listed: Listed) -> Result<(), CatalogueError> {
        let listed = Arc::new(listed);
        let count = listed.description.descriptors.len() as u32;
        self.add_kinds((0..count).map(|index| Kind { listed: Arc::clone(&listed), index }).collect())
    }

    /// Adds the kinds of one file, unless it is there already.
    pub(super) fn add_kinds(&mut self, kinds: Vec<Kind>) -> Result<(), CatalogueError> {
        let Some(path) = kinds.first().map(Kind::path) else { return Ok(()) };
        if !self.files.insert(path.canonicalize().unwrap_or_else(|_| path.to_owned())) {
            // `--plugins DIR --plugins DIR/libmine.so` names it twice.
            return Ok(());
        }
        self.expose(trust::exposed(std::iter::once(path)));
        for kind in kinds {
            if let Some(first) = self.kind(&kind.descriptor().kind) {
                return Err(CatalogueError::Ambiguous {
                    kind: kind.descriptor().kind.clone(),
                    first: first.path().to_owned(),
                    second: kind.path().to_owned(),
                });
            }
            self.kinds.push(kind);
        }
        Ok(())
    }

    /// The kind called `name`.
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.descriptor().kind == name)
    }

    /// Every kind, by file name and then in the library's own order.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    fn expose(&mut self, found: Vec<Exposed>) {
        self.exposed.extend(found.into_iter().filter(|exposed| !self.exposed.contains(exposed)).collect::<Vec<_>>());
    }

    /// What somebody else can change of the libraries, their folders and those above them.
    pub fn exposed(&self) -> &[Exposed] {
        &self.exposed
    }

    /// What a person is told of the folders: files that could not be loaded, and what somebody else can change.
    pub fn warnings(&self) -> Vec<Problem> {
        let rejected = self.rejected.iter().map(|rejected| Problem::from(&rejected.error));
        rejected.chain(self.exposures()).collect()
    }

    /// The files that others can write, and why.
    pub fn exposures(&self) -> Vec<Problem> {
        self.exposed.iter().map(Problem::from).collect()
    }

    /// The files of the folders that could not be loaded.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }
}

/// The library files of a folder, by file name.
pub(super) fn libraries_in(folder: &Path) -> Result<Vec<PathBuf>, CatalogueError> {
    let extension = std::env::consts::DLL_EXTENSION;
    let unlistable = |source| CatalogueError::Unlistable { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unlistable)? {
        let path = entry.map_err(unlistable)?.path();
        if path.extension().is_some_and(|found| found == extension) && !path.is_dir() {
            files.push(path);
        }
    }
    if files.is_empty() && python::sources_in(folder).is_empty() {
        return Err(CatalogueError::Empty { path: folder.to_owned(), extension });
    }
    files.sort();
    Ok(files)
}
