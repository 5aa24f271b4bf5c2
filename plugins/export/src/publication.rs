//! Files that are published complete, or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use plugin_api::{Error, Result, tracing};
use tempfile::TempDir;

/// The prefix of the folders of unfinished files.
const PARTIAL: &str = ".partial-";

/// Removes what a process that was ended within an export has left in `folder`, a path relative to the run folder. For
/// `setup`: no callback exports before all have been set up. A folder that is not within the run folder, which has one
/// owner, may be another run's too, and is left alone.
pub fn remove_unfinished(run_folder: &str, folder: &str) {
    let is_within = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(folder).components().all(is_within) {
        return;
    }
    let Ok(entries) = fs::read_dir(Path::new(run_folder).join(folder)) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PARTIAL)) {
        // It takes room, and nothing else.
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!("cannot remove the unfinished export `{}`: {error}", entry.path().display());
        }
    }
}

/// Files that belong together. They are written to a hidden folder next to their final paths and then moved there; the
/// last one, which refers to the others, is moved last. Files that are not published are removed with this value.
#[derive(Debug)]
pub struct Publication {
    folder: PathBuf,
    /// Only for this publication. The files have their final names in it, so that they find each other before
    /// publication.
    partial: TempDir,
    /// In the order of publication.
    names: Vec<String>,
    sync: bool,
}

/// A file that is being written.
pub struct PartialFile {
    writer: BufWriter<File>,
    path: PathBuf,
}

impl Publication {
    /// Files in `folder`, which is created if it is missing. With `sync` they are on the disk before they are
    /// published.
    ///
    /// # Errors
    ///
    /// When the folder cannot be created.
    pub fn begin(folder: &Path, sync: bool) -> Result<Publication> {
        fs::create_dir_all(folder).map_err(|error| failed("create the folder", folder, &error))?;
        let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(folder);
        let partial = partial.map_err(|error| failed("create a folder in", folder, &error))?;
        Ok(Publication { folder: folder.to_owned(), partial, names: Vec::new(), sync })
    }

    /// A new file that will be called `name`; the folder of a `folder/file` is created, too.
    ///
    /// # Errors
    ///
    /// When it cannot be created, or exists and `overwrite` is not set.
    pub fn create(&mut self, name: &str, overwrite: bool) -> Result<PartialFile> {
        let target = self.folder.join(name);
        if target.is_dir() {
            return Err(Error::new(format!("`{}` is a folder, but a file is to be published there", target.display())));
        }
        if !overwrite && target.exists() {
            return Err(Error::new(format!(
                "`{}` already exists; set `overwrite = true` to replace it, or use `{{epoch}}` or `{{step}}` in `name` to keep both",
                target.display()
            )));
        }
        let partial = self.partial(name);
        make_parent(&partial)?;
        let file = PartialFile::create(&partial)?;
        self.names.push(name.to_owned());
        Ok(file)
    }

    /// Moves the files to their final paths, in the order in which they were created, and returns the path of the last
    /// one.
    ///
    /// # Errors
    ///
    /// When one cannot be moved; those before it have been.
    pub fn publish(self) -> Result<PathBuf> {
        let mut published = self.folder.clone();
        for name in &self.names {
            published = self.folder.join(name);
            make_parent(&published)?;
            fs::rename(self.partial(name), &published).map_err(|error| failed("publish", &published, &error))?;
        }
        if self.sync {
            // Without it, the names may be lost in a power failure; not every system can do it.
            let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        }
        Ok(published)
    }

    /// The path of a file of this name until it is published.
    pub fn partial(&self, name: &str) -> PathBuf {
        self.partial.path().join(name)
    }

    /// Whether files are on the disk before they are published.
    pub fn syncs(&self) -> bool {
        self.sync
    }
}

impl PartialFile {
    /// A file at `path`, which is published only as part of a [`Publication`].
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn create(path: &Path) -> Result<PartialFile> {
        let file = File::create(path).map_err(|error| failed("create", path, &error))?;
        Ok(PartialFile { writer: BufWriter::with_capacity(1 << 20, file), path: path.to_owned() })
    }

    /// Its path until it is published.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the buffered bytes, to the disk if `sync` is set.
    ///
    /// # Errors
    ///
    /// When the disk is full, or fails.
    pub fn finish(self, sync: bool) -> Result<()> {
        let path = self.path;
        let file = self.writer.into_inner().map_err(|error| failed("write", &path, error.error()))?;
        if sync {
            file.sync_all().map_err(|error| failed("write", &path, &error))?;
        }
        Ok(())
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes).map_err(|error| named(&self.path, &error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().map_err(|error| named(&self.path, &error))
    }
}

impl Seek for PartialFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.writer.seek(position).map_err(|error| named(&self.path, &error))
    }
}

fn make_parent(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|error| failed("create the folder", folder, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()))
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(format!("cannot {action} `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_together_when_they_are_published() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        let mut publication = Publication::begin(&deep, true).unwrap();
        for name in ["model.data", "with/model", "model"] {
            let mut file = publication.create(name, false).unwrap();
            file.write_all(name.as_bytes()).unwrap();
            file.finish(publication.syncs()).unwrap();
        }
        assert!(names(&deep).iter().all(|name| name.starts_with('.')), "{:?}", names(&deep));
        assert_eq!(publication.publish().unwrap(), deep.join("model"));
        assert_eq!(names(&deep), ["model", "model.data", "with"]);
        assert_eq!(fs::read(deep.join("with/model")).unwrap(), b"with/model");
        assert_eq!(fs::read(deep.join("model.data")).unwrap(), b"model.data");
    }

    #[test]
    fn what_is_not_published_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model"), "old").unwrap();
        let mut publication = Publication::begin(folder.path(), false).unwrap();
        publication.create("model", true).unwrap().write_all(b"new").unwrap();
        drop(publication);
        assert_eq!(names(folder.path()), ["model"]);
        assert_eq!(fs::read(folder.path().join("model")).unwrap(), b"old");
    }

    #[test]
    fn what_a_killed_process_left_goes_away_within_the_run_folder() {
        let folder = tempfile::tempdir().unwrap();
        let run_folder = folder.path().join("run");
        for exports in ["run/exports", "elsewhere"].map(|path| folder.path().join(path)) {
            fs::create_dir_all(exports.join(".partial-abc")).unwrap();
            fs::write(exports.join(".partial-abc/model"), "half").unwrap();
            fs::write(exports.join("model"), "whole").unwrap();
        }
        let absolute = folder.path().join("elsewhere").display().to_string();
        for exports in ["exports", "./exports", "../elsewhere", &absolute, "none"] {
            remove_unfinished(&run_folder.display().to_string(), exports);
        }
        assert_eq!(names(&run_folder.join("exports")), ["model"]);
        assert_eq!(names(&folder.path().join("elsewhere")), [".partial-abc", "model"]);
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        let error = Publication::begin(&folder.path().join("file"), false).unwrap_err();
        assert!(error.message().starts_with("cannot create the folder `"), "{error}");
        let mut publication = Publication::begin(folder.path(), false).unwrap();
        let message = |error: Option<Error>| error.unwrap().message().to_owned();
        assert!(message(publication.create("file", false).err()).contains("already exists"));
        assert!(message(publication.create("folder", true).err()).contains("is a folder"));
    }
}
