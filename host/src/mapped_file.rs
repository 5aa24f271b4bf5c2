//! Files that are read where they lie, mapped into memory.
//!
//! A file that is shortened while it is mapped ends the process as soon as its missing part is read, so that whoever
//! reads asks [`MappedFile::is_whole`] first.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
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
        // SAFETY: the mapping is only read. A file that is written to meanwhile has other bytes, which every reader
        // takes for a stranger's; one that was shortened is found by `is_whole` before it is read.
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

    /// Gives the memory of bytes that nobody looks at for now back to the system, which counts it as this process's
    /// until then.
    pub(crate) fn release(&self, bytes: Range<usize>) {
        #[cfg(unix)]
        if self.map.get(bytes.clone()).is_some_and(|bytes| !bytes.is_empty()) {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: these bytes, and so the pages that they lie in, are the mapping's. Nothing is ever written to it,
            // so that a page that was given back has the file's bytes again as soon as somebody reads it.
            let released = unsafe { self.map.unchecked_advise_range(advice, bytes.start, bytes.len()) };
            if let Err(error) = released {
                tracing::debug!(%error, "the memory of a mapped file stays");
            }
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_were_given_back_are_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..50_000u32).map(|index| (index % 251) as u8).collect();
        std::fs::write(file.path(), &content).unwrap();
        let mapped = MappedFile::open(file.path()).unwrap();
        assert!(mapped[..] == content[..]);
        for range in [0..50_000, 5_000..5_001, 49_999..50_000, 7..7, 50_000..50_000, 40_000..60_000, 60_000..70_000] {
            mapped.release(range);
            assert!(mapped[..] == content[..]);
        }
        assert!(mapped.is_whole().unwrap());
        file.as_file().set_len(10).unwrap();
        assert!(!mapped.is_whole().unwrap());
    }
}
