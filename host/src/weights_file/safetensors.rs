//! safetensors (<https://github.com/huggingface/safetensors#format>), and the index of a model that is cut into shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::SafeTensors;
use serde::Deserialize;

use super::dtype::Dtype;
use super::stored::{DAMAGED, Part, StoredTensor, View};
use crate::refusal::Refusal;

/// The length of the header comes before it.
const LENGTH_BYTES: usize = size_of::<u64>();

/// The format's own limit of a header, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// The most bytes of an index. That of a model of a trillion parameters has some 10 MB.
const LONGEST_INDEX: usize = 100_000_000;

/// Whether a file of this format begins with these bytes.
pub(super) fn begins(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else { return false };
    u64::from_le_bytes(*length) <= LONGEST_HEADER && rest.first() == Some(&b'{')
}

/// The tensors of a file.
pub(super) fn read(part: &Arc<Part>) -> Result<BTreeMap<String, StoredTensor>, Refusal> {
    let (header, metadata) = SafeTensors::read_metadata(&part.bytes)
        .map_err(|error| Refusal::new(format!("it is not a whole safetensors file: {error}")).with_hint(DAMAGED))?;
    let data = LENGTH_BYTES.saturating_add(header);
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let dtype = Dtype::from(info.dtype);
        let (start, end) = info.data_offsets;
        let view = View::whole(info.shape.clone());
        let view = view.ok_or_else(|| Refusal::new(format!("`{name}` has more elements than can be counted")))?;
        let storage = data.saturating_add(start)..data.saturating_add(end);
        let tensor = StoredTensor::plain(dtype, view, part, storage)
            .map_err(|refusal| Refusal::new(format!("`{name}`: {refusal}")).with_hint(DAMAGED))?;
        Ok((name, tensor))
    });
    tensors.collect()
}

/// An index: which file each tensor is in.
#[derive(Deserialize)]
pub(super) struct Index {
    pub(super) weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads the JSON of an index.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > LONGEST_INDEX {
            return Err(Refusal::new(format!(
                "an index has at most {LONGEST_INDEX} bytes, and it has {}",
                bytes.len()
            )));
        }
        let index: Self = serde_json::from_slice(bytes).map_err(|error| {
            Refusal::new(format!("it is no index of shards, whose `weight_map` names the file of each tensor: {error}"))
        })?;
        let is_name = |name: &str| !name.is_empty() && !name.contains(['/', '\\', ':', '\0']) && name != "..";
        match index.weight_map.values().find(|file| !is_name(file)) {
            Some(file) => Err(Refusal::new(format!("its file `{file}` is not one beside it"))),
            None => Ok(index),
        }
    }
}
