//! Files of data, plain or compressed with gzip (RFC 1952).

use std::borrow::Cow;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::data::{DataError, Source};

/// The first bytes of a gzip file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What is compressed more than this and takes more than [`SUSPECT_BYTES`] is rejected: measurements do not compress so well, and
/// a small file must not fill the memory.
pub(super) const SUSPECT_RATIO: u64 = 200;
pub(super) const SUSPECT_BYTES: u64 = 256 << 20;

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
    let most = (raw.len() as u64).saturating_mul(SUSPECT_RATIO).max(SUSPECT_BYTES);
    match MultiGzDecoder::new(&*raw).take(most + 1).read_to_end(&mut content) {
        Ok(_) if content.len() as u64 > most => {
            let problem = format!("unpacks to more than {SUSPECT_RATIO} times its size, which no measurements do");
            Err(DataError::malformed(&path, &problem))
        }
        Ok(_) => Ok((path, Cow::Owned(content))),
        Err(source) => Err(DataError::Read { path, source }),
    }
}

/// Whether a gzip file starts with these bytes.
pub(super) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&GZIP_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn a_small_file_does_not_fill_the_memory() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let zeros = vec![0; 1 << 20];
        for _ in 0..(SUSPECT_BYTES >> 20) + 1 {
            encoder.write_all(&zeros).unwrap();
        }
        let packed = encoder.finish().unwrap();
        let error = read(Path::new("a.csv.gz"), Source::Bytes(&packed)).unwrap_err().to_string();
        assert!(error.contains("unpacks to more than 200 times its size"), "{error}");
    }
}
