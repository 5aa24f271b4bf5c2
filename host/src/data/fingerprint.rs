//! A fingerprint of data: whether a run that resumes has the rows that it had.

use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use super::{Data, DataError, Dataset};
use crate::torch::TorchError;

/// A split of at most this many bytes is read whole; of a larger one about as many are read.
const MOST_BYTES: usize = 32 << 20;

/// A split whose samples are files is read whole if it has at most this many: each has to be opened and decoded.
const MOST_FILES: usize = 4096;

/// Of a larger split, at most this many samples are read, evenly spaced, the first and the last among them.
const MOST_SAMPLES: usize = 256;

/// The bytes that are read at once.
const BYTES_AT_ONCE: usize = 4 << 20;

impl Data {
    /// A digest of the splits as a training sees them: their names, lengths and samples. Of a large split, only a part of
    /// the samples is read, so that it takes less than a second at any size.
    ///
    /// # Errors
    ///
    /// When samples cannot be read.
    pub fn fingerprint(&self) -> Result<String, DataError> {
        let mut hash = Sha256::new();
        for (name, split) in &self.splits {
            hash.update(format!("{name} {} {:?} {:?}\n", split.len(), split.sample_shape(), self.sample_type));
            let at_once = (BYTES_AT_ONCE / sample_bytes(split.as_ref())).max(1);
            for indices in chosen(split.as_ref()).chunks(at_once) {
                let batch = split.gather(indices)?;
                update(&mut hash, &batch.inputs)?;
                for other in &batch.others {
                    update(&mut hash, other)?;
                }
                update(&mut hash, &batch.targets)?;
            }
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The samples that are read.
fn chosen(split: &dyn Dataset) -> Vec<u32> {
    let (length, bytes) = (split.len(), sample_bytes(split));
    if length.saturating_mul(bytes) <= MOST_BYTES && (!split.are_files() || length <= MOST_FILES) {
        return (0..length as u32).collect();
    }
    let count = (MOST_BYTES / bytes).clamp(2, MOST_SAMPLES).min(length);
    (0..count).map(|number| (number * (length - 1) / (count - 1).max(1)) as u32).collect()
}

fn sample_bytes(split: &dyn Dataset) -> usize {
    split.sample_bytes().max(1)
}

fn update(hash: &mut Sha256, tensor: &Tensor) -> Result<(), TorchError> {
    // On the CPU and of f32, i64 or bool: a copy of its bytes.
    let bytes = tensor.f_contiguous()?.f_view_dtype(Kind::Uint8)?.f_reshape([-1])?;
    let bytes = Vec::<u8>::try_from(bytes).map_err(TorchError::from)?;
    hash.update(bytes);
    Ok(())
}
