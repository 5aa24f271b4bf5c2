//! The format for its users: write, damage, open.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::history::{Exact, History, Position};
use crate::report::{Problem, Report};

fn position(epoch: u64, global_step: u64) -> Position {
    Position { epoch, step: global_step % 28, global_step, samples: global_step * 64 }
}

fn state(position: Position) -> State {
    let mut history = History::new();
    history.put("train_loss", position, 0.1 + 0.2).unwrap();
    history.put("val_loss", position, f64::NAN).unwrap();
    let learning_rate = HyperParameter {
        group: 0,
        name: "learning_rate".to_owned(),
        value: Exact(1e-3 / 3.0),
        owner: Some("warm-up".to_owned()),
    };
    State {
        position,
        threads: 2,
        hyper_parameters: vec![learning_rate],
        modules: BTreeMap::from([("dispatch".to_owned(), serde_json::json!({"disabled": []}))]),
        history,
    }
}

const WEIGHT: [u8; 24] = [7; 24];

fn contents(state: &State) -> CheckpointContents<'_> {
    let weight = TensorRef { name: "0.weight", dtype: Dtype::F32, shape: &[2, 3], bytes: &WEIGHT };
    CheckpointContents {
        weights: None,
        model: vec![weight, TensorRef { name: "0.running_mean", ..weight }],
        optimizer: vec![TensorRef { name: "0.weight.first_moment", ..weight }],
        copies: Vec::new(),
        rng: vec![TensorRef { name: "cpu", dtype: Dtype::U8, shape: &[4], bytes: &[1, 2, 3, 4] }],
        state,
        graph: "{\"nodes\": []}",
        data: "{\"splits\": {}}",
        run_file: "[run]\nname = \"digits\"\n",
        model_files: Vec::new(),
        plugins: vec![
            PluginState { instance: "early-stopping", bytes: b"\x00\xffwaited" },
            PluginState { instance: "checkpoint", bytes: b"" },
        ],
    }
}

