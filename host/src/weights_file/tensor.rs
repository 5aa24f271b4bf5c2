//! The copying of a stored tensor into one of libtorch.

use std::io::Read;

use flate2::CrcReader;
use flate2::read::DeflateDecoder;
use tch::{Device, Kind, Tensor};

use super::dtype::Dtype;
use super::error::WeightsFileError;
use super::stored::{Content, DAMAGED, StoredTensor};
use crate::refusal::Refusal;
use crate::torch::{TorchError, program};

/// libtorch's number for a dtype that the host has tensors of.
fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::Bool => Kind::Bool,
        _ => return None,
    })
}

/// PyTorch's name of libtorch's number for a dtype.
pub fn dtype_name(kind: Kind) -> &'static str {
    Dtype::ALL.into_iter().find(|dtype| kind_of(*dtype) == Some(kind)).map_or("other dtype", Dtype::name)
}

fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Double | Kind::Float | Kind::Half | Kind::BFloat16)
}

/// The values of a tensor could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file is no longer what it was.
    #[error(transparent)]
    File(#[from] WeightsFileError),
    /// libtorch reported an error.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl StoredTensor {
    /// Whether a tensor of the model may get these values: floats of one width those of another, others only their own.
    pub fn becomes(&self, kind: Kind) -> bool {
        kind_of(self.dtype).is_some_and(|own| own == kind || (is_float(own) && is_float(kind)))
    }

    /// Copies the values into `target`, which has the same shape and, on any device, a kind that they become. Nothing
    /// but this one tensor is ever unpacked in memory; one that is not compressed is copied from the file.
    ///
    /// # Errors
    ///
    /// The file was shortened, or is damaged; those of libtorch.
    pub fn copy_into(&self, target: &mut Tensor) -> Result<(), CopyError> {
        let path = || self.part.path.clone();
        let refused = |refusal| WeightsFileError::Refused { path: path(), refusal };
        let size =
            |lengths: &[usize]| lengths.iter().map(|length| i64::try_from(*length).unwrap_or(i64::MAX)).collect();
        let (shape, strides): (Vec<i64>, Vec<i64>) = (size(&self.shape), size(&self.strides));
        let Some(kind) = kind_of(self.dtype).filter(|_| shape == target.size()) else {
            return Err(refused(Refusal::new("it is another tensor than the one that was looked at")).into());
        };
        // A file may have other bytes for a truth value than 0 and 1, which no tensor of them may have.
        let kind = if kind == Kind::Bool { Kind::Uint8 } else { kind };
        let is_whole = self.part.bytes.is_whole().map_err(|source| WeightsFileError::Read { path: path(), source })?;
        if !is_whole {
            return Err(refused(Refusal::new("it was shortened while it was read")).into());
        }
        let span = self.span();
        if span == 0 {
            return Ok(());
        }
        let length = span.saturating_mul(kind.elt_size_in_bytes());
        let copied = |fill: &mut dyn FnMut(&mut [u8]) -> Result<(), CopyError>| -> Result<Tensor, CopyError> {
            let storage = program::storage(kind, span, |bytes| fill(bytes))?;
            storage.f_as_strided(&shape[..], &strides[..], 0).map_err(|error| TorchError::from(error).into())
        };
        match self.content {
            Content::Plain { start } => {
                let bytes = start.checked_add(length).and_then(|end| self.part.bytes.get(start..end));
                let bytes = bytes.ok_or_else(|| refused(Refusal::new("its values lie beyond the end of the file")))?;
                if bytes.as_ptr().align_offset(kind.elt_size_in_bytes()) != 0 {
                    let values = copied(&mut |storage| {
                        storage.copy_from_slice(bytes);
                        Ok(())
                    })?;
                    return write(target, &values);
                }
                // SAFETY: the view of this shape and these strides reaches `span` elements, all of which lie in
                // `bytes`, are aligned, and stay mapped while `self` is borrowed; the tensor is only read, and dropped
                // before that ends.
                let values = unsafe { Tensor::f_from_blob(bytes.as_ptr(), &shape, &strides, kind, Device::Cpu) };
                write(target, &values.map_err(TorchError::from)?)?;
                self.part.bytes.release(start..start + length);
                Ok(())
            }
            Content::Deflated { start, packed, skipped, unpacked, crc32 } => {
                let damaged = |problem: &dyn std::fmt::Display| -> CopyError {
                    refused(Refusal::new(format!("its array cannot be unpacked: {problem}")).with_hint(DAMAGED)).into()
                };
                let bytes = start.checked_add(packed).and_then(|end| self.part.bytes.get(start..end));
                let bytes = bytes.ok_or_else(|| damaged(&"it lies beyond the end of the file"))?;
                if skipped.checked_add(length) != Some(unpacked) {
                    return Err(damaged(&"it has another size than its header says"));
                }
                let values = copied(&mut |storage| {
                    let mut stream = CrcReader::new(DeflateDecoder::new(bytes));
                    let header = u64::try_from(skipped).unwrap_or(u64::MAX);
                    std::io::copy(&mut stream.by_ref().take(header), &mut std::io::sink())
                        .map_err(|error| damaged(&error))?;
                    stream.read_exact(storage).map_err(|error| damaged(&error))?;
                    if stream.crc().sum() != crc32 {
                        return Err(damaged(&"its checksum differs"));
                    }
                    Ok(())
                })?;
                write(target, &values)
            }
        }
    }
}

fn write(target: &mut Tensor, values: &Tensor) -> Result<(), CopyError> {
    tch::no_grad(|| target.f_copy_(values)).map_err(TorchError::from)?;
    Ok(())
}
