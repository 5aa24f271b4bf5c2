//! The modules beside a file of Python, which it may import: with a lock, these only, and as they were locked.

use std::path::{Path, PathBuf};

use super::mark;
use crate::checksum::Checksum;
use crate::neighbors::Neighbor;
use crate::regular_file::{self, LARGEST, NotRead};

/// The most modules that are looked for.
const MOST: usize = 256;

/// How deep packages lie within each other, at most.
const DEEPEST: usize = 8;

/// The modules in the folder of the file at `path`: other files without a mark, and packages with all of theirs.
///
/// # Errors
///
/// One that is there and cannot be read.
pub(crate) fn beside(path: &Path) -> Result<Vec<Neighbor>, (PathBuf, NotRead)> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    collect(folder, "", 0, &mut files)?;
    // Another plugin is listed for itself.
    files.retain(|file| file.contains('/') || mark::kinds_of(&folder.join(file)).is_ok_and(|kinds| kinds.is_empty()));
    files.sort();
    files.truncate(MOST);
    let sum = |file: String| {
        let path = folder.join(&file);
        let bytes = regular_file::read(&path, LARGEST).map_err(|error| (path, error))?;
        Ok(Neighbor { file, size: bytes.len() as u64, sha256: Checksum::of(&bytes) })
    };
    files.into_iter().map(sum).collect()
}

/// Appends the files of Python in `folder`, whose path from the first folder is `within`, and those of packages in it.
fn collect(folder: &Path, within: &str, depth: usize, files: &mut Vec<String>) -> Result<(), (PathBuf, NotRead)> {
    let unreadable = |source: std::io::Error| (folder.to_owned(), NotRead::from(source));
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = entry.path();
        let is_package = depth < DEEPEST && path.join("__init__.py").is_file();
        if is_package && is_module(&name) {
            collect(&path, &format!("{within}{name}/"), depth + 1, files)?;
        } else if name.strip_suffix(".py").is_some_and(is_module) && path.is_file() {
            files.push(format!("{within}{name}"));
        }
    }
    Ok(())
}

/// Whether a module may have this name.
fn is_module(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|character| character.is_alphanumeric() || character == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_packages_are_found_and_other_plugins_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("mine.py", "# host-plugin: mine\nimport helpers\n");
        write("other.py", "# host-plugin: other\n");
        write("helpers.py", "one = 1\n");
        write("not-a-module.py", "");
        write("notes.txt", "");
        write("parts/__init__.py", "");
        write("parts/deep/__init__.py", "");
        write("parts/deep/most.py", "");
        write("folder/no_package.py", "");
        let found = beside(&folder.path().join("mine.py")).unwrap();
        let files: Vec<&str> = found.iter().map(|module| module.file.as_str()).collect();
        assert_eq!(files, ["helpers.py", "parts/__init__.py", "parts/deep/__init__.py", "parts/deep/most.py"]);
        assert_eq!((found[0].size, found[0].sha256), (8, Checksum::of(b"one = 1\n")));
    }
}
