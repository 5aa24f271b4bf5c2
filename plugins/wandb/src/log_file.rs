//! A `.wandb` file: LevelDB's log format (`log_format.md`) after a header of seven bytes. Blocks of 32 KiB hold pieces of
//! records, each with a checksum of its type and data: the CRC-32 of zlib, where LevelDB has the masked one of Castagnoli
//! (W&B's `datastore.py` and `transactionlog`).

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use plugin_api::{Error, Result};
use prost::Message;

use crate::proto::{Record, What};

/// `:W&B`, a magic number, and the version 0.
const HEADER: [u8; 7] = *b":W&B\xe1\xbe\x00";
const BLOCK: usize = 32 << 10;
/// The checksum, the length and the type before the data of a piece.
const HEAD: usize = 7;
/// The most buffered bytes; more are written without waiting for [`LogFile::flush`].
const BUFFER: usize = 1 << 16;

/// Which piece of a record it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Full = 1,
    First = 2,
    Middle = 3,
    Last = 4,
}

/// A file that is being written.
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// The length of the file: complete records.
    written: u64,
    records: i64,
}

impl LogFile {
    /// Creates the file.
    ///
    /// # Errors
    ///
    /// When there is one already, or it cannot be created.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|error| failed("create", &path, error))?;
        Ok(Self { path, file, buffer: HEADER.to_vec(), written: 0, records: 0 })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a record.
    ///
    /// # Errors
    ///
    /// When the buffer cannot be written.
    pub(crate) fn append(&mut self, what: What) -> Result<()> {
        self.records += 1;
        let record = Record { num: self.records, what: Some(what) };
        append(&mut self.buffer, self.written as usize, &record.encode_to_vec());
        if self.buffer.len() < BUFFER { Ok(()) } else { self.write() }
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or the file no longer exists.
    pub(crate) fn flush(&mut self) -> Result<()> {
        // Writes to a file that was deleted are lost without an error.
        fs::metadata(&self.path)
            .map_err(|error| failed("write", &self.path, error).context("the W&B run was removed during the run"))?;
        self.write()
    }

    /// Records are written completely or not at all: readers stop at an incomplete one.
    fn write(&mut self) -> Result<()> {
        let records = std::mem::take(&mut self.buffer);
        let Err(error) = self.file.write_all(&records) else {
            self.written += records.len() as u64;
            return Ok(());
        };
        let told = failed("write", &self.path, error);
        let back = self.file.set_len(self.written).and_then(|()| self.file.seek(SeekFrom::Start(self.written)));
        back.map_err(|error| told.clone().context(format!("its last record is incomplete ({error})")))?;
        if self.written == 0 {
            self.buffer = HEADER.to_vec();
        }
        Err(told)
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        // The run's last hook has flushed it, and reported errors.
        let _ = self.write();
    }
}

/// Appends a record to `buffer`, which begins at `offset` of the file.
fn append(buffer: &mut Vec<u8>, offset: usize, mut data: &[u8]) {
    let mut is_first = true;
    loop {
        let mut room = BLOCK - (offset + buffer.len()) % BLOCK;
        if room < HEAD {
            buffer.resize(buffer.len() + room, 0);
            room = BLOCK;
        }
        let (part, rest) = data.split_at(data.len().min(room - HEAD));
        let piece = match (is_first, rest.is_empty()) {
            (true, true) => Piece::Full,
            (true, false) => Piece::First,
            (false, false) => Piece::Middle,
            (false, true) => Piece::Last,
        } as u8;
        buffer.extend_from_slice(&checksum(piece, part).to_le_bytes());
        buffer.extend_from_slice(&(part.len() as u16).to_le_bytes());
        buffer.push(piece);
        buffer.extend_from_slice(part);
        (data, is_first) = (rest, false);
        if data.is_empty() {
            return;
        }
    }
}

fn checksum(piece: u8, data: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&[piece]);
    checksum.update(data);
    checksum.finalize()
}

