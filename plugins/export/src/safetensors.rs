//! safetensors (<https://huggingface.co/docs/safetensors>): the length of a header, the header as JSON, the elements.
//!
//! The crate of that name writes its own files under their final names; here the elements go straight to the writer.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::Write;

use plugin_api::Result;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::{Origin, Values, Weight, Weights};

/// The header is padded, so that the elements start at a multiple of this.
const ALIGNMENT: usize = 8;

struct Header<'a> {
    metadata: &'a BTreeMap<&'a str, String>,
    weights: &'a [Weight<'a>],
}

#[derive(Serialize)]
struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [i64],
    /// Start and end in bytes, from the first element.
    data_offsets: [usize; 2],
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.weights.len() + 1))?;
        map.serialize_entry("__metadata__", self.metadata)?;
        let mut begin = 0;
        for weight in self.weights {
            let dtype = match weight.values {
                Values::F32(_) => "F32",
                Values::I64(_) => "I64",
            };
            let end = begin + weight.bytes().len();
            map.serialize_entry(weight.name, &Entry { dtype, shape: weight.shape, data_offsets: [begin, end] })?;
            begin = end;
        }
        map.end()
    }
}

/// Writes a whole file of the format safetensors, with what is known of the run as its metadata.
///
/// # Errors
///
/// Errors of `writer`.
pub fn write_safetensors(writer: &mut (impl Write + ?Sized), weights: &Weights<'_>, origin: &Origin) -> Result<()> {
    // The layout of the tensors is PyTorch's; readers that know several look for this key.
    let metadata: BTreeMap<&str, String> = std::iter::once(("format", "pt".to_owned())).chain(origin.texts()).collect();
    let mut weights: Vec<Weight<'_>> = weights.iter().collect();
    // The widest elements first, so that every element is aligned; then by name.
    weights.sort_by_key(|weight| Reverse(matches!(weight.values, Values::I64(_))));
    let mut header = serde_json::to_vec(&Header { metadata: &metadata, weights: &weights })?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(&header)?;
    for weight in &weights {
        writer.write_all(weight.bytes())?;
    }
    Ok(())
}
