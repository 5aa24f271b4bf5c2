//! What `numpy.savez` and `numpy.savez_compressed` write: a zip file of `.npy` files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use flate2::read::DeflateDecoder;
use zip::CompressionMethod;

use super::archive::{Archive, Entry};
use super::dtype::Dtype;
use super::stored::{Content, DAMAGED, Part, StoredTensor, View, beyond};
use crate::data::npy_header;
use crate::refusal::Refusal;

/// The bytes that are unpacked to read an array's header; NumPy's are shorter than 64 KiB.
const HEADER: u64 = 1 << 17;

const ENDING: &str = ".npy";

/// Whether all parts of the archive are arrays.
pub(super) fn is_npz(archive: &Archive) -> bool {
    !archive.entries.is_empty() && archive.entries.iter().all(|entry| entry.name.ends_with(ENDING))
}

/// The arrays of the archive.
pub(super) fn read(archive: &Archive, part: &Arc<Part>) -> Result<BTreeMap<String, StoredTensor>, Refusal> {
    let arrays = archive.entries.iter().map(|entry| {
        let name = entry.name.strip_suffix(ENDING).unwrap_or(&entry.name).to_owned();
        let tensor = array(entry, part).map_err(|refusal| {
            Refusal::new(format!("its array `{name}` cannot be read: {refusal}")).with_hint(DAMAGED)
        })?;
        Ok((name, tensor))
    });
    arrays.collect()
}

fn array(entry: &Entry, part: &Arc<Part>) -> Result<StoredTensor, Refusal> {
    let bytes = part.bytes.get(entry.bytes.clone()).unwrap_or_default();
    let begin = match entry.method {
        CompressionMethod::Stored => Cow::Borrowed(bytes),
        CompressionMethod::Deflated => {
            let mut begin = Vec::new();
            DeflateDecoder::new(bytes)
                .take(HEADER)
                .read_to_end(&mut begin)
                .map_err(|error| Refusal::new(format!("it cannot be unpacked: {error}")))?;
            Cow::Owned(begin)
        }
        method => return Err(Refusal::new(format!("it is compressed with {method}, which NumPy never does"))),
    };
    let layout = npy_header(&begin).map_err(|problem| Refusal::new(format!("it {problem}")))?;
    let dtype = Dtype::from(layout.element);
    if layout.big_endian && dtype.size() > 1 {
        return Err(Refusal::new("its byte order is big, and only little is read"));
    }
    let view = View::whole(layout.shape).ok_or_else(|| Refusal::new("it has more elements than can be counted"))?;
    if entry.method == CompressionMethod::Stored {
        let start = entry.bytes.start.saturating_add(layout.start);
        return StoredTensor::plain(dtype, view, part, start..entry.bytes.end);
    }
    let unpacked = usize::try_from(entry.unpacked).unwrap_or(usize::MAX);
    let size = view.end().and_then(|end| end.checked_mul(dtype.size()));
    if size.and_then(|size| size.checked_add(layout.start)) != Some(unpacked) {
        return Err(beyond(&view.shape, unpacked.saturating_sub(layout.start)));
    }
    let content = Content::Deflated {
        start: entry.bytes.start,
        packed: entry.bytes.len(),
        skipped: layout.start,
        unpacked,
        crc32: entry.crc32,
    };
    Ok(StoredTensor { dtype, shape: view.shape, strides: view.strides, part: Arc::clone(part), content })
}
