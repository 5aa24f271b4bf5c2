//! The files of a folder of images.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::data::DataError;

/// The extensions of images, in any case.
pub(super) const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif"];

/// The images of a folder of classes.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of the classes; those of a class in the order of their paths.
    pub(super) files: Vec<PathBuf>,
    /// How many files were left out, by what they are.
    left_out: BTreeMap<String, usize>,
}

impl Found {
    /// Adds the images of a class: those in `folder` and in the folders within it.
    ///
    /// # Errors
    ///
    /// A folder that cannot be read, or a link that leads back to a folder around it.
    pub(super) fn add_class(&mut self, folder: &Path) -> Result<(), DataError> {
        self.add(folder, &mut Vec::new())
    }

    /// Counts what lies beside the folders of the classes.
    pub(super) fn count_beside(&mut self, folder: &Path) -> Result<(), DataError> {
        for path in entries(folder)? {
            if is_hidden(&path) || !path.is_dir() {
                self.leave_out(&path);
            }
        }
        Ok(())
    }

    /// What is said about the files that were left out.
    pub(super) fn note(&self, folder: &Path) -> Option<String> {
        let count: usize = self.left_out.values().sum();
        let kinds: Vec<String> = self.left_out.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        (count > 0).then(|| {
            let files = if count == 1 { "file is" } else { "files are" };
            format!(
                "`{}`: {count} {files} left out: {}; images in the folder of a class are read, with the extensions {}",
                folder.display(),
                kinds.join(", "),
                EXTENSIONS.map(|extension| format!("`.{extension}`")).join(", ")
            )
        })
    }

    /// `around` are the folders around this one.
    fn add(&mut self, folder: &Path, around: &mut Vec<PathBuf>) -> Result<(), DataError> {
        let here = folder.canonicalize().map_err(|source| DataError::Read { path: folder.to_owned(), source })?;
        if around.contains(&here) {
            return Err(DataError::Malformed {
                path: folder.to_owned(),
                problem: "is a link that leads back to a folder around it".to_owned(),
                hint: Some("remove the link, since its images would be found without end"),
            });
        }
        around.push(here);
        for path in entries(folder)? {
            if is_hidden(&path) {
                self.leave_out(&path);
            } else if path.is_dir() {
                self.add(&path, around)?;
            } else if is_image(&path) {
                self.files.push(path);
            } else {
                self.leave_out(&path);
            }
        }
        around.pop();
        Ok(())
    }

    fn leave_out(&mut self, path: &Path) {
        let kind = match path.extension().map(OsStr::to_ascii_lowercase) {
            _ if is_hidden(path) => "hidden".to_owned(),
            _ if is_image(path) => "beside the folders of the classes".to_owned(),
            Some(extension) => format!("`.{}`", extension.display()),
            None => "without an extension".to_owned(),
        };
        *self.left_out.entry(kind).or_default() += 1;
    }
}

/// The names of the folders in a folder, in alphabetical order; at least one.
pub(super) fn classes(folder: &Path) -> Result<Vec<String>, DataError> {
    let names = folders(folder)?;
    if names.is_empty() {
        return Err(DataError::malformed(folder, "has no folders: each class needs one"));
    }
    Ok(names)
}

/// The names of the folders in a folder, in alphabetical order.
pub(super) fn folders(folder: &Path) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for path in entries(folder)?.into_iter().filter(|path| !is_hidden(path) && path.is_dir()) {
        match path.file_name().and_then(OsStr::to_str) {
            Some(name) => names.push(name.to_owned()),
            None => return Err(DataError::malformed(&path, "is the folder of a class, but its name is not UTF-8")),
        }
    }
    Ok(names)
}

/// The content of a folder, in alphabetical order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read = |source| DataError::Read { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(read)?;
    let mut entries: Vec<PathBuf> =
        entries.map(|entry| Ok(entry.map_err(read)?.path())).collect::<Result<_, DataError>>()?;
    entries.sort_unstable();
    Ok(entries)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
}