/// Writes a checkpoint of a position under its name.
fn write_at(folder: &Path, position: Position) -> Written {
    write(&contents(&state(position)), &folder.join(folder_name(position))).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every file of a checkpoint.
fn files(checkpoint: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(checkpoint).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn everything_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_at(folder.path(), position(3, 84));
    assert_eq!(names(folder.path()), ["epoch-0003-step-00000084"]);
    let size: u64 = files(&written.path).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!((written.bytes, written.moved_aside), (size, None));

    let checkpoint = Checkpoint::open(&written.path).unwrap();
    assert_eq!((checkpoint.position(), checkpoint.host_version()), (position(3, 84), env!("CARGO_PKG_VERSION")));
    let expected = serde_json::to_string(&state(position(3, 84))).unwrap();
    assert_eq!(serde_json::to_string(&checkpoint.state().unwrap()).unwrap(), expected);
    assert_eq!(checkpoint.graph().unwrap(), "{\"nodes\": []}");
    assert_eq!(checkpoint.data().unwrap().as_deref(), Some("{\"splits\": {}}"));
    assert_eq!(checkpoint.run_file().unwrap(), "[run]\nname = \"digits\"\n");
    assert_eq!(checkpoint.plugins().collect::<Vec<_>>(), ["early-stopping", "checkpoint"]);
    assert_eq!(checkpoint.plugin("early-stopping").unwrap().as_deref(), Some(&b"\x00\xffwaited"[..]));
    assert_eq!(checkpoint.plugin("checkpoint").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(checkpoint.plugin("progress").unwrap(), None);

    let model = checkpoint.tensors(TensorFile::Model).unwrap();
    assert_eq!(model.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["0.running_mean", "0.weight"]);
    assert_eq!((model[1].dtype, &model[1].shape[..], &model[1].bytes[..]), (Dtype::F32, &[2, 3][..], &WEIGHT[..]));
    assert_eq!(checkpoint.tensors(TensorFile::Optimizer).unwrap()[0].name, "0.weight.first_moment");
    assert_eq!(checkpoint.tensors(TensorFile::Rng).unwrap()[0].bytes, [1, 2, 3, 4]);
}

#[test]
fn the_folders_above_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_at(&folder.path().join("run/checkpoints"), position(1, 28));
    Checkpoint::open(&written.path).unwrap();
}

#[test]
fn other_readers_open_the_tensor_files() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_at(folder.path(), position(1, 28));
    let bytes = fs::read(written.path.join("model.safetensors")).unwrap();
    let library = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(library.tensor("0.weight").unwrap().data(), WEIGHT);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_byte_is_found_or_says_the_same(
        file in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), mask in 1..=u8::MAX
    ) {
        let folder = tempfile::tempdir().unwrap();
        let written = write_at(folder.path(), position(3, 84));
        let files = files(&written.path);
        let path = file.get(&files);
        let mut bytes = fs::read(path).unwrap();
        if bytes.is_empty() {
            return Ok(());
        }
        let index = byte.index(bytes.len());
        bytes[index] ^= mask;
        fs::write(path, bytes).unwrap();
        match Checkpoint::open(&written.path) {
            // White space in the manifest does not matter.
            Ok(checkpoint) => {
                prop_assert!(path.ends_with("manifest.json"));
                prop_assert_eq!(checkpoint.position(), position(3, 84));
                prop_assert_eq!(checkpoint.plugins().count(), 2);
            }
            Err(CheckpointError::DigestDiffers { path: found, .. }) => prop_assert_eq!(&found, path),
            Err(error) => prop_assert!(path.ends_with("manifest.json"), "{error}"),
        }
    }

    #[test]
    fn a_truncated_file_is_found(file in any::<prop::sample::Index>(), length in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().unwrap();
        let written = write_at(folder.path(), position(3, 84));
        let files = files(&written.path);
        let path = file.get(&files);
        let bytes = fs::read(path).unwrap();
        // The line break at the manifest's end does not matter.
        let content = bytes.len() - usize::from(bytes.ends_with(b"}\n"));
        if content == 0 {
            return Ok(());
        }
        fs::write(path, &bytes[..length.index(content)]).unwrap();
        match Checkpoint::open(&written.path) {
            Err(CheckpointError::SizeDiffers { path: found, .. }) => prop_assert_eq!(&found, path),
            Err(CheckpointError::MalformedManifest { .. }) => prop_assert!(path.ends_with("manifest.json")),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

#[test]
fn a_change_after_opening_is_found_when_reading() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_at(folder.path(), position(3, 84));
    let checkpoint = Checkpoint::open(&written.path).unwrap();
    for path in files(&written.path) {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let differs = |error: CheckpointError| assert!(matches!(error, CheckpointError::DigestDiffers { .. }), "{error}");
    differs(checkpoint.state().unwrap_err());
    differs(checkpoint.graph().unwrap_err());
    differs(checkpoint.run_file().unwrap_err());
    differs(checkpoint.plugin("early-stopping").unwrap_err());
    for file in [TensorFile::Model, TensorFile::Optimizer, TensorFile::Rng] {
        differs(checkpoint.tensors(file).unwrap_err());
    }
}

#[test]
fn what_is_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    assert!(matches!(Checkpoint::open(&missing), Err(CheckpointError::NotFound(path)) if path == missing));
    assert!(matches!(Checkpoint::open(folder.path()), Err(CheckpointError::MissingManifest(_))));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Checkpoint::open(&file), Err(CheckpointError::MissingManifest(_))));

    let written = write_at(folder.path(), position(3, 84));
    let graph = written.path.join("graph.json");
    fs::remove_file(&graph).unwrap();
    assert!(matches!(Checkpoint::open(&written.path), Err(CheckpointError::MissingFile(path)) if path == graph));
}

