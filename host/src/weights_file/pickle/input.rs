//! The bytes of a pickle.

use super::PickleError;

/// A pickle, and how far it was read.
pub(super) struct Input<'p> {
    bytes: &'p [u8],
    position: usize,
}

impl<'p> Input<'p> {
    pub(super) fn new(bytes: &'p [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The place of the next byte.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'p [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    pub(super) fn bytes(&mut self, length: u64) -> Result<&'p [u8], PickleError> {
        let length = usize::try_from(length).map_err(|_| PickleError::Ends)?;
        let end = self.position.checked_add(length).ok_or(PickleError::Ends)?;
        let bytes = self.bytes.get(self.position..end).ok_or(PickleError::Ends)?;
        self.position = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        self.bytes(N as u64)?.try_into().map_err(|_| PickleError::Ends)
    }

    pub(super) fn u8(&mut self) -> Result<u8, PickleError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, PickleError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, PickleError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, PickleError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, PickleError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A text of so many bytes.
    pub(super) fn text(&mut self, length: u64) -> Result<&'p str, PickleError> {
        let position = self.position;
        std::str::from_utf8(self.bytes(length)?)
            .map_err(|_| PickleError::Malformed { position, problem: "a text is not UTF-8" })
    }

    /// A text up to the end of its line.
    pub(super) fn line(&mut self) -> Result<&'p str, PickleError> {
        let length = memchr::memchr(b'\n', self.rest()).ok_or(PickleError::Ends)?;
        let text = self.text(length as u64)?;
        self.position += 1;
        Ok(text)
    }
}
