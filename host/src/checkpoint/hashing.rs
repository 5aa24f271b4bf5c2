//! SHA-256 (FIPS 180-4) of the bytes that pass through, so that they are read only once.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// The size of the pieces that are passed on and hashed, so that they stay in the cache.
const PIECE: usize = 256 * 1024;

/// A digest in lower-case hexadecimal.
pub(super) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of some bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hexadecimal(hash)
}

/// Counts and hashes what is written through it.
pub(super) struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> HashingWriter<W> {
    pub(super) fn new(inner: W) -> HashingWriter<W> {
        HashingWriter { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// The inner writer, the number of bytes and their digest.
    pub(super) fn finish(self) -> (W, u64, String) {
        (self.inner, self.bytes, hexadecimal(self.hash))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let piece = &buffer[..buffer.len().min(PIECE)];
        let written = self.inner.write(piece)?;
        self.hash.update(&piece[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Counts and hashes what is read through it.
pub(super) struct HashingReader<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> HashingReader<R> {
    pub(super) fn new(inner: R) -> HashingReader<R> {
        HashingReader { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// Reads to the end, and returns the number of all bytes and their digest.
    pub(super) fn finish(mut self) -> io::Result<(u64, String)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.bytes, hexadecimal(self.hash)))
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(PIECE);
        let read = self.inner.read(&mut buffer[..length])?;
        self.hash.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn both_ways_give_the_published_digest() {
        let mut writer = HashingWriter::new(Vec::new());
        writer.write_all(b"abc").unwrap();
        assert_eq!(writer.finish(), (b"abc".to_vec(), 3, ABC.to_owned()));
        assert_eq!(HashingReader::new(&b"abc"[..]).finish().unwrap(), (3, ABC.to_owned()));
        assert_eq!(digest(b"abc"), ABC);
    }

    #[test]
    fn more_than_a_piece_is_hashed_whole() {
        let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|index| index as u8).collect();
        let mut writer = HashingWriter::new(Vec::new());
        writer.write_all(&bytes).unwrap();
        assert_eq!(writer.finish(), (bytes.clone(), bytes.len() as u64, digest(&bytes)));
    }
}
