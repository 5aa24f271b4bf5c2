use std::path::Path;
use std::process::Command;

use fixture::shown;

use crate::training::Training;

/// The layers of [`Training`] that the tests replace.
const CONVOLUTION: &str = r#"  { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1 },
  { type = "batch_norm" },
  { type = "relu" },
  { type = "max_pool2d", kernel_size = 2 },
  { type = "flatten" },
"#;

/// Rows of an image as a sequence, through every layer whose state dict is more than a weight and a bias.
const SEQUENCE: &str = r#"  { type = "reshape", shape = [8, 8] },
  { type = "lstm", hidden_size = 6, num_layers = 2, bidirectional = true },
  { type = "gru", hidden_size = 8 },
  { type = "multi_head_attention", num_heads = 2 },
  { type = "layer_norm" },
  { type = "flatten" },
"#;

const INLINE: &str = r#"
[[plugins]]
kind = "weights"
options = { formats = ["safetensors", "pt", "npz"] }
"#;

const BACKGROUND: &str = r#"
[[plugins]]
kind = "weights"
name = "behind"
dispatch = "background"
when = { every = "1 epoch" }
options = { formats = ["safetensors", "pt", "npz"], log_dir = "behind", name = "model-{epoch}-{step}" }
"#;

const FORMATS: [&str; 3] = ["safetensors", "pt", "npz"];

/// Evaluates the model with these weights: an epoch that changes none of them, nor a statistic.
fn evaluation(layers: &str, weights: &Path) -> Training {
    let layers = layers.replace("\"batch_norm\"", "\"batch_norm\", momentum = 0.0");
    Training::new("")
        .with(CONVOLUTION, &layers)
        .with("[model]\n", &format!("[model]\ninit_from = '{}'\n", weights.display()))
        .with("learning_rate = 3e-3", "learning_rate = 0.0")
        .with("epochs = 2", "epochs = 1")
}

#[test]
fn a_run_that_starts_from_what_was_written_computes_the_same() {
    for layers in [CONVOLUTION, SEQUENCE] {
        let training = Training::new(&format!("{INLINE}{BACKGROUND}")).with(CONVOLUTION, layers);
        training.run("run", &[]);
        let bytes = |name: &str| std::fs::read(training.path("run").join(name)).expect("an export");
        for format in FORMATS {
            let (inline, background) =
                (format!("exports/model.{format}"), format!("behind/model-0002-00000046.{format}"));
            assert!(bytes(&inline) == bytes(&background), "{inline} and {background} differ");
        }
        let exports = training.status("run")["artifacts"]["exports"].clone();
        assert_eq!(exports.as_array().map(Vec::len), Some(9), "{exports}");

        let again = evaluation(layers, &training.path("run/exports/model.safetensors"));
        again.run("run", &[]);
        for metric in ["val_loss", "val_accuracy"] {
            let [before, after] =
                [&training, &again].map(|training| training.status("run")["metrics"][metric].as_f64());
            assert!(before.is_some(), "{metric}");
            assert_eq!(before.map(f64::to_bits), after.map(f64::to_bits), "{metric}: {before:?} {after:?}");
        }
        // Other weights give another number, as the first epoch's do.
        let earlier = evaluation(layers, &training.path("run/behind/model-0001-00000023.safetensors"));
        earlier.run("run", &[]);
        assert_ne!(earlier.status("run")["metrics"]["val_loss"], training.status("run")["metrics"]["val_loss"]);
    }
}

/// Reads the three files. Of the state dict, what `torch.load` does, with no more of a pickle than `weights_only` lets
/// through; then all must be the same.
const READ: &str = r#"
import collections, io, json, pickle, sys, zipfile
import numpy
from safetensors import safe_open

class Unpickler(pickle.Unpickler):
    def __init__(self, archive):
        super().__init__(io.BytesIO(archive.read('archive/data.pkl')))
        self.archive = archive
    def find_class(self, module, name):
        return {
            'collections.OrderedDict': collections.OrderedDict,
            'torch.FloatStorage': '<f4',
            'torch.LongStorage': '<i8',
            'torch._utils._rebuild_tensor_v2': self.tensor,
        }[f'{module}.{name}']
    def persistent_load(self, identity):
        kind, dtype, key, device, elements = identity
        assert (kind, device) == ('storage', 'cpu')
        storage = numpy.frombuffer(self.archive.read(f'archive/data/{key}'), dtype)
        assert len(storage) == elements
        return storage
    def tensor(self, storage, offset, size, stride, requires_grad, hooks):
        assert offset == 0 and requires_grad is False and hooks == {}
        strides = [length * storage.itemsize for length in stride]
        return numpy.lib.stride_tricks.as_strided(storage, size, strides)

folder = sys.argv[1]
archive = zipfile.ZipFile(f'{folder}/model.pt')
assert archive.testzip() is None and all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
state_dict = Unpickler(archive).load()
arrays = numpy.load(f'{folder}/model.npz')
with safe_open(f'{folder}/model.safetensors', 'numpy') as file:
    metadata = file.metadata()
    tensors = {name: file.get_tensor(name) for name in file.keys()}
assert set(state_dict) == set(arrays) == set(tensors)
for name, tensor in tensors.items():
    for other in (state_dict[name], arrays[name]):
        assert other.dtype == tensor.dtype and other.shape == tensor.shape, (name, other.dtype, other.shape)
        assert numpy.array_equal(other, tensor), name
