//! Published files, as the plugin uploads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::names;

/// The deepest nesting of folders; links may form a loop.
const DEEPEST: usize = 16;

/// The files of a published path (a file or a folder) by their names on the server.
pub(crate) fn files(run_folder: &Path, published: &str) -> BTreeMap<String, PathBuf> {
    let path = run_folder.join(published);
    // A file outside the run folder keeps only its own name.
    let name = match path.strip_prefix(run_folder) {
        Ok(inside) => inside.to_string_lossy().into_owned(),
        Err(_) => path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
    };
    let mut found = BTreeMap::new();
    collect(&path, &name, DEEPEST, &mut found);
    found
}

fn collect(path: &Path, name: &str, depth: usize, into: &mut BTreeMap<String, PathBuf>) {
    if path.is_file() {
        into.insert(names::name(name), path.to_owned());
        return;
    }
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        collect(&entry.path(), &format!("{name}/{}", entry.file_name().to_string_lossy()), depth, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("exports/deep")).unwrap();
        for file in ["exports/a.onnx", "exports/deep/b"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let names = |published: &str| files(folder.path(), published).into_keys().collect::<Vec<_>>();
        assert_eq!(names("exports"), ["exports/a.onnx", "exports/deep/b"]);
        assert_eq!(names("exports/a.onnx"), ["exports/a.onnx"]);
        assert_eq!(names("gone"), Vec::<String>::new());
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        let path = elsewhere.path().display().to_string();
        assert_eq!(names(&path), [elsewhere.path().file_name().unwrap().to_string_lossy().into_owned()]);
    }
}
