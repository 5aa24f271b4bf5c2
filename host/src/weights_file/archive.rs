//! A zip file as a list of its parts. Nothing is unpacked.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::stored::{DAMAGED, Part};
use crate::refusal::Refusal;

/// What every zip file with a part begins with.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

/// The parts of a zip file, in its order.
pub(super) struct Archive {
    pub(super) entries: Vec<Entry>,
    positions: HashMap<String, usize>,
}

/// A part of a zip file.
pub(super) struct Entry {
    pub(super) name: String,
    /// Its bytes in the file, as they are packed: they lie in it.
    pub(super) bytes: Range<usize>,
    /// Its size once it is unpacked.
    pub(super) unpacked: u64,
    pub(super) method: CompressionMethod,
    pub(super) crc32: u32,
}

impl Archive {
    /// Lists the parts of the archive that a file is.
    ///
    /// # Errors
    ///
    /// It is not a whole zip file, or a part is encrypted, or lies beyond the end.
    pub(super) fn read(part: &Part) -> Result<Self, Refusal> {
        let not_zip = |error: zip::result::ZipError| {
            Refusal::new(format!("it is not a whole zip file, or is damaged: {error}")).with_hint(DAMAGED)
        };
        let mut zip = ZipArchive::new(Cursor::new(&part.bytes[..])).map_err(not_zip)?;
        let (mut entries, mut positions) = (Vec::new(), HashMap::new());
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(not_zip)?;
            let name = entry.name().to_owned();
            if entry.encrypted() {
                return Err(Refusal::new(format!("its part `{name}` is encrypted")));
            }
            let start = usize::try_from(entry.data_start()).ok();
            let length = usize::try_from(entry.compressed_size()).ok();
            let end = start.zip(length).and_then(|(start, length)| start.checked_add(length));
            let bytes = start.zip(end).map(|(start, end)| start..end).filter(|bytes| bytes.end <= part.bytes.len());
            let bytes = bytes.ok_or_else(|| {
                Refusal::new(format!("its part `{name}` lies beyond the end of the file")).with_hint(DAMAGED)
            })?;
            positions.insert(name.clone(), entries.len());
            let (unpacked, method, crc32) = (entry.size(), entry.compression(), entry.crc32());
            entries.push(Entry { name, bytes, unpacked, method, crc32 });
        }
        Ok(Self { entries, positions })
    }

    /// The part of this name.
    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.positions.get(name).and_then(|position| self.entries.get(*position))
    }
}
