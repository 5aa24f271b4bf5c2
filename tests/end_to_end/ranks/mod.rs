//! Runs of several processes over loopback, by the host's own launcher and with the environment of others.

mod faults;
mod metrics;
mod numbers;
mod pytorch;
mod restarts;
mod resume;
mod started;

use std::path::Path;
use std::process::Output;

use safetensors::{Dtype, SafeTensors};

use crate::training::Training;

/// Digits, of which the training has only 36: batches of 7 leave a last one of a single sample, so that most ranks have none.
/// Networks and what else a test needs follow.
const DIGITS: &str = r#"
[run]
name = "ranks"
seed = 5
device = "cpu"
threads = 1
by_default = false

[data]
format = "csv"
path = "DIGITS"
target = 64
shape = [1, 8, 8]
classes = 10
normalize = "standard"

[data.splits]
val = { fraction = 0.98 }

[model]
layers = [MODEL]

[train]
steps = 50
batch_size = 7
loss = { type = "cross_entropy" }
metrics = ["accuracy"]
optimizer = { type = "adamw", learning_rate = 1e-3, weight_decay = 0.01 }

[eval]
metrics = ["accuracy"]

[distributed]

[[plugins]]
kind = "checkpoint"
options = { background = false, keep_last = 0 }

[[plugins]]
kind = "json-lines"
options = { every_steps = 1 }
"#;

const MLP: &str = r#"
  { type = "flatten" },
  { type = "linear", out_features = 16 },
  { type = "relu" },
  { type = "linear", out_features = 10 },
"#;

/// With batch norm, which adds gradients that are zero in theory: those of the bias before it. AdamW takes rounding noise for a
/// direction, so that runs that differ in the last bit soon differ in all. It is trained with [`SGD`].
const CNN: &str = r#"
  { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1 },
  { type = "batch_norm" },
  { type = "relu" },
  { type = "max_pool2d", kernel_size = 2 },
  { type = "flatten" },
  { type = "linear", out_features = 10 },
"#;

const SGD: &str = r#"type = "sgd", learning_rate = 1e-2, momentum = 0.9"#;

/// In place of AdamW.
fn with_sgd(training: Training) -> Training {
    training.with(r#"type = "adamw", learning_rate = 1e-3, weight_decay = 0.01"#, SGD)
}

/// A training of the digits with these layers.
fn digits(layers: &str) -> Training {
    Training::of(&DIGITS.replace("MODEL", layers), &["checkpoint", "standard"])
}

/// Trains in so many processes, into `out`.
fn run(training: &Training, out: &str, processes: usize, arguments: &[&str]) -> Output {
    let number = processes.to_string();
    let several = if processes > 1 { vec!["--processes", &number] } else { Vec::new() };
    training.run(out, &[&several, arguments].concat())
}

fn tensors_of<T>(file: &Path, read: impl FnOnce(&SafeTensors<'_>) -> T) -> T {
    let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    read(&SafeTensors::deserialize(&bytes).expect("safetensors"))
}

/// How far the tensors of two files are apart: the largest `max|a - b| / max(1, max|b|)`, and of which tensor. All must have the
/// same names; integers must be equal.
fn difference(first: &Path, second: &Path) -> (f64, String) {
    tensors_of(first, |first| {
        tensors_of(second, |second| {
            let mut names = first.names();
            names.sort_unstable();
            let mut others = second.names();
            others.sort_unstable();
            assert_eq!(names, others);
            let of = |name: &str| {
                let [a, b] = [first, second].map(|file| file.tensor(name).expect("it is named"));
                assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()), "{name}");
                if a.dtype() != Dtype::F32 {
                    assert!(a.data() == b.data(), "{name}");
                    return 0.0;
                }
                let pairs = || floats(a.data()).zip(floats(b.data()));
                // NaN is the largest difference.
                let largest = |values: &mut dyn Iterator<Item = f64>| {
                    values.fold(0.0, |largest: f64, value| if value <= largest { largest } else { value })
                };
                largest(&mut pairs().map(|(a, b)| (a - b).abs())) / largest(&mut pairs().map(|(_, b)| b.abs())).max(1.0)
            };
            let differences = names.iter().map(|name| (of(name), (*name).to_owned()));
            differences.max_by(|(a, _), (b, _)| a.total_cmp(b)).expect("there are tensors")
        })
    })
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f64> + '_ {
    bytes.chunks_exact(4).map(|bytes| f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
}

/// Asserts that the last checkpoints of two runs are equal to the last bit.
fn assert_equal(training: &Training, first: &str, second: &str) {
    training.assert_same(&format!("{first}/checkpoints/last"), &format!("{second}/checkpoints/last"));
}

/// Whether the long tests run, which `cargo xtask test --long` does.
fn is_long() -> bool {
    std::env::var_os("HOST_TEST_LONG").is_some()
}
