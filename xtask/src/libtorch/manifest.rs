//! The list of files in a finished libtorch folder, which verifies it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::error::{FileContext, Result};

const FILE_NAME: &str = "manifest.tsv";

/// The files of a libtorch folder and their sizes in bytes.
///
/// Sizes are enough to find what happens in practice (a full disk, an interrupted copy, a deleted file) in a
/// tenth of a second; the wheels' own checksums are verified when they are extracted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// By path relative to the folder, with `/` between its parts.
    files: BTreeMap<String, u64>,
}

/// Why a folder is not a finished libtorch folder.
#[derive(Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// There is no folder.
    Absent,
    /// The folder has no readable list of its files.
    Unlisted,
    /// The folder was made for another version or platform.
    Other {
        /// The version or platform that it was made for.
        found: String,
    },
    /// A listed file is missing.
    Missing {
        /// Its path in the folder.
        file: String,
    },
    /// A listed file has another size.
    Size {
        /// Its path in the folder.
        file: String,
        /// In bytes.
        found: u64,
        /// In bytes.
        expected: u64,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(formatter, "does not exist"),
            Self::Unlisted => write!(formatter, "has no list of its files"),
            Self::Other { found } => write!(formatter, "was made for {found}"),
            Self::Missing { file } => write!(formatter, "does not have `{file}`"),
            Self::Size { file, found, expected } => {
                write!(formatter, "has `{file}` with {found} bytes instead of {expected}")
            }
        }
    }
}

impl Manifest {
    /// Records a file that was written.
    pub fn insert(&mut self, file: String, bytes: u64) {
        self.files.insert(file, bytes);
    }

    /// Whether a file was recorded.
    pub fn contains(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// The number of recorded files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Writes the list into its folder; `made_for` says the version and platform.
    pub fn write(&self, folder: &Path, made_for: &str) -> Result<()> {
        let mut text = format!("{made_for}\n");
        for (file, bytes) in &self.files {
            text.push_str(&format!("{bytes}\t{file}\n"));
        }
        let path = folder.join(FILE_NAME);
        std::fs::write(&path, text).on("write", &path)
    }

    /// Compares a folder with the list in it. Files that are not in the list are ignored.
    pub fn verify(folder: &Path, made_for: &str) -> std::result::Result<Self, Mismatch> {
        if !folder.is_dir() {
            return Err(Mismatch::Absent);
        }
        let text = std::fs::read_to_string(folder.join(FILE_NAME)).map_err(|_| Mismatch::Unlisted)?;
        let mut lines = text.lines();
        let found = lines.next().ok_or(Mismatch::Unlisted)?;
        if found != made_for {
            return Err(Mismatch::Other { found: found.to_owned() });
        }
        let mut manifest = Self::default();
        for line in lines {
            let (bytes, file) = line.split_once('\t').ok_or(Mismatch::Unlisted)?;
            let expected = bytes.parse::<u64>().map_err(|_| Mismatch::Unlisted)?;
            match std::fs::metadata(folder.join(file)) {
                Ok(metadata) if metadata.len() == expected => {
                    manifest.insert(file.to_owned(), expected);
                }
                Ok(metadata) => {
                    let (file, found) = (file.to_owned(), metadata.len());
                    return Err(Mismatch::Size { file, found, expected });
                }
                Err(_) => {
                    return Err(Mismatch::Missing { file: file.to_owned() });
                }
            }
        }
        if manifest.files.is_empty() {
            return Err(Mismatch::Unlisted);
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE_FOR: &str = "libtorch 2.11.0 for linux x86_64";

    fn finished_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lib")).unwrap();
        std::fs::write(folder.path().join("lib/libc10.so"), b"twelve bytes").unwrap();
        std::fs::write(folder.path().join("build-version"), b"2.11.0\n").unwrap();
        let mut manifest = Manifest::default();
        manifest.insert("lib/libc10.so".to_owned(), 12);
        manifest.insert("build-version".to_owned(), 7);
        manifest.write(folder.path(), MADE_FOR).unwrap();
        folder
    }

    #[test]
    fn a_finished_folder_verifies() {
        let folder = finished_folder();
        assert_eq!(Manifest::verify(folder.path(), MADE_FOR).unwrap().len(), 2);
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let folder = finished_folder();
        assert_eq!(Manifest::verify(&folder.path().join("nothing"), MADE_FOR), Err(Mismatch::Absent));
        assert_eq!(
            Manifest::verify(folder.path(), "libtorch 2.12.0 for linux x86_64"),
            Err(Mismatch::Other { found: MADE_FOR.to_owned() })
        );

        let library = folder.path().join("lib/libc10.so");
        std::fs::write(&library, b"twelve").unwrap();
        assert_eq!(
            Manifest::verify(folder.path(), MADE_FOR),
            Err(Mismatch::Size { file: "lib/libc10.so".to_owned(), found: 6, expected: 12 })
        );

        std::fs::remove_file(&library).unwrap();
        assert_eq!(
            Manifest::verify(folder.path(), MADE_FOR),
            Err(Mismatch::Missing { file: "lib/libc10.so".to_owned() })
        );

        for text in ["", MADE_FOR, &format!("{MADE_FOR}\nno number"), &format!("{MADE_FOR}\nx\ty")] {
            std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
            assert_eq!(Manifest::verify(folder.path(), MADE_FOR), Err(Mismatch::Unlisted), "{text:?}");
        }
    }
}
