//! The kinds that the plugin folders of a run offer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin_api::protocol::Descriptor;

use super::error::{CatalogueError, LoadError};
use super::library::Library;

/// A kind of callback and the library that has it.
#[derive(Clone)]
pub struct Kind {
    pub(super) library: Arc<Library>,
    pub(super) index: u32,
}

impl Kind {
    /// What the kind says of itself.
    pub fn descriptor(&self) -> &Descriptor {
        &self.library.descriptors()[self.index as usize]
    }

    /// The library's file.
    pub fn path(&self) -> &Path {
        self.library.path()
    }

    /// The library.
    pub fn library(&self) -> &Library {
        &self.library
    }
}

/// A file of a folder that could not be loaded: a warning, unless the run needs it.
#[derive(Debug)]
pub struct Rejected {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: LoadError,
}

/// Every kind found, by file name and then in the library's own order.
#[derive(Default)]
pub struct Catalogue {
    kinds: Vec<Kind>,
    rejected: Vec<Rejected>,
}

impl Catalogue {
    /// Loads the libraries at `paths`: each a library file, or a folder, which is not searched recursively.
    ///
    /// # Errors
    ///
    /// A missing path, a folder without libraries, a named file that cannot be loaded, or two
    /// libraries with one kind. A file of a folder that cannot be loaded is in [`Self::rejected`].
    pub fn load(paths: &[PathBuf]) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::default();
        for path in paths {
            if path.is_dir() {
                for file in libraries_in(path)? {
                    match Library::open(&file) {
                        Ok(library) => catalogue.add(library)?,
                        Err(error) => catalogue.rejected.push(Rejected { path: file, error }),
                    }
                }
            } else if path.exists() {
                catalogue.add(Library::open(path)?)?;
            } else {
                return Err(CatalogueError::Missing { path: path.clone() });
            }
        }
        Ok(catalogue)
    }

    fn add(&mut self, library: Library) -> Result<(), CatalogueError> {
        let library = Arc::new(library);
        let already = self.kinds.iter().any(|kind| same_file(kind.path(), library.path()));
        if already {
            // `--plugins DIR --plugins DIR/libmine.so` names it twice.
            return Ok(());
        }
        for index in 0..library.descriptors().len() {
            let kind = Kind { library: Arc::clone(&library), index: index as u32 };
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

    /// The files of the folders that could not be loaded.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }
}

fn same_file(first: &Path, second: &Path) -> bool {
    match (first.canonicalize(), second.canonicalize()) {
        (Ok(first), Ok(second)) => first == second,
        _ => first == second,
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
    if files.is_empty() {
        return Err(CatalogueError::Empty { path: folder.to_owned(), extension });
    }
    files.sort();
    Ok(files)
}
