//! NumPy's archive of arrays (`numpy.savez`; `numpy.lib.format`): an entry `<name>.npy` for each weight.

use std::io::{Seek, Write};

use export::{Origin, Values, Weight, Weights};
use plugin_api::Result;

use crate::archive;

/// The magic bytes of an array, and version 1.0 of its header.
const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// The header is padded to a multiple of this.
const ALIGNMENT: usize = 64;

/// Writes a whole file.
///
/// # Errors
///
/// Errors of `writer`, and a name that is too long for the archive.
pub(crate) fn write(writer: &mut (impl Write + Seek), weights: &Weights<'_>, origin: &Origin) -> Result<()> {
    archive::write(writer, |archive| {
        // Every entry is an array for its readers.
        archive.comment(&origin.json());
        weights
            .iter()
            .try_for_each(|weight| archive.add(&format!("{}.npy", weight.name), &[&header(&weight), weight.bytes()]))
    })
}

fn header(weight: &Weight<'_>) -> Vec<u8> {
    let descr = match weight.values {
        Values::F32(_) => "<f4",
        Values::I64(_) => "<i8",
    };
    // Python's tuples: `(3,)` has a comma too.
    let shape: String = weight.shape.iter().map(|length| format!("{length},")).collect();
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let before = MAGIC.len() + size_of::<u16>();
    let padding = (before + text.len() + 1).next_multiple_of(ALIGNMENT) - (before + text.len() + 1);
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    // A shape has a few dimensions of at most twenty digits: far below 65,536.
    [MAGIC, &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat()
}
