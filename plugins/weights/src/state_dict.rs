//! A state dict in the format of `torch.save`: a ZIP archive with a pickle of the dictionary, `data.pkl`, and the
//! elements of its tensors, `data/0`, `data/1`, …. See `torch/serialization.py` and `torch/_weights_only_unpickler.py`.

use std::io::{Seek, Write};

use export::{Origin, Values, Weight, Weights};
use plugin_api::Result;

use crate::archive;
use crate::pickle::Pickle;

/// The archive's only folder. Any name works; PyTorch uses this one if it does not know a file name.
const ROOT: &str = "archive";
/// The version of the archive's layout, unchanged in PyTorch since 1.6.
const VERSION: &[u8] = b"3\n";

/// Writes a whole file.
///
/// # Errors
///
/// Errors of `writer`.
pub(crate) fn write(writer: &mut (impl Write + Seek), weights: &Weights<'_>, origin: &Origin) -> Result<()> {
    archive::write(writer, |archive| {
        archive.add(&format!("{ROOT}/data.pkl"), &[&dictionary(weights)])?;
        archive.add(&format!("{ROOT}/byteorder"), &[b"little"])?;
        for (key, weight) in weights.iter().enumerate() {
            archive.add(&format!("{ROOT}/data/{key}"), &[weight.bytes()])?;
        }
        // Readers of state dicts ignore what is in this folder.
        archive.add(&format!("{ROOT}/extra/run.json"), &[origin.json().as_bytes()])?;
        archive.add(&format!("{ROOT}/version"), &[VERSION])
    })
}

/// `OrderedDict([(name, tensor), …])`.
fn dictionary(weights: &Weights<'_>) -> Vec<u8> {
    let mut pickle = Pickle::new();
    pickle.global("collections", "OrderedDict").tuple(|_| ()).call();
    pickle.items(|pickle| {
        for (key, weight) in weights.iter().enumerate() {
            pickle.text(weight.name);
            tensor(pickle, key, &weight);
        }
    });
    pickle.finish()
}

/// `torch._utils._rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks)`, where the
/// storage is the persistent object `("storage", <type>, <key>, <device>, <elements>)`.
fn tensor(pickle: &mut Pickle, key: usize, weight: &Weight<'_>) {
    let (storage, elements) = match weight.values {
        Values::F32(values) => ("FloatStorage", values.len()),
        Values::I64(values) => ("LongStorage", values.len()),
    };
    pickle.global("torch._utils", "_rebuild_tensor_v2");
    pickle.tuple(|pickle| {
        pickle.tuple(|pickle| {
            pickle.text("storage").global("torch", storage).text(&key.to_string()).text("cpu");
            pickle.integer(elements as i64);
        });
        pickle.persistent().integer(0);
        pickle.integers(weight.shape).integers(&strides(weight.shape));
        pickle.no().global("collections", "OrderedDict").tuple(|_| ()).call();
    });
    pickle.call();
}

/// The strides of a contiguous tensor, in elements.
fn strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension] * shape[dimension].max(1);
    }
    strides
}
