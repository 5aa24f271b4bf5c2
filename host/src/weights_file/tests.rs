use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::*;
use crate::report::Report;

fn figures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/figures")
}

/// A file that `tests/figures/weights.py` wrote.
fn file(name: &str) -> PathBuf {
    figures().join("weights").join(name)
}

/// A tensor, as `tests/figures/weights.py` describes it.
#[derive(Deserialize)]
struct Figures {
    dtype: String,
    shape: Vec<i64>,
    sum: f64,
    first: Vec<f64>,
}

/// The values of a tensor, as doubles.
fn values(stored: &StoredTensor, kind: Kind) -> Vec<f64> {
    let shape: Vec<i64> = stored.shape.iter().map(|length| *length as i64).collect();
    let mut target = Tensor::zeros(&shape[..], (kind, Device::Cpu));
    stored.copy_into(&mut target).unwrap();
    Vec::try_from(target.to_kind(Kind::Double).reshape([-1])).unwrap()
}

/// The message and the cause of the error, without the path; and the hint.
fn refused(path: &Path) -> (String, String) {
    let error = WeightsFile::open(path).map(|_| ()).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    (cause.unwrap_or_else(|| error.to_string()), error.hint().unwrap_or_default())
}

/// A file in a folder of its own.
fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// A zip file with these parts.
fn zip(parts: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// The parts of a file of PyTorch, each changed by `change`, in a new file.
fn changed(name: &str, mut change: impl FnMut(&str, &mut Vec<u8>)) -> Vec<u8> {
    let mut archive = ZipArchive::new(std::fs::File::open(file(name)).unwrap()).unwrap();
    let mut parts = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let (name, mut bytes) = (entry.name().to_owned(), Vec::new());
        std::io::copy(&mut entry, &mut bytes).unwrap();
        change(&name, &mut bytes);
        parts.push((name, bytes));
    }
    let parts: Vec<(&str, &[u8])> = parts.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    zip(&parts, CompressionMethod::Stored)
}

#[test]
fn every_format_is_read_as_its_own_library_reads_it() {
    let text = std::fs::read_to_string(figures().join("weights.json")).unwrap();
    let all: BTreeMap<String, BTreeMap<String, Figures>> = serde_json::from_str(&text).unwrap();
    assert!(all.len() >= 14, "{:?}", all.keys());
    for (name, expected) in &all {
        let weights = WeightsFile::open(&file(name)).unwrap();
        let names: Vec<&String> = weights.tensors.keys().collect();
        assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{name}");
        for (tensor, figures) in expected {
            let stored = &weights.tensors[tensor];
            let shape: Vec<i64> = stored.shape.iter().map(|length| *length as i64).collect();
            assert_eq!(
                (stored.dtype.name(), shape),
                (figures.dtype.as_str(), figures.shape.clone()),
                "{name}: {tensor}"
            );
            let kind = match figures.dtype.as_str() {
                "int64" => Kind::Int64,
                "bool" => Kind::Bool,
                "float8_e4m3fn" | "uint16" => {
                    assert!(!stored.becomes(Kind::Float), "{name}: {tensor}");
                    continue;
                }
                _ => Kind::Double,
            };
            assert!(stored.becomes(kind), "{name}: {tensor}");
            let values = values(stored, kind);
            let sum: f64 = values.iter().sum();
            assert!((sum - figures.sum).abs() < 1e-9, "{name}: {tensor}: {sum} {}", figures.sum);
            assert_eq!(values.iter().copied().take(4).collect::<Vec<_>>(), figures.first, "{name}: {tensor}");
        }
    }
}

#[test]
fn a_wrapped_state_dict_is_told_and_tied_weights_are_one_place() {
    let within = |name: &str| WeightsFile::open(&file(name)).unwrap().within;
    assert_eq!(within("state_dict.pt"), None);
    assert_eq!(within("training.pt").as_deref(), Some("model"));
    assert_eq!(within("lightning.ckpt").as_deref(), Some("state_dict"));
    let weights = WeightsFile::open(&file("state_dict.pt")).unwrap();
    let [embedding, head, bias] =
        ["embedding.weight", "head.weight", "head.bias"].map(|name| weights.tensors[name].clone());
    assert!(embedding.place() == head.place());
    assert!(embedding.place() != bias.place());
}

