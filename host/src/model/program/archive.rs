//! The zip file of a program: a folder with any name, in which nothing is compressed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};

use serde::Deserialize;
use tch::{Kind, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::document::{TensorMeta, kind_of};
use crate::refusal::Refusal;
use crate::torch::program;

/// What writes such files.
const HOW: &str = "in Python, `torch.export.save(torch.export.export(model, …), path)` writes one";

/// The most bytes of a text in it. `model.json` of a net of 1,000 layers has some 10 MB.
const MOST_TEXT: u64 = 1 << 30;

/// An open archive.
pub(super) struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// The folder that everything is in, with a slash.
    root: String,
    /// The storages that were read, by their file.
    storages: BTreeMap<String, Tensor>,
}

/// Where the tensors of a model are: `model_weights_config.json` and its like.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Payloads {
    #[serde(default)]
    pub(super) config: BTreeMap<String, Payload>,
}

/// A tensor in the archive.
#[derive(Debug, Deserialize)]
pub(super) struct Payload {
    /// The file of its storage.
    pub(super) path_name: String,
    #[serde(default)]
    use_pickle: bool,
    pub(super) tensor_meta: TensorMeta,
}

impl Archive {
    pub(super) fn open(file: File) -> Result<Self, Refusal> {
        let not_zip = |error: zip::result::ZipError| {
            Refusal::new(format!("it is not a whole zip file, or is damaged: {error}")).with_hint(HOW)
        };
        let length = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(not_zip)?;
        let mut bytes = 0u64;
        let mut root = None;
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(not_zip)?;
            let name = entry.name();
            if name.starts_with(['/', '\\']) || name.contains(':') || name.split(['/', '\\']).any(|part| part == "..") {
                return Err(Refusal::new(format!("its part `{name}` leads out of the archive")));
            }
            if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
                return Err(Refusal::new(format!(
                    "its part `{name}` is compressed or encrypted, which PyTorch never does"
                ))
                .with_hint("save it again with `torch.export.save`; do not pack it with another program"));
            }
            bytes = bytes.saturating_add(entry.size());
            if let Some(folder) = name.strip_suffix("models/model.json") {
                root = Some(folder.to_owned());
            }
        }
        if bytes > length {
            return Err(Refusal::new("its parts are larger than the file"));
        }
        let root = root.ok_or_else(|| {
            let names: Vec<&str> = zip.file_names().collect();
            let is_script = names.iter().any(|name| name.ends_with("/constants.pkl"));
            let is_state = names.iter().any(|name| name.ends_with("/data.pkl"));
            match (is_script, is_state) {
                (true, _) => Refusal::new("it is a TorchScript module").with_hint("name it as `torchscript` instead"),
                (_, true) => Refusal::new("it is a file of `torch.save`, which holds no program").with_hint(HOW),
                _ => Refusal::new("it has no `models/model.json`: it is no program, or of a PyTorch before 2.9")
                    .with_hint(HOW),
            }
        })?;
        let mut archive = Self { zip, root, storages: BTreeMap::new() };
        let (format, order) = (archive.text("archive_format")?, archive.text("byteorder")?);
        if format.trim() != "pt2" {
            return Err(Refusal::new(format!("its format is `{}`, not `pt2`", format.trim())));
        }
        if order.trim() != "little" {
            return Err(Refusal::new(format!("its byte order is `{}`, and only `little` is read", order.trim())));
        }
        Ok(archive)
    }

    /// The text of a part.
    pub(super) fn text(&mut self, part: &str) -> Result<String, Refusal> {
        let name = format!("{}{part}", self.root);
        let entry = self
            .zip
            .by_name(&name)
            .map_err(|error| Refusal::new(format!("its part `{part}` cannot be read: {error}")))?;
        if entry.size() > MOST_TEXT {
            return Err(Refusal::new(format!("its part `{part}` has {} bytes", entry.size())));
        }
        let mut text = String::new();
        entry
            .take(MOST_TEXT)
            .read_to_string(&mut text)
            .map_err(|error| Refusal::new(format!("its part `{part}` cannot be read: {error}")))?;
        Ok(text)
    }

    /// Where its tensors are, by their names.
    pub(super) fn payloads(&mut self, part: &str) -> Result<Payloads, Refusal> {
        let text = self.text(part)?;
        serde_json::from_str(&text)
            .map_err(|error| Refusal::new(format!("its part `{part}` is not understood: {error}")))
    }

    /// The tensor of a payload, on the CPU: a leaf that shares its storage with those that shared it in Python.
    pub(super) fn tensor(
        &mut self,
        folder: &str,
        name: &str,
        payload: &Payload,
        learns: bool,
    ) -> Result<Tensor, Refusal> {
        if payload.use_pickle {
            return Err(Refusal::new(format!("its tensor `{name}` is pickled, and pickles are not opened"))
                .with_hint("export with PyTorch 2.9 or newer, without subclasses of tensors"));
        }
        let meta = &payload.tensor_meta;
        let (sizes, strides) =
            meta.fixed().ok_or_else(|| Refusal::new(format!("the sizes of `{name}` are not fixed")))?;
        let kind = kind_of(meta.dtype).ok_or_else(|| Refusal::new(format!("the dtype of `{name}` is not known")))?;
        let storage = self.storage(&format!("{folder}/{}", payload.path_name), name, kind)?;
        let offset = meta.storage_offset.fixed().unwrap_or(0);
        let within = |refusal: crate::torch::TorchError| Refusal::new(format!("`{name}`: {}", Refusal::from(refusal)));
        program::view(&storage, &sizes, &strides, offset, learns).map_err(within)
    }

    fn storage(&mut self, part: &str, name: &str, kind: Kind) -> Result<Tensor, Refusal> {
        // Of two dtypes over one storage, each has its own copy; PyTorch does not write any.
        let key = format!("{part} {kind:?}");
        if let Some(storage) = self.storages.get(&key) {
            return Ok(storage.shallow_clone());
        }
        let unreadable =
            |error: &dyn std::fmt::Display| Refusal::new(format!("the values of `{name}` cannot be read: {error}"));
        let mut entry = self.zip.by_name(&format!("{}{part}", self.root)).map_err(|error| unreadable(&error))?;
        let size = kind.elt_size_in_bytes() as u64;
        if entry.size() % size != 0 {
            return Err(Refusal::new(format!(
                "the values of `{name}` have {} bytes, which is no multiple of {size}",
                entry.size()
            )));
        }
        let count = usize::try_from(entry.size() / size).map_err(|error| unreadable(&error))?;
        let storage =
            program::storage(kind, count, |bytes| entry.read_exact(bytes).map_err(|error| unreadable(&error)))?;
        // The checksum is compared where the part ends.
        entry
            .read(&mut [0])
            .map_err(|error| unreadable(&error).with_hint("the file is damaged: copy or export it again"))?;
        self.storages.insert(key, storage.shallow_clone());
        Ok(storage)
    }
}