/// Replaces the bytes of a listed file and updates the manifest, as another version of the host might.
fn forge(checkpoint: &Path, file: &str, bytes: &[u8]) {
    let mut manifest = manifest::Manifest::read(checkpoint).unwrap();
    let listed = manifest.files.iter_mut().find(|listed| listed.path == file).unwrap();
    (listed.bytes, listed.sha256) = (bytes.len() as u64, hashing::digest(bytes));
    let manifest = manifest::Manifest::new(manifest.position, manifest.weights, manifest.files).unwrap();
    fs::write(checkpoint.join(file), bytes).unwrap();
    fs::write(checkpoint.join(MANIFEST), manifest.text().unwrap()).unwrap();
}

#[test]
fn a_checkpoint_of_an_older_host_has_no_description_of_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_at(folder.path(), position(1, 28));
    let mut manifest = manifest::Manifest::read(&written.path).unwrap();
    manifest.files.retain(|listed| listed.path != DATA);
    let manifest = manifest::Manifest::new(manifest.position, manifest.weights, manifest.files).unwrap();
    fs::write(written.path.join(MANIFEST), manifest.text().unwrap()).unwrap();
    fs::remove_file(written.path.join(DATA)).unwrap();
    let checkpoint = Checkpoint::open(&written.path).unwrap();
    assert_eq!(checkpoint.data().unwrap(), None);
    checkpoint.state().unwrap();
}

#[test]
fn content_of_another_form_is_an_error_with_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_at(folder.path(), position(1, 28));
    forge(&written.path, STATE, b"{}");
    forge(&written.path, GRAPH, b"\xff");
    forge(&written.path, "model.safetensors", b"not one");
    let checkpoint = Checkpoint::open(&written.path).unwrap();
    for error in [checkpoint.state().err().unwrap(), checkpoint.graph().unwrap_err()] {
        assert!(matches!(error, CheckpointError::MalformedContent { .. }), "{error}");
        assert_eq!(Problem::from(&error).causes().len(), 1);
    }
    let error = checkpoint.tensors(TensorFile::Model).unwrap_err();
    assert!(matches!(error, CheckpointError::MalformedTensors { .. }), "{error}");
}

#[test]
fn a_checkpoint_of_the_same_position_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_at(folder.path(), position(3, 84));
    let again = state(position(3, 84));
    write(&CheckpointContents { graph: "{}", ..contents(&again) }, &first.path).unwrap();
    assert_eq!(Checkpoint::open(&first.path).unwrap().graph().unwrap(), "{}");
    assert_eq!(names(folder.path()), ["epoch-0003-step-00000084"]);
}

#[test]
fn a_checkpoint_of_another_position_or_version_and_a_file_stay() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_at(folder.path(), position(3, 84));
    let other = state(position(4, 112));
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    for taken in [&written.path, &file] {
        let error = write(&contents(&other), taken).unwrap_err();
        assert!(matches!(error, CheckpointError::Exists(_)) && error.hint().is_some(), "{error}");
    }
    assert_eq!(Checkpoint::open(&written.path).unwrap().position(), position(3, 84));
    let later = "{\"format\": \"host-checkpoint\", \"format_version\": 2}";
    fs::write(written.path.join("manifest.json"), later).unwrap();
    assert!(matches!(write(&contents(&other), &written.path), Err(CheckpointError::Exists(_))));
    assert!(matches!(write(&contents(&other), Path::new("/")), Err(CheckpointError::Exists(_))));
}

#[test]
fn a_damaged_checkpoint_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    for aside in ["epoch-0003-step-00000084.damaged-1", "epoch-0003-step-00000084.damaged-2"] {
        let written = write_at(folder.path(), position(3, 84));
        fs::remove_file(written.path.join("manifest.json")).unwrap();
        let again = write_at(folder.path(), position(3, 84));
        assert_eq!(again.moved_aside, Some(folder.path().join(aside)));
        assert!(folder.path().join(aside).join("model.safetensors").exists());
        Checkpoint::open(&again.path).unwrap();
    }
}

