//! A ZIP archive (APPNOTE 6.3) whose entries are stored uncompressed, each at a multiple of 64 bytes, so that readers
//! can map them into memory.

use std::io::{self, Seek, SeekFrom, Write};

use plugin_api::{Error, Result, tracing};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The alignment of storages in PyTorch's files, and of arrays in NumPy's.
const ALIGNMENT: u16 = 64;
/// Entries of at least this size, with room for their own headers, have lengths of 64 bits.
const LARGE: usize = u32::MAX as usize - (1 << 16);
/// The bytes that are written at once: few enough to be still in the cache when their checksum is computed, and at
/// least the size of the file's own buffer, so that they are not copied through it.
const CHUNK: usize = 1 << 20;

/// Writes an archive by `fill` to a writer that is still empty.
///
/// # Errors
///
/// Errors of `writer` and of `fill`.
pub(crate) fn write<W: Write + Seek>(writer: W, fill: impl FnOnce(&mut Archive<W>) -> Result<()>) -> Result<()> {
    let mut archive = Archive { zip: ZipWriter::new(FailsOnce { writer, position: 0, failed: false }) };
    fill(&mut archive)?;
    archive.zip.finish().map(drop).map_err(failed)
}

/// An archive that is being written.
pub(crate) struct Archive<W: Write + Seek> {
    zip: ZipWriter<FailsOnce<W>>,
}

impl<W: Write + Seek> Archive<W> {
    /// Sets the archive's comment. One of more than 65,535 bytes, which the format cannot hold, is left out with a
    /// warning.
    pub(crate) fn comment(&mut self, text: &str) {
        if u16::try_from(text.len()).is_ok() {
            self.zip.set_comment(text);
        } else {
            tracing::warn!(
                "the file says nothing about its run: {} bytes are too many for a comment in it",
                text.len()
            );
        }
    }

    /// Adds an entry that consists of `parts`, one after the other.
    ///
    /// # Errors
    ///
    /// Errors of the writer; a duplicate name, or one of more than 65,535 bytes.
    pub(crate) fn add(&mut self, name: &str, parts: &[&[u8]]) -> Result<()> {
        if u16::try_from(name.len()).is_err() {
            let begin: String = name.chars().take(40).collect();
            return Err(Error::new(format!(
                "`{begin}…` has {} bytes, too many for a name in a ZIP archive",
                name.len()
            )));
        }
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .with_alignment(ALIGNMENT)
            .large_file(length >= LARGE);
        self.zip.start_file(name, options).map_err(failed)?;
        for chunk in parts.iter().flat_map(|part| part.chunks(CHUNK)) {
            self.zip.write_all(chunk)?;
        }
        Ok(())
    }
}

/// A writer that reports its first error, and then silently discards everything: after an error, a `ZipWriter`
/// continues to write when it is dropped, and would report the next error on stderr, which belongs to the host.
struct FailsOnce<W> {
    writer: W,
    /// From the start of the file, in bytes.
    position: u64,
    failed: bool,
}

impl<W> FailsOnce<W> {
    fn noticed<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.failed |= result.is_err();
        result
    }
}

impl<W: Write> Write for FailsOnce<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.failed { Ok(bytes.len()) } else { self.writer.write(bytes) };
        let written = self.noticed(written)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = if self.failed { Ok(()) } else { self.writer.flush() };
        self.noticed(flushed)
    }
}

impl<W: Seek> Seek for FailsOnce<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            _ if !self.failed => self.writer.seek(to),
            SeekFrom::Start(position) => Ok(position),
            // After an error, the current position counts as the end.
            SeekFrom::Current(_) | SeekFrom::End(_) => Ok(self.position),
        };
        self.position = self.noticed(position)?;
        Ok(self.position)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.position)
    }
}

/// The writer's own errors name the file already.
fn failed(error: ZipError) -> Error {
    match error {
        ZipError::Io(error) => error.into(),
        error => error.into(),
    }
}
