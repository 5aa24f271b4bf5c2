//! `manifest.json`: the files of a checkpoint, and the proof that it is complete.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hashing::digest;
use super::tensors::TensorFile;
use super::{CheckpointError, GRAPH, MANIFEST, RUN_FILE, STATE};
use crate::history::Position;
use crate::regular_file;

/// The format's name in the manifest.
const FORMAT: &str = "host-checkpoint";
/// The version that this host writes and reads.
const FORMAT_VERSION: u64 = 1;
/// The largest manifest, in bytes: room for a hundred thousand files.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The manifest. The order of its fields is the order in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: String,
    format_version: u64,
    /// The version of the host that wrote the checkpoint.
    pub(super) host_version: String,
    pub(super) position: Position,
    /// Where the weights come from, if not from the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) weights: Option<EarlierWeights>,
    pub(super) files: Vec<ListedFile>,
    /// The digest of the manifest's compact JSON with an empty string here.
    sha256: String,
}

/// Weights of an earlier step, which a callback restored; the training's own are among the copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlierWeights {
    /// When they were those of the training.
    pub position: Position,
    /// The finite numbers that were measured of them.
    pub metrics: BTreeMap<String, f64>,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListedFile {
    /// Relative to the checkpoint, with `/` between its parts.
    pub(super) path: String,
    pub(super) bytes: u64,
    /// In lower-case hexadecimal.
    pub(super) sha256: String,
}

impl Manifest {
    pub(super) fn new(
        position: Position,
        weights: Option<EarlierWeights>,
        files: Vec<ListedFile>,
    ) -> serde_json::Result<Manifest> {
        let mut manifest = Manifest {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            host_version: env!("CARGO_PKG_VERSION").to_owned(),
            position,
            weights,
            files,
            sha256: String::new(),
        };
        manifest.sha256 = manifest.digest()?;
        Ok(manifest)
    }

    /// Reads and verifies the manifest of the checkpoint at `folder`: its own digest, and that each listed path is
    /// inside. Does not check the listed files.
    pub(super) fn read(folder: &Path) -> Result<Manifest, CheckpointError> {
        let path = folder.join(MANIFEST);
        let mut bytes = Vec::new();
        let read = regular_file::open(&path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            return Err(match error.kind() {
                io::ErrorKind::NotFound if !folder.exists() => CheckpointError::NotFound(folder.to_owned()),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    CheckpointError::MissingManifest(folder.to_owned())
                }
                _ => CheckpointError::io("read", &path)(error),
            });
        }
        Manifest::parse(&path, &bytes)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest, CheckpointError> {
        let malformed = |reason: String| CheckpointError::MalformedManifest { path: path.to_owned(), reason };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(malformed(format!("it has more than {MAX_BYTES} bytes")));
        }
        // Check the version first: a later format may differ in everything else.
        let value: Value = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(malformed(format!("its `format` is not `{FORMAT}`")));
        }
        match value.get("format_version").and_then(Value::as_u64) {
            Some(FORMAT_VERSION) => {}
            Some(found) => {
                let known = FORMAT_VERSION;
                return Err(CheckpointError::UnknownFormatVersion { path: path.to_owned(), found, known });
            }
            None => return Err(malformed("it has no `format_version`".to_owned())),
        }
        // From the bytes, not from the value: a duplicate key is an error here.
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if manifest.digest().map_err(|error| malformed(error.to_string()))? != manifest.sha256 {
            return Err(CheckpointError::ManifestDigestDiffers(path.to_owned()));
        }
        let mut listed = HashSet::new();
        for file in &manifest.files {
            if !is_inside(&file.path) {
                let entry = file.path.clone();
                return Err(CheckpointError::PathEscape { path: path.to_owned(), entry });
            }
            if !listed.insert(file.path.as_str()) {
                return Err(malformed(format!("it lists `{}` twice", file.path)));
            }
        }
        let tensors = TensorFile::ALL.map(TensorFile::path);
        for required in tensors.into_iter().chain([STATE, GRAPH, RUN_FILE]) {
            if !listed.contains(required) {
                return Err(malformed(format!("it does not list `{required}`")));
            }
        }
        Ok(manifest)
    }

    /// The file's text.
    pub(super) fn text(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    fn digest(&self) -> serde_json::Result<String> {
        let manifest = Manifest { sha256: String::new(), ..self.clone() };
        Ok(digest(&serde_json::to_vec(&manifest)?))
    }
}

