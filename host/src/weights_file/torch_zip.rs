//! What `torch.save` writes since PyTorch 1.6: a zip file of one folder, in which nothing is compressed.
//!
//! ```text
//! NAME/data.pkl   the pickle
//! NAME/data/KEY   the elements of a storage
//! NAME/byteorder  `little` or `big`; files of PyTorch before 2.1 have none, and are little
//! NAME/version    and others, which nothing here depends on
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use zip::CompressionMethod;

use super::archive::{Archive, Entry};
use super::pickle::{self, Storage};
use super::stored::{DAMAGED, Part, StoredTensor};
use crate::refusal::Refusal;

/// The most bytes of a pickle. That of a state dict has some 300 a tensor.
const LONGEST_PICKLE: usize = 64 << 20;

/// The tensors of a file, and the key of its dictionary that they are taken from, if they are not at its top.
pub(super) type Contents = (BTreeMap<String, StoredTensor>, Option<String>);

/// The tensors of the archive.
pub(super) fn read(archive: &Archive, part: &Arc<Part>) -> Result<Contents, Refusal> {
    let root = root(archive)?;
    if let Some(entry) = archive.entries.iter().find(|entry| entry.method != CompressionMethod::Stored) {
        return Err(Refusal::new(format!("its part `{}` is compressed, which PyTorch never does", entry.name))
            .with_hint("save it again with `torch.save`; do not pack it with another program"));
    }
    let bytes = |entry: &Entry| part.bytes.get(entry.bytes.clone()).unwrap_or_default();
    let order = archive.entry(&format!("{root}byteorder")).map(bytes).unwrap_or(b"little");
    if order.trim_ascii() != b"little" {
        let order = String::from_utf8_lossy(order.get(..order.len().min(20)).unwrap_or_default());
        return Err(Refusal::new(format!("its byte order is `{}`, and only `little` is read", order.trim()))
            .with_hint(
                "save it again on a machine whose byte order is little, as those with x86 and Arm processors are",
            ));
    }
    let pickle = archive.entry(&format!("{root}data.pkl")).map(bytes).unwrap_or_default();
    if pickle.len() > LONGEST_PICKLE {
        return Err(Refusal::new(format!(
            "its pickle has {} bytes, and at most {LONGEST_PICKLE} are read",
            pickle.len()
        ))
        .with_hint("in Python, `torch.save(model.state_dict(), path)` writes the weights alone"));
    }
    let state = pickle::read(pickle)?;
    let tensors = state.tensors.into_iter().map(|(name, tensor)| {
        let wrong = |refusal: Refusal| Refusal::new(format!("its tensor `{name}` cannot be read: {refusal}"));
        if !tensor.is_plain {
            return Err(wrong(Refusal::new("it is conjugated or negated lazily"))
                .with_hint("save `tensor.resolve_conj().resolve_neg()` in its place"));
        }
        let storage = state.storages.get(tensor.storage);
        let storage = storage.ok_or_else(|| wrong(Refusal::new("it has no storage")).with_hint(DAMAGED))?;
        let range = range(archive, root, storage).map_err(|refusal| wrong(refusal).with_hint(DAMAGED))?;
        let stored = StoredTensor::plain(tensor.dtype, tensor.view.clone(), part, range)
            .map_err(|refusal| wrong(refusal).with_hint(DAMAGED))?;
        Ok((name, stored))
    });
    Ok((tensors.collect::<Result<_, Refusal>>()?, state.within.map(str::to_owned)))
}

/// The folder that everything is in, with a slash.
fn root(archive: &Archive) -> Result<&str, Refusal> {
    let has = |ending: &str| archive.entries.iter().any(|entry| entry.name.ends_with(ending));
    if has("/constants.pkl") {
        return Err(Refusal::new("it is a TorchScript module").with_hint(
            "train it as `torchscript`, or, in Python, `torch.save(torch.jit.load(path).state_dict(), \"weights.pt\")`",
        ));
    }
    if has("models/model.json") || has("/archive_format") || has("/serialized_exported_program.json") {
        return Err(Refusal::new("it is an exported program").with_hint(
            "train it as `exported`, or, in Python, `torch.save(torch.export.load(path).state_dict, \"weights.pt\")`",
        ));
    }
    let mut roots = archive.entries.iter().filter_map(|entry| {
        let root = entry.name.strip_suffix("data.pkl")?;
        (root.is_empty() || root.strip_suffix('/').is_some_and(|name| !name.contains('/'))).then_some(root)
    });
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root),
        (Some(_), Some(_)) => Err(Refusal::new("it has two pickles, of which PyTorch writes one").with_hint(DAMAGED)),
        (None, _) => {
            Err(Refusal::new("it is a zip file with neither the `data.pkl` of `torch.save` nor arrays of NumPy")
                .with_hint("if it was packed, unpack it, and give the path of the file within"))
        }
    }
}

/// Where the elements of a storage are in the file.
fn range(archive: &Archive, root: &str, storage: &Storage<'_>) -> Result<std::ops::Range<usize>, Refusal> {
    let name = format!("{root}data/{}", storage.key);
    let entry = archive.entry(&name).ok_or_else(|| Refusal::new(format!("the file has no part `{name}`")))?;
    let (has, bytes) = (entry.bytes.len(), storage.bytes());
    match bytes.filter(|bytes| *bytes <= has).and_then(|bytes| entry.bytes.start.checked_add(bytes)) {
        Some(end) => Ok(entry.bytes.start..end),
        None => Err(Refusal::new(format!("the part `{name}` has {has} bytes, which are fewer than its pickle says"))),
    }
}
