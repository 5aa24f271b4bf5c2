//! Files that are read where they lie, mapped into memory.
//!
//! A file that is shortened while it is mapped ends the process as soon as its missing part is read, so that whoever reads asks
//! [`MappedFile::is_whole`] first.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::regular_file;

/// A file, and its bytes.
#[derive(Debug)]
pub(crate) struct MappedFile {
    map: Mmap,
    /// Its length must not change.
    file: File,
}

impl MappedFile {
    /// Maps a regular file.
    ///
    /// # Errors
    ///
    /// The system's, and that it is no regular file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = regular_file::open(path)?;
        // SAFETY: the mapping is only read. A file that is written to meanwhile has other bytes, which every reader takes for
        // a stranger's; one that was shortened is found by `is_whole` before it is read.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Self { map, file })
    }

    /// Whether the file still has the length that it had.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn is_whole(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.len() >= self.map.len() as u64)
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
