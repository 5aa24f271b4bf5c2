//! Python wheels with libtorch: pip downloads them, and they are read as zip files.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::manifest::Manifest;
use crate::error::{Error, FileContext, Result};
use crate::prerequisites::Python;
use crate::process;
use crate::workspace::Workspace;

/// One wheel, by its name and version for pip.
#[derive(Clone, Copy, Debug)]
pub struct Wheel {
    /// The distribution's name.
    pub name: &'static str,
    /// Its exact version.
    pub version: &'static str,
}

impl Wheel {
    /// The wheel's file: a complete one from an interrupted set-up, or else a new one.
    pub fn obtain(&self, workspace: &Workspace) -> Result<PathBuf> {
        let downloads = workspace.downloads();
        std::fs::create_dir_all(&downloads).on("create", &downloads)?;
        let requirement = format!("{}=={}", self.name, self.version);
        if let Some(path) = self.find_complete(&downloads)? {
            eprintln!("libtorch: {requirement} is already downloaded");
            return Ok(path);
        }
        eprintln!("libtorch: downloading {requirement}");
        let mut pip = Python::find()?.pip();
        pip.args(["download", "--no-deps", "--only-binary=:all:"]);
        // The same Python version for everybody: the libraries are the same, and pip does not have a wheel for every
        // Python version. pip moves only finished files to `--dest`.
        pip.args(["--implementation", "cp", "--python-version", "3.11"]);
        process::run(pip.arg("--dest").arg(&downloads).arg(&requirement))?;
        self.find_complete(&downloads)?.ok_or(Error::WheelNotFetched { requirement, folder: downloads })
    }

    /// Looks for the wheel among the downloads, and removes an incomplete file of its name.
    fn find_complete(&self, downloads: &Path) -> Result<Option<PathBuf>> {
        let prefix = format!("{}-{}-", self.name.replace('-', "_"), self.version);
        for entry in downloads.read_dir().on("read", downloads)? {
            let path = entry.on("read", downloads)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with(&prefix) || !name.ends_with(".whl") {
                continue;
            }
            if open(&path).is_ok() {
                return Ok(Some(path));
            }
            eprintln!("libtorch: `{name}` is incomplete; downloading it again");
            std::fs::remove_file(&path).on("remove", &path)?;
        }
        Ok(None)
    }
}

/// Opens a wheel. A zip file's table of contents is its end, so a truncated file does not open.
fn open(path: &Path) -> zip::result::ZipResult<ZipArchive<BufReader<File>>> {
    ZipArchive::new(BufReader::new(File::open(path)?))
}

/// Writes the files of a wheel for which `place` returns a path in `folder`, and records them.
///
/// `place` maps a path in the wheel to one relative to `folder`, both with `/` between their parts.
/// A wheel whose contents do not match their checksums is removed, so that the next set-up downloads it.
pub fn extract(
    wheel: &Path,
    folder: &Path,
    place: impl Fn(&str) -> Option<String>,
    manifest: &mut Manifest,
) -> Result<()> {
    let outcome = extract_undamaged(wheel, folder, place, manifest);
    if let Err(Error::DamagedWheel { path, .. }) = &outcome {
        std::fs::remove_file(path).on("remove", path)?;
    }
    outcome
}

fn extract_undamaged(
    wheel: &Path,
    folder: &Path,
    place: impl Fn(&str) -> Option<String>,
    manifest: &mut Manifest,
) -> Result<()> {
    let damaged = |source: ZipError| Error::DamagedWheel { path: wheel.to_owned(), source };
    let mut archive = open(wheel).map_err(damaged)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(damaged)?;
        // A path that leaves the folder is not one of ours.
        if entry.is_dir() || entry.enclosed_name().is_none() {
            continue;
        }
        let Some(relative) = place(entry.name()) else {
            continue;
        };
        let path = folder.join(&relative);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).on("create", parent)?;
        }
        let mut file = BufWriter::new(File::create(&path).on("create", &path)?);
        let bytes = io::copy(&mut entry, &mut file).map_err(|source| match source.kind() {
            // Errors of the zip reader; all other kinds come from the disk.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
                damaged(ZipError::Io(source))
            }
            _ => Error::File { action: "write", path: path.clone(), source },
        })?;
        file.flush().on("write", &path)?;
        manifest.insert(relative, bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::write::{SimpleFileOptions, ZipWriter};

    const WHEEL: Wheel = Wheel { name: "some-torch", version: "2.11.0" };
    const FILE_NAME: &str = "some_torch-2.11.0-cp311-cp311-linux_x86_64.whl";

    fn write_wheel(path: &Path) {
        let mut writer = ZipWriter::new(File::create(path).unwrap());
        // Not compressed, so that a test can damage the contents without an error of the decompressor.
        let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, contents) in [
            ("torch/lib/libc10.so", "library contents"),
            ("torch/include/c10/macros.h", "header contents"),
            ("torch/nn/functional.py", "python contents"),
            ("../outside", "hostile contents"),
        ] {
            writer.start_file(name, stored).unwrap();
            writer.write_all(contents.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
    }

    fn place(name: &str) -> Option<String> {
        if name == "../outside" {
            return Some("outside".to_owned());
        }
        let relative = name.strip_prefix("torch/")?;
        (relative.starts_with("lib/") || relative.starts_with("include/")).then(|| relative.to_owned())
    }

    #[test]
    fn only_what_has_a_place_is_written_and_noted() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join(FILE_NAME);
        write_wheel(&wheel);
        let target = folder.path().join("libtorch");
        let mut manifest = Manifest::default();
        extract(&wheel, &target, place, &mut manifest).unwrap();

        assert_eq!(manifest.len(), 2);
        assert!(manifest.contains("lib/libc10.so") && manifest.contains("include/c10/macros.h"));
        assert_eq!(std::fs::read(target.join("lib/libc10.so")).unwrap(), b"library contents");
        assert!(!target.join("nn").exists() && !target.join("outside").exists());
    }

    #[test]
    fn a_complete_wheel_is_kept_and_a_truncated_one_removed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(WHEEL.find_complete(folder.path()).unwrap(), None);

        let wheel = folder.path().join(FILE_NAME);
        write_wheel(&wheel);
        assert_eq!(WHEEL.find_complete(folder.path()).unwrap().as_deref(), Some(wheel.as_path()));

        let bytes = std::fs::read(&wheel).unwrap();
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&wheel, &bytes[..length]).unwrap();
            assert_eq!(WHEEL.find_complete(folder.path()).unwrap(), None, "{length} bytes");
            assert!(!wheel.exists(), "{length} bytes");
        }
    }

    #[test]
    fn a_wheel_of_another_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("some_torch-2.11.01-cp311-cp311-linux_x86_64.whl");
        std::fs::write(&other, b"whatever").unwrap();
        assert_eq!(WHEEL.find_complete(folder.path()).unwrap(), None);
        assert!(other.exists());
    }

    #[test]
    fn damaged_contents_are_found_and_the_wheel_removed() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join(FILE_NAME);
        write_wheel(&wheel);
        let mut bytes = std::fs::read(&wheel).unwrap();
        let place_of_contents = bytes.windows(16).position(|window| window == b"library contents").unwrap();
        bytes[place_of_contents] ^= 1;
        std::fs::write(&wheel, bytes).unwrap();

        let target = folder.path().join("libtorch");
        let error = extract(&wheel, &target, place, &mut Manifest::default()).unwrap_err();
        assert!(matches!(error, Error::DamagedWheel { .. }), "{error:?}");
        assert!(!wheel.exists());
    }
}