#[test]
fn values_become_other_floats_and_nothing_else() {
    let weights = WeightsFile::open(&file("views.pt")).unwrap();
    for kind in [Kind::Double, Kind::Float, Kind::Half, Kind::BFloat16] {
        for name in ["base", "transposed", "half", "brain", "double"] {
            assert!(weights.tensors[name].becomes(kind), "{name} {kind:?}");
        }
        assert!(!weights.tensors["counter"].becomes(kind) && !weights.tensors["mask"].becomes(kind));
    }
    assert_eq!(values(&weights.tensors["half"], Kind::Float), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
    assert!(weights.tensors["counter"].becomes(Kind::Int64) && !weights.tensors["base"].becomes(Kind::Int64));
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let told = |name: &str| refused(&file(name));
    let (message, hint) = told("hostile.pt");
    assert_eq!(message, "its pickle refers to `posix.system`, and nothing that a file names is executed");
    assert!(hint.contains("weights_only=True"), "{hint}");
    let (message, _) = told("namespace.pt");
    assert_eq!(message, "its pickle refers to `argparse.Namespace`, and nothing that a file names is executed");
    let (message, hint) = told("whole.pt");
    assert_eq!(
        message,
        "it is a whole pickled object of the class `torch.nn.modules.container.Sequential`, not a state dict"
    );
    assert_eq!(hint, "in Python, `torch.save(model.state_dict(), path)` writes the weights alone");
    let (message, hint) = told("legacy.pt");
    assert_eq!(message, "it has the legacy format of `torch.save`, which PyTorch wrote before 1.6");
    assert!(hint.contains("torch.load(path)"), "{hint}");
    assert_eq!(told("tensor.pt").0, "it holds a single tensor, not a state dict");
    let (message, hint) = told("other_keys.pt");
    assert_eq!(message, "its dictionary has no tensors, and none under `state_dict`, `model_state_dict` or `model`");
    assert!(hint.contains(r#"["ema"]"#), "{hint}");
    let (message, hint) = refused(&figures().join("torchscript.pt"));
    assert_eq!(message, "it is a TorchScript module");
    assert!(hint.contains("`torchscript`"), "{hint}");
    let (message, hint) = refused(&figures().join("exported/mlp.pt2"));
    assert_eq!(message, "it is an exported program");
    assert!(hint.contains("`exported`"), "{hint}");
    for (name, bytes, expected) in [
        ("a.h5", &b"\x89HDF\r\n"[..], "it is an HDF5 file, as Keras writes it"),
        ("a.gguf", b"GGUF\x03", "it is a GGUF file, whose weights are made for inference"),
        ("a.pt", b"\x80\x04\x95", "it is a bare pickle, which no `torch.save` writes"),
        (
            "a.safetensors",
            b"version https://git-lfs.github.com/spec/v1\n",
            "it is a pointer of Git LFS, not the weights",
        ),
        ("a.pt", b"not one", "it is no file of safetensors, `torch.save` or `numpy.savez`"),
        ("a.safetensors", b"not one", "it is not a whole safetensors file: header too small"),
        ("a.pt", b"", "it is no file of safetensors, `torch.save` or `numpy.savez`"),
    ] {
        let (_folder, path) = written(name, bytes);
        assert_eq!(refused(&path).0, expected);
    }
}

#[test]
fn archives_that_are_not_what_they_say_are_refused() {
    let in_file = |bytes: &[u8]| {
        let (_folder, path) = written("a.pt", bytes);
        refused(&path).0
    };
    let big = changed("state_dict.pt", |name, bytes| {
        if name.ends_with("byteorder") {
            *bytes = b"big".to_vec();
        }
    });
    assert_eq!(in_file(&big), "its byte order is `big`, and only `little` is read");
    let short = changed("state_dict.pt", |name, bytes| {
        if name.ends_with("data/0") {
            bytes.pop();
        }
    });
    assert_eq!(
        in_file(&short),
        "its tensor `conv.weight` cannot be read: the part `state_dict/data/0` has 71 bytes, \
         which are fewer than its pickle says"
    );
    let packed = zip(&[("a/data.pkl", b"\x80\x02}.")], CompressionMethod::Deflated);
    assert_eq!(in_file(&packed), "its part `a/data.pkl` is compressed, which PyTorch never does");
    let other = zip(&[("readme.txt", b"text")], CompressionMethod::Stored);
    assert_eq!(in_file(&other), "it is a zip file with neither the `data.pkl` of `torch.save` nor arrays of NumPy");
    let two = zip(&[("a/data.pkl", b"\x80\x02}."), ("b/data.pkl", b"\x80\x02}.")], CompressionMethod::Stored);
    assert_eq!(in_file(&two), "it has two pickles, of which PyTorch writes one");
    let empty = zip(&[("a/data.pkl", b"")], CompressionMethod::Stored);
    assert_eq!(in_file(&empty), "its pickle ends too early");
    // A file of before PyTorch 2.1 does not say its byte order.
    let old = zip(&[("a/data.pkl", b"\x80\x02}.")], CompressionMethod::Stored);
    assert!(in_file(&old).starts_with("its dictionary has no tensors"), "{}", in_file(&old));
}

#[test]
fn values_that_are_not_aligned_are_read() {
    let source = std::fs::read(file("shards/model-00001-of-00002.safetensors")).unwrap();
    let header = u64::from_le_bytes(*source.first_chunk().unwrap());
    let mut bytes = (header + 1).to_le_bytes().to_vec();
    bytes.extend_from_slice(&source[8..8 + header as usize]);
    bytes.push(b' ');
    bytes.extend_from_slice(&source[8 + header as usize..]);
    let (_folder, path) = written("a.safetensors", &bytes);
    let [moved, plain] = [&path, &file("shards/model-00001-of-00002.safetensors")].map(|path| {
        let weights = WeightsFile::open(path).unwrap();
        values(&weights.tensors["fc1.weight"], Kind::Float)
    });
    assert_eq!(moved, plain);
}

#[test]
fn truth_values_of_other_bytes_are_truth_values() {
    let view = ::safetensors::tensor::TensorView::new(::safetensors::Dtype::BOOL, vec![3], &[0, 7, 1]).unwrap();
    let (_folder, path) = written("a.safetensors", &::safetensors::serialize([("mask", view)], None).unwrap());
    let weights = WeightsFile::open(&path).unwrap();
    assert_eq!(values(&weights.tensors["mask"], Kind::Bool), [0.0, 1.0, 1.0]);
}

#[test]
fn a_file_that_is_shortened_is_an_error() {
    for name in ["state_dict.pt", "arrays.npz", "compressed.npz"] {
        let (_folder, path) = written(name, &std::fs::read(file(name)).unwrap());
        let weights = WeightsFile::open(&path).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
        let stored = weights.tensors.values().next().unwrap();
        let shape: Vec<i64> = stored.shape.iter().map(|length| *length as i64).collect();
        let mut target = Tensor::zeros(&shape[..], (Kind::Float, Device::Cpu));
        let error = stored.copy_into(&mut target).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap();
        assert_eq!(cause, "it was shortened while it was read", "{name}");
    }
}

#[test]
fn shards_are_those_of_their_index() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        std::fs::copy(file("shards").join(name), folder.path().join(name)).unwrap();
    }
    let index = folder.path().join("model.safetensors.index.json");
    let told = |text: &str| {
        std::fs::write(&index, text).unwrap();
        refused(folder.path()).0
    };
    let first = "model-00001-of-00002.safetensors";
    assert_eq!(
        told(&format!(r#"{{"weight_map": {{"fc9.weight": "{first}"}}}}"#)),
        format!("it says that `fc9.weight` is in `{first}`, which has no such tensor")
    );
    assert_eq!(
        told(r#"{"weight_map": {"a": "../a.safetensors"}}"#),
        "its file `../a.safetensors` is not one beside it"
    );
    assert!(told("{}").starts_with("it is no index of shards"), "{}", told("{}"));
    assert!(told(r#"{"weight_map": {"a": "b.safetensors"}}"#).contains("No such file"));
    std::fs::copy(folder.path().join(first), folder.path().join("copy.safetensors")).unwrap();
    let twice = told(&format!(r#"{{"weight_map": {{"fc1.weight": "{first}", "fc1.bias": "copy.safetensors"}}}}"#));
    assert!(twice.starts_with("its tensor `fc1.bias` is in `") && twice.ends_with("`, too"), "{twice}");
}

#[test]
fn a_folder_is_a_checkpoint_or_holds_a_model() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(refused(folder.path()).0, "it is a folder without weights");
    std::fs::create_dir(folder.path().join("checkpoints")).unwrap();
    let (message, hint) = refused(folder.path());
    assert_eq!(message, "it is a run folder, which has many weights");
    assert!(hint.contains("last`"), "{hint}");
    let shard = file("shards/model-00001-of-00002.safetensors");
    std::fs::copy(shard, folder.path().join("model.safetensors")).unwrap();
    let weights = WeightsFile::open(folder.path()).unwrap();
    assert_eq!(weights.tensors.keys().collect::<Vec<_>>(), ["fc1.bias", "fc1.weight"]);
    // A manifest makes it a checkpoint, all of which must be right.
    std::fs::write(folder.path().join("manifest.json"), "{}").unwrap();
    assert!(matches!(WeightsFile::open(folder.path()), Err(WeightsFileError::Checkpoint(_))));
}

/// Opens a file and copies all of its tensors that are small; errors are as good as values.
fn read_all(bytes: &[u8]) {
    let (_folder, path) = written("a.pt", bytes);
    let Ok(weights) = WeightsFile::open(&path) else { return };
    for stored in weights.tensors.values() {
        if stored.shape.iter().product::<usize>() < 10_000 && stored.becomes(Kind::Float) {
            let shape: Vec<i64> = stored.shape.iter().map(|length| *length as i64).collect();
            let _ = stored.copy_into(&mut Tensor::zeros(&shape[..], (Kind::Float, Device::Cpu)));
        }
    }
}

proptest! {
    #[test]
    fn damaged_files_are_read_or_refused(
        name in prop::sample::select(vec![
            "views.pt",
            "training4.pt",
            "compressed.npz",
            "arrays.npz",
            "shards/model-00002-of-00002.safetensors",
        ]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = std::fs::read(file(name)).unwrap();
        for (position, byte) in changes {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        read_all(&bytes);
    }

    #[test]
    fn damaged_pickles_in_whole_archives_are_read_or_refused(
        name in prop::sample::select(vec!["views.pt", "training.pt", "training4.pt", "parameters.pt", "float8.pt"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let bytes = changed(name, |name, bytes| {
            if name.ends_with("data.pkl") {
                for (position, byte) in &changes {
                    let position = position.index(bytes.len());
                    bytes[position] = *byte;
                }
                if let Some(end) = &end {
                    bytes.truncate(end.index(bytes.len()));
                }
            }
        });
        read_all(&bytes);
    }
}
