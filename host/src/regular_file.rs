//! Files that are read: a pipe or a device in the place of one would be waited for without end.

use std::fs::File;
use std::io;
use std::path::Path;

/// Opens a file to read it, if it is a regular one; a link is followed.
///
/// # Errors
///
/// The system's, and that it is something else, such as a FIFO.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Opening a FIFO waits for a writer, so that it is looked at first.
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    File::open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "text").unwrap();
        assert!(open(&path).is_ok());
        assert_eq!(open(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        #[cfg(unix)]
        {
            let fifo = folder.path().join("fifo");
            let name = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
            // SAFETY: the name is a text that ends with a zero.
            assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
            assert_eq!(open(&fifo).unwrap_err().to_string(), "it is not a regular file");
        }
    }
}
