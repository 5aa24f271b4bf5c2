//! Files that are read whole: never a pipe or a device in the place of one, which would be waited for, and never more than
//! fits.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The longest library that is read, in bytes.
pub const LARGEST: u64 = 1 << 30;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotRead {
    /// It is something else.
    #[error("it is {0}, not a file")]
    Special(&'static str),
    /// It is longer than what is read.
    #[error("it has {length} bytes, more than {most}")]
    TooLong {
        /// Its length.
        length: u64,
        /// The most that is read.
        most: u64,
    },
    /// The system refuses.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<NotRead> for io::Error {
    fn from(error: NotRead) -> io::Error {
        match error {
            NotRead::System(error) => error,
            other => io::Error::other(other),
        }
    }
}

/// Opens a regular file of at most `most` bytes to read it; a link is followed.
///
/// # Errors
///
/// See [`NotRead`].
pub fn open(path: &Path, most: u64) -> Result<File, NotRead> {
    // Opening some devices does something, so that it is looked at first.
    check(&path.metadata()?, most)?;
    let mut options = File::options();
    options.read(true);
    // Nor is a pipe waited for that has come between.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits() as i32,
    );
    let file = options.open(path)?;
    check(&file.metadata()?, most)?;
    Ok(file)
}

/// The content of a regular file of at most `most` bytes; a link is followed.
///
/// # Errors
///
/// See [`NotRead`].
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, NotRead> {
    read_rest(Vec::new(), open(path, most)?, most)
}

/// `bytes` and what is left of `file`, at most `most` in all: the file may have become longer.
///
/// # Errors
///
/// See [`NotRead`].
pub(crate) fn read_rest(mut bytes: Vec<u8>, file: File, most: u64) -> Result<Vec<u8>, NotRead> {
    let left = (most + 1).saturating_sub(bytes.len() as u64);
    file.take(left).read_to_end(&mut bytes)?;
    let length = bytes.len() as u64;
    if length > most { Err(NotRead::TooLong { length, most }) } else { Ok(bytes) }
}

fn check(metadata: &std::fs::Metadata, most: u64) -> Result<(), NotRead> {
    if !metadata.is_file() {
        return Err(NotRead::Special(name(metadata.file_type())));
    }
    let length = metadata.len();
    if length > most { Err(NotRead::TooLong { length, most }) } else { Ok(()) }
}

fn name(kind: std::fs::FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a FIFO";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_block_device() || kind.is_char_device() {
            return "a device";
        }
    }
    if kind.is_dir() { "a folder" } else { "something special" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_read_and_only_so_much() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "text").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"text");
        assert!(matches!(read(&path, 3).unwrap_err(), NotRead::TooLong { length: 4, most: 3 }));
        assert!(matches!(read(folder.path(), 4).unwrap_err(), NotRead::Special("a folder")));
        // Sparse: nothing of it is read.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(read(&path, LARGEST).unwrap_err(), NotRead::TooLong { .. }));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_pipe_and_a_device_are_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(read(&fifo, 4).unwrap_err(), NotRead::Special("a FIFO")));
        assert!(matches!(read(Path::new("/dev/zero"), 4).unwrap_err(), NotRead::Special("a device")));
        // Files of the kernel say that they are empty.
        assert!(matches!(read(Path::new("/proc/self/status"), 4).unwrap_err(), NotRead::TooLong { .. }));
    }
}