assert len(metadata.pop('run_file')) == 40
run = json.loads(archive.read('archive/extra/run.json'))
assert run == json.loads(zipfile.ZipFile(f'{folder}/model.npz').comment) and len(run.pop('run_file')) == 40
texts = {name: value for name, value in metadata.items() if name != 'format'}
assert run == {name: value if name == 'run' else json.loads(value) for name, value in texts.items()}
(offset,), (scale,) = (json.loads(metadata.pop(name)) for name in ('offset', 'scale'))
assert 4.8 < offset < 5.0 and 5.9 < scale < 6.1
metadata.pop('target_names', None)
metrics = json.loads(metadata.pop('metrics'))
print(sorted(metadata.items()), sorted(metrics))
for name in sorted(tensors):
    print(name, tensors[name].dtype, tensors[name].shape)
"#;

/// The output of `READ` for the files of a run; `None`, with a message, if there is no Python.
fn read_by_python(layers: &str) -> Option<String> {
    let python = fixture::python()?;
    let training = Training::new(INLINE).with(CONVOLUTION, layers);
    training.run("run", &[]);
    let output = Command::new(python).args(["-c", READ]).arg(training.path("run/exports")).output();
    let output = output.expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn python_reads_the_same_from_each_format() {
    if let Some(read) = read_by_python(CONVOLUTION) {
        insta::assert_snapshot!(read, @r"
        [('epoch', '2'), ('format', 'pt'), ('run', 'small'), ('step', '46')] ['learning_rate', 'train_accuracy', 'train_loss', 'val_accuracy', 'val_loss']
        bn1.bias float32 (4,)
        bn1.num_batches_tracked int64 ()
        bn1.running_mean float32 (4,)
        bn1.running_var float32 (4,)
        bn1.weight float32 (4,)
        conv1.bias float32 (4,)
        conv1.weight float32 (4, 1, 3, 3)
        fc1.bias float32 (16,)
        fc1.weight float32 (16, 64)
        fc2.bias float32 (10,)
        fc2.weight float32 (10, 16)
        ");
    }
    if let Some(read) = read_by_python(SEQUENCE) {
        insta::assert_snapshot!(read, @"
        [('epoch', '2'), ('format', 'pt'), ('run', 'small'), ('step', '46')] ['learning_rate', 'train_accuracy', 'train_loss', 'val_accuracy', 'val_loss']
        attention1.in_proj_bias float32 (24,)
        attention1.in_proj_weight float32 (24, 8)
        attention1.out_proj.bias float32 (8,)
        attention1.out_proj.weight float32 (8, 8)
        fc1.bias float32 (16,)
        fc1.weight float32 (16, 64)
        fc2.bias float32 (10,)
        fc2.weight float32 (10, 16)
        gru1.bias_hh_l0 float32 (24,)
        gru1.bias_ih_l0 float32 (24,)
        gru1.weight_hh_l0 float32 (24, 8)
        gru1.weight_ih_l0 float32 (24, 12)
        ln1.bias float32 (8,)
        ln1.weight float32 (8,)
        lstm1.bias_hh_l0 float32 (24,)
        lstm1.bias_hh_l0_reverse float32 (24,)
        lstm1.bias_hh_l1 float32 (24,)
        lstm1.bias_hh_l1_reverse float32 (24,)
        lstm1.bias_ih_l0 float32 (24,)
        lstm1.bias_ih_l0_reverse float32 (24,)
        lstm1.bias_ih_l1 float32 (24,)
        lstm1.bias_ih_l1_reverse float32 (24,)
        lstm1.weight_hh_l0 float32 (24, 6)
        lstm1.weight_hh_l0_reverse float32 (24, 6)
        lstm1.weight_hh_l1 float32 (24, 6)
        lstm1.weight_hh_l1_reverse float32 (24, 6)
        lstm1.weight_ih_l0 float32 (24, 8)
        lstm1.weight_ih_l0_reverse float32 (24, 8)
        lstm1.weight_ih_l1 float32 (24, 12)
        lstm1.weight_ih_l1_reverse float32 (24, 12)
        ");
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    // A file may not become larger than this, which a program sees as it sees a disk that is full; the signal that comes
    // with it is ignored.
    for format in FORMATS {
        let training = Training::new(&INLINE.replace(r#""safetensors", "pt", "npz""#, &format!("\"{format}\"")))
            .with("out_features = 16", "out_features = 4096");
        let host = training.command("run");
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\""])
            .arg(host.get_program())
            .args(host.get_args());
        let output = command.current_dir(training.folder().0).output().expect("sh is there");
        let told = shown(&output, &[training.folder()]);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let expected = "plugin `weights` failed in `trigger`: cannot write `[FOLDER]/run/exports/.partial-";
        assert!(told.contains(expected) && told.contains(&format!("/model.{format}`: File too large")), "{told}");
        assert!(!told.contains("ZipWriter"), "{told}");
        assert_eq!(training.path("run/exports").read_dir().expect("a folder").count(), 0);
    }
}

#[test]
fn obstacles_are_reported_before_the_training() {
    let blocked = Training::new(INLINE).with("\"npz\"] }", "\"npz\"], log_dir = \"../run.toml\" }");
    let told = shown(&blocked.output("run", &[]), &[blocked.folder()]);
    let expected =
        "plugin `weights` failed in `setup`: cannot create the folder `[FOLDER]/run/../run.toml`: File exists";
    assert!(told.starts_with("exit code: 1") && told.contains(expected), "{told}");
    assert!(told.contains("failed: 0 epochs, 0 steps"), "{told}");
}