/// Whether a path is relative, stays inside its folder, and means the same on every system.
fn is_inside(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    !path.contains(['\\', ':', '\0']) && path.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn example() -> Manifest {
        let tensors = TensorFile::ALL.map(TensorFile::path);
        let files = tensors.into_iter().chain([STATE, GRAPH, RUN_FILE]).map(|path| ListedFile {
            path: path.to_owned(),
            bytes: 3,
            sha256: digest(b"abc"),
        });
        Manifest::new(Position::default(), None, files.collect()).unwrap()
    }

    fn parse(bytes: &[u8]) -> Result<Manifest, CheckpointError> {
        Manifest::parse(Path::new("manifest.json"), bytes)
    }

    /// The error of a manifest that was changed by someone who knows how to compute its digest.
    fn forged(change: impl FnOnce(&mut Manifest)) -> CheckpointError {
        let mut manifest = example();
        change(&mut manifest);
        manifest.sha256 = manifest.digest().unwrap();
        parse(manifest.text().unwrap().as_bytes()).unwrap_err()
    }

    #[test]
    fn a_written_manifest_reads_back() {
        assert_eq!(parse(example().text().unwrap().as_bytes()).unwrap(), example());
    }

    #[test]
    fn a_later_version_is_known_as_such_whatever_else_it_has() {
        let later = json!({"format": "host-checkpoint", "format_version": 2, "shards": []}).to_string();
        let error = parse(later.as_bytes()).unwrap_err();
        assert!(matches!(error, CheckpointError::UnknownFormatVersion { found: 2, known: 1, .. }), "{error}");
    }

    #[test]
    fn paths_that_leave_the_checkpoint_are_refused() {
        for path in ["../x", "/etc/passwd", "a/../../b", "a//b", "", ".", "a\\..\\b", "C:x"] {
            let error = forged(|manifest| manifest.files[0].path = path.to_owned());
            assert!(matches!(&error, CheckpointError::PathEscape { entry, .. } if entry == path), "{error}");
        }
    }

    #[test]
    fn what_is_listed_twice_or_not_at_all_is_refused() {
        let twice = forged(|manifest| manifest.files.push(manifest.files[0].clone()));
        assert!(twice.to_string().ends_with("it lists `model.safetensors` twice"), "{twice}");
        let missing = forged(|manifest| drop(manifest.files.remove(0)));
        assert!(missing.to_string().ends_with("it does not list `model.safetensors`"), "{missing}");
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for bytes in [&b""[..], b"{}", b"[]", b"{\"format\": \"host-checkpoint\"}", b"\xff\xfe"] {
            assert!(matches!(parse(bytes), Err(CheckpointError::MalformedManifest { .. })));
        }
        let endless = vec![b' '; MAX_BYTES as usize + 1];
        assert!(matches!(parse(&endless), Err(CheckpointError::MalformedManifest { .. })));
    }

    #[test]
    fn a_changed_manifest_is_refused() {
        let text = example().text().unwrap().replace("\"bytes\": 3", "\"bytes\": 4");
        assert!(matches!(parse(text.as_bytes()), Err(CheckpointError::ManifestDigestDiffers(_))));
    }

    proptest! {
        #[test]
        fn any_other_byte_is_refused_or_says_the_same(index in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = example().text().unwrap().into_bytes();
            let index = index.index(bytes.len());
            bytes[index] = byte;
            if let Ok(manifest) = parse(&bytes) {
                prop_assert_eq!(manifest, example());
            }
        }

        #[test]
        fn a_truncated_manifest_is_refused(index in any::<prop::sample::Index>()) {
            let bytes = example().text().unwrap().into_bytes();
            // A manifest without its last line break is still valid.
            prop_assert!(parse(&bytes[..index.index(bytes.len() - 1)]).is_err());
        }
    }
}