/// The records of a file and where each ends, up to the first that is incomplete or damaged; none of a file that is none.
pub(crate) fn records(bytes: &[u8]) -> Vec<(Record, usize)> {
    let (mut found, mut data) = (Vec::new(), Vec::new());
    let mut at = if bytes.starts_with(&HEADER) { HEADER.len() } else { bytes.len() };
    while at < bytes.len() {
        let room = BLOCK - at % BLOCK;
        if room < HEAD {
            at += room;
            continue;
        }
        let Some((piece, part)) = piece(&bytes[at..]) else { break };
        at += HEAD + part.len();
        data.extend_from_slice(part);
        if piece == Piece::Full as u8 || piece == Piece::Last as u8 {
            let Ok(record) = Record::decode(data.as_slice()) else { break };
            found.push((record, at));
            data.clear();
        }
    }
    found
}

/// The piece at the beginning of `bytes`: its type and its data.
fn piece(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (length, piece) = (u16::from_le_bytes([head[4], head[5]]), head[6]);
    let data = rest.get(..usize::from(length))?;
    (checksum(piece, data).to_le_bytes() == head[..4]).then_some((piece, data))
}

/// An error with the action and the file.
pub(crate) fn failed(action: &str, path: &Path, error: std::io::Error) -> Error {
    Error::from(error).context(format!("cannot {action} `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::{Item, Items};

    fn record(length: usize) -> What {
        What::Config(Items { update: vec![Item { key: "a".repeat(length), value_json: String::new() }] })
    }

    #[test]
    fn a_file_begins_as_one_of_wandb() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run-a.wandb");
        let mut file = LogFile::create(path.clone()).unwrap();
        file.append(What::Exit(crate::proto::Exit { exit_code: 0, runtime: 3 })).unwrap();
        file.flush().unwrap();
        // The bytes after the header of W&B's own reader and writer: the CRC-32 of type and data, length, type, data.
        let data = [0x08, 1, 0x92, 0x01, 2, 0x10, 3];
        let mut expected = b":W&B\xe1\xbe\x00".to_vec();
        expected.extend(crc32fast::hash(&[&[1], &data[..]].concat()).to_le_bytes());
        expected.extend([7, 0, 1]);
        expected.extend(data);
        assert_eq!(fs::read(&path).unwrap(), expected);
        // The check value of the CRC-32 of zlib.
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_file_that_is_gone_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run-a.wandb");
        let mut file = LogFile::create(path.clone()).unwrap();
        fs::remove_file(&path).unwrap();
        let told = file.flush().unwrap_err().message().to_owned();
        assert!(told.starts_with("the W&B run was removed during the run: cannot write `"), "{told}");
    }

    proptest! {
        #[test]
        fn records_of_any_length_are_read_in_their_order(
            lengths in prop::collection::vec(prop_oneof![0usize..200, 32_000usize..33_000, 60_000usize..100_000], 0..8),
            flush_each: bool,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("run-a.wandb");
            let mut file = LogFile::create(path.clone()).unwrap();
            for length in &lengths {
                file.append(record(*length)).unwrap();
                if flush_each {
                    file.flush().unwrap();
                }
            }
            file.flush().unwrap();
            let bytes = fs::read(&path).unwrap();
            let found = records(&bytes);
            let expected: Vec<_> = lengths.iter().map(|length| Some(record(*length))).collect();
            prop_assert_eq!(found.iter().map(|(record, _)| record.what.clone()).collect::<Vec<_>>(), expected);
            prop_assert_eq!(found.last().map_or(HEADER.len(), |(_, end)| *end), bytes.len());
            // A torn tail takes its record with it, and no other.
            if let Some(torn) = bytes.len().checked_sub(1).filter(|_| !lengths.is_empty()) {
                prop_assert_eq!(records(&bytes[..torn]).len(), lengths.len() - 1);
            }
        }

        #[test]
        fn any_bytes_are_records_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [HEADER.as_slice(), &bytes].concat();
            prop_assert!(records(&bytes).iter().all(|(_, end)| *end <= bytes.len()));
        }
    }
}
