//! Files of data, plain or compressed with gzip (RFC 1952).

use std::borrow::Cow;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::data::{DataError, Source};

/// The first bytes of a gzip file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The whole content of the file at the options' `path`, and the path for messages.
pub(super) fn read<'a>(path: &Path, source: Source<'a>) -> Result<(PathBuf, Cow<'a, [u8]>), DataError> {
    let (path, raw) = match source {
        Source::Folder(folder) => {
            let path = folder.join(path);
            match std::fs::read(&path) {
                Ok(raw) => (path, Cow::Owned(raw)),
                Err(source) => return Err(DataError::Read { path, source }),
            }
        }
        Source::Bytes(bytes) => (path.to_owned(), Cow::Borrowed(bytes)),
    };
    if !is_gzip(&raw) {
        return Ok((path, raw));
    }
    let mut content = Vec::new();
    match MultiGzDecoder::new(&*raw).read_to_end(&mut content) {
        Ok(_) => Ok((path, Cow::Owned(content))),
        Err(source) => Err(DataError::Read { path, source }),
    }
}

/// Whether a gzip file starts with these bytes.
pub(super) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&GZIP_MAGIC)
}
