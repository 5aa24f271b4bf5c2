//! A path as weights: the format by the first bytes, never by the ending of the name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::WeightsFile;
use super::archive::{self, Archive};
use super::checkpoint;
use super::error::WeightsFileError;
use super::npz;
use super::safetensors::{self, Index};
use super::stored::{Part, StoredTensor};
use super::torch_zip::{self, Contents};
use crate::mapped_file::MappedFile;
use crate::refusal::Refusal;

/// What a folder of a model of Hugging Face may hold; the first that is there is taken.
const IN_FOLDERS: [&str; 4] =
    ["model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"];

/// How the legacy format of `torch.save` begins, after a byte for the protocol: a magic number as a pickle.
const LEGACY: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

impl WeightsFile {
    /// The tensors at a path: a file of safetensors, `torch.save` or `numpy.savez`, the index of shards, a folder with
    /// one of them, or a checkpoint.
    ///
    /// # Errors
    ///
    /// It cannot be read, is none of them, or is damaged.
    pub fn open(path: &Path) -> Result<Self, WeightsFileError> {
        let file = |(tensors, within)| Self { path: path.to_owned(), tensors, within, _in_use: None };
        if !path.is_dir() {
            return one(path).map(file);
        }
        if checkpoint::is_checkpoint(path) {
            let (tensors, in_use) = checkpoint::read(path)?;
            return Ok(Self { path: path.to_owned(), tensors, within: None, _in_use: Some(in_use) });
        }
        match IN_FOLDERS.iter().map(|name| path.join(name)).find(|path| path.is_file()) {
            Some(path) => one(&path).map(file),
            None => Err(WeightsFileError::Refused { path: path.to_owned(), refusal: no_weights(path) }),
        }
    }
}

/// Why a folder has no weights.
fn no_weights(folder: &Path) -> Refusal {
    if let Some(checkpoints) = checkpoint::checkpoints_of(folder) {
        return Refusal::new("it is a run folder, which has many weights")
            .with_hint(format!("name one of its checkpoints, such as `{}`", checkpoints.join("last").display()));
    }
    if folder.join(".metadata").is_file() {
        return Refusal::new("it is a checkpoint of `torch.distributed.checkpoint`").with_hint(
            "in Python, `torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, \
             \"weights.pt\")` makes one file",
        );
    }
    Refusal::new("it is a folder without weights").with_hint(
        "give the path of a file, of a checkpoint, or of a folder that holds `model.safetensors` or its index"
            .to_owned(),
    )
}

/// The tensors of a file, or of the shards that it is the index of.
fn one(path: &Path) -> Result<Contents, WeightsFileError> {
    let part = map(path)?;
    let refused = |refusal| WeightsFileError::Refused { path: path.to_owned(), refusal };
    if part.bytes.first() != Some(&b'{') {
        return contents(&part).map_err(refused);
    }
    let index = Index::read(&part.bytes).map_err(refused)?;
    shards(path, &index).map(|tensors| (tensors, None))
}

fn map(path: &Path) -> Result<Arc<Part>, WeightsFileError> {
    let bytes = MappedFile::open(path).map_err(|source| WeightsFileError::Read { path: path.to_owned(), source })?;
    Ok(Arc::new(Part { path: path.to_owned(), bytes }))
}

/// The tensors of all shards of an index.
fn shards(path: &Path, index: &Index) -> Result<BTreeMap<String, StoredTensor>, WeightsFileError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut names: Vec<&str> = index.weight_map.values().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let mut tensors = BTreeMap::new();
    let mut from: BTreeMap<String, PathBuf> = BTreeMap::new();
    for name in names {
        let shard = folder.join(name);
        let refused = |refusal| WeightsFileError::Refused { path: shard.clone(), refusal };
        let (found, _) = contents(&map(&shard)?).map_err(refused)?;
        for (tensor, stored) in found {
            if let Some(earlier) = from.get(&tensor) {
                let problem = format!("its tensor `{tensor}` is in `{}`, too", earlier.display());
                return Err(refused(Refusal::new(problem)));
            }
            from.insert(tensor.clone(), shard.clone());
            tensors.insert(tensor, stored);
        }
    }
    let missing = index.weight_map.iter().find(|(tensor, _)| !tensors.contains_key(*tensor));
    match missing {
        None => Ok(tensors),
        Some((tensor, shard)) => Err(WeightsFileError::Refused {
            path: path.to_owned(),
            refusal: Refusal::new(format!("it says that `{tensor}` is in `{shard}`, which has no such tensor"))
                .with_hint("the shards belong to another index: copy all of them again from their source"),
        }),
    }
}

/// The tensors of one file.
fn contents(part: &Arc<Part>) -> Result<Contents, Refusal> {
    let bytes = &part.bytes[..];
    if safetensors::begins(bytes)
        || part.path.extension().is_some_and(|ending| ending == "safetensors" && !is_known(bytes))
    {
        return Ok((safetensors::read(part)?, None));
    }
    if bytes.starts_with(archive::MAGIC) {
        let archive = Archive::read(part)?;
        return match npz::is_npz(&archive) {
            true => Ok((npz::read(&archive, part)?, None)),
            false => torch_zip::read(&archive, part),
        };
    }
    Err(known(bytes).unwrap_or_else(|| {
        Refusal::new("it is no file of safetensors, `torch.save` or `numpy.savez`").with_hint(
            "in Python, `torch.save(model.state_dict(), path)` or \
             `safetensors.torch.save_file(model.state_dict(), path)` writes one",
        )
    }))
}

fn is_known(bytes: &[u8]) -> bool {
    bytes.starts_with(archive::MAGIC) || known(bytes).is_some()
}

/// A format that begins with these bytes and is not read.
fn known(bytes: &[u8]) -> Option<Refusal> {
    let again = "in Python, `torch.save(torch.load(path), \"weights.pt\")` writes it in the format of today; only do \
                 that with a file that you trust";
    Some(match bytes {
        [0x80, _, rest @ ..] if rest.starts_with(LEGACY) => {
            Refusal::new("it has the legacy format of `torch.save`, which PyTorch wrote before 1.6").with_hint(again)
        }
        [0x80, 2..=5, ..] => Refusal::new("it is a bare pickle, which no `torch.save` writes").with_hint(
            "make a dictionary of tensors in Python, and save it with `torch.save`; only do that with a file \
             that you trust",
        ),
        [0x89, b'H', b'D', b'F', ..] => Refusal::new("it is an HDF5 file, as Keras writes it")
            .with_hint("in Python, `numpy.savez(path, **arrays)` writes arrays under PyTorch's names, in its layouts"),
        [b'G', b'G', b'U', b'F', ..] => Refusal::new("it is a GGUF file, whose weights are made for inference")
            .with_hint("take the safetensors files that it was made from"),
        [0x1f, 0x8b, ..] => Refusal::new("it is compressed with gzip").with_hint("unpack it first"),
        _ if bytes.starts_with(b"version https://git-lfs") => {
            Refusal::new("it is a pointer of Git LFS, not the weights").with_hint("`git lfs pull` gets them")
        }
        _ => return None,
    })
}
