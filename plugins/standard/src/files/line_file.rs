//! A file that grows by complete lines.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use plugin_api::{Error, Result};

/// An open file with complete lines.
pub(crate) struct LineFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl LineFile {
    /// Opens a file, or creates it, to append to it after [`Self::cut`] has set its end.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Not opened for appending: on Windows, such a file cannot be truncated.
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let opened = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(|error| Error::from(error).context(path.display()))?;
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of its content.
    pub(crate) fn content(&mut self) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let read = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.read_to_end(&mut content));
        read.map_err(|error| Error::from(error).context(self.path.display()))?;
        Ok(content)
    }

    /// Keeps only the first `bytes`, by a single truncation, so that the file is never incomplete.
    pub(crate) fn cut(&mut self, bytes: u64) -> Result<()> {
        let cut = if bytes < self.bytes { self.file.set_len(bytes) } else { Ok(()) };
        let cut = cut.and_then(|()| self.file.seek(SeekFrom::Start(bytes)));
        cut.map_err(|error| Error::from(error).context(self.path.display()))?;
        self.bytes = bytes;
        Ok(())
    }

    /// Appends lines with one write, so that a reader sees no partial one; if the write fails, none of it stays.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<()> {
        self.is_there().map_err(|error| {
            Error::from(error).context(self.path.display()).context("the file was removed during the run")
        })?;
        if let Err(error) = self.file.write_all(lines) {
            let told = Error::from(error).context(self.path.display());
            return Err(match self.cut_back() {
                Ok(()) => told,
                Err(error) => told.context(format!("its last line is incomplete ({error})")),
            });
        }
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Fails if the file was deleted: what is written to it then is lost without an error.
    fn is_there(&self) -> std::io::Result<()> {
        // The open file knows whether it has a name, without a search for its path at each line.
        #[cfg(unix)]
        if std::os::unix::fs::MetadataExt::nlink(&self.file.metadata()?) > 0 {
            return Ok(());
        }
        std::fs::metadata(&self.path).map(drop)
    }

    fn cut_back(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes)).map(drop)
    }
}