#[test]
fn a_write_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("epoch-0003-step-00000084");
    let state = state(position(3, 84));
    let sound = contents(&state);
    let weight = sound.model[0];
    let long = "a".repeat(300);
    let plugin = |instance| vec![PluginState { instance, bytes: b"" }];
    let failures = [
        CheckpointContents { optimizer: vec![weight, weight], ..sound.clone() },
        CheckpointContents { rng: vec![TensorRef { shape: &[1], ..weight }], ..sound.clone() },
        CheckpointContents { plugins: plugin("../x"), ..sound.clone() },
        CheckpointContents { plugins: [plugin("a"), plugin("a")].concat(), ..sound.clone() },
        // The system rejects such a long name, when most files are written.
        CheckpointContents { plugins: plugin(&long), ..sound.clone() },
    ];
    let errors: Vec<CheckpointError> =
        failures.iter().map(|failure| write(failure, &destination).unwrap_err()).collect();
    assert!(matches!(&errors[0], CheckpointError::DuplicateTensor { file: "optimizer.safetensors", .. }));
    assert!(matches!(&errors[1], CheckpointError::TensorSizeDiffers { .. }));
    assert!(matches!(&errors[2], CheckpointError::BadInstanceName(name) if name == "../x"));
    assert!(matches!(&errors[3], CheckpointError::BadInstanceName(name) if name == "a"));
    assert!(matches!(&errors[4], CheckpointError::Io { action: "create", .. }));
    assert!(names(folder.path()).is_empty());

    // The checkpoint that has the name is unharmed.
    let written = write_at(folder.path(), position(3, 84));
    write(&failures[4], &destination).unwrap_err();
    Checkpoint::open(&written.path).unwrap();
    assert_eq!(names(folder.path()), ["epoch-0003-step-00000084"]);
}

#[test]
fn the_latest_whole_checkpoint_is_found_and_the_damaged_are_told() {
    let folder = tempfile::tempdir().unwrap();
    for (epoch, step) in [(1, 28), (2, 56), (10, 280), (3, 84)] {
        write_at(folder.path(), position(epoch, step));
    }
    let latest = find_latest(folder.path()).unwrap();
    assert_eq!(latest.checkpoint.unwrap().position(), position(10, 280));
    assert!(latest.skipped.is_empty());

    let model = folder.path().join("epoch-0010-step-00000280/model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    bytes.pop();
    fs::write(model, bytes).unwrap();
    fs::remove_file(folder.path().join("epoch-0003-step-00000084/manifest.json")).unwrap();
    let latest = find_latest(folder.path()).unwrap();
    assert_eq!(latest.checkpoint.unwrap().position(), position(2, 56));
    assert!(matches!(latest.skipped[0].error, CheckpointError::SizeDiffers { .. }));
    assert!(matches!(latest.skipped[1].error, CheckpointError::MissingManifest(_)));
    assert!(latest.skipped.iter().all(|skipped| skipped.error.hint().is_some()));
}

#[test]
fn what_a_crash_left_behind_is_ignored_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_at(folder.path(), position(1, 28));
    // The state after a crash just before the rename: complete, under its temporary name.
    let whole = folder.path().join(".tmp-epoch-0002-step-00000056-1-0");
    let later = write_at(folder.path(), position(2, 56));
    fs::rename(later.path, &whole).unwrap();
    let half = folder.path().join(".tmp-epoch-0002-step-00000056-1-1");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("model.safetensors"), "half").unwrap();
    let pointer = folder.path().join(".tmp-last-1-2");
    fs::write(&pointer, "epoch-0001-step-00000028").unwrap();

    let latest = find_latest(folder.path()).unwrap();
    assert_eq!(latest.checkpoint.unwrap().path(), written.path);
    assert!(latest.skipped.is_empty());
    assert_eq!(remove_temporaries(folder.path()).unwrap(), [whole, half, pointer]);
    assert_eq!(names(folder.path()), ["epoch-0001-step-00000028"]);
}

#[test]
fn a_pointer_to_a_checkpoint_opens_it() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_at(folder.path(), position(1, 28));
    set_pointer(folder.path(), "last", &written.path).unwrap();
    assert_eq!(read_pointer(folder.path(), "last").unwrap(), Some(written.path));
    assert_eq!(Checkpoint::open(&folder.path().join("last")).unwrap().position(), position(1, 28));
}
