//! Memory that two processes share.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// A file in memory that nobody can make shorter: what is mapped of it stays there.
pub(super) struct MemoryFile {
    file: OwnedFd,
}

impl MemoryFile {
    /// A file of `length` bytes of zeros.
    pub(super) fn new(name: &str, length: usize) -> io::Result<Self> {
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let file = Self { file };
        file.grow(length)?;
        rustix::fs::fcntl_add_seals(&file.file, SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(file)
    }

    /// One that somebody else made.
    pub(super) fn of(file: OwnedFd) -> Self {
        Self { file }
    }

    /// Makes it longer.
    pub(super) fn grow(&self, length: usize) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.file, length as u64)?)
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> io::Result<usize> {
        let length = rustix::fs::fstat(&self.file)?.st_size;
        usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge.into())
    }

    /// Gives the pages back to the system; the file keeps its length, and holds zeros.
    pub(super) fn empty(&self) -> io::Result<()> {
        let length = self.length()? as u64;
        Ok(rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, length)?)
    }

    /// A descriptor of it by which nobody can write it.
    pub(super) fn read_only(&self) -> io::Result<OwnedFd> {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(std::fs::File::open(path)?.into())
    }

    /// Maps `length` bytes of it, from its start.
    pub(super) fn map(&self, length: usize, access: Access) -> io::Result<Mapping> {
        if length == 0 {
            return Ok(Mapping { first: NonNull::dangling(), length: 0 });
        }
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a new mapping at an address that the system chooses.
        let first =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, &self.file, 0) }?;
        let first = NonNull::new(first.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { first, length })
    }
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What is done with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A mapping of a [`MemoryFile`]. Another process may change it at any time, so that nobody may hold a reference to what it
/// holds: it is copied, or handed on by pointers.
pub(super) struct Mapping {
    first: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is the process's; nothing in it belongs to a thread.
unsafe impl Send for Mapping {}
// SAFETY: it is accessed by pointers only, and each access says why it is in order.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The first byte.
    pub(super) fn first(&self) -> *mut u8 {
        self.first.as_ptr()
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the mapping that `map` made, of which nobody has a pointer any more.
            let unmapped = unsafe { rustix::mm::munmap(self.first.as_ptr().cast(), self.length) };
            if let Err(error) = unmapped {
                tracing::debug!("shared memory stays mapped: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(mapping: &Mapping, at: usize, value: u8) {
        assert!(at < mapping.length());
        // SAFETY: within the mapping, which can be written.
        unsafe { mapping.first().add(at).write(value) };
    }

    fn read(mapping: &Mapping, at: usize) -> u8 {
        assert!(at < mapping.length());
        // SAFETY: within the mapping.
        unsafe { mapping.first().add(at).read() }
    }

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let file = MemoryFile::new("test", 4096).unwrap();
        let (one, other) = (file.map(4096, Access::Write).unwrap(), file.map(4096, Access::Read).unwrap());
        write(&one, 100, 7);
        assert_eq!(read(&other, 100), 7);
        file.empty().unwrap();
        assert_eq!(read(&other, 100), 0);
    }

    #[test]
    fn it_grows_and_never_shrinks() {
        let file = MemoryFile::new("test", 4096).unwrap();
        file.grow(8192).unwrap();
        assert_eq!(file.length().unwrap(), 8192);
        assert!(file.grow(4096).is_err());
        assert_eq!(file.length().unwrap(), 8192);
    }

    #[test]
    fn a_reader_cannot_write() {
        let file = MemoryFile::new("test", 4096).unwrap();
        let reader = MemoryFile::of(file.read_only().unwrap());
        assert!(reader.map(4096, Access::Read).is_ok());
        assert!(reader.map(4096, Access::Write).is_err());
        assert!(reader.grow(8192).is_err());
    }
}
