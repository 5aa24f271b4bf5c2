//! A batch's outputs and targets as slices, and what the outputs predict.

use tch::{Device, Tensor};

use crate::torch::{TorchError, values};

/// Calls `use_them` with the elements of both tensors: in place, or copies if they are not contiguous, on
/// another device or of another dtype.
pub(super) fn read<T: values::Element>(
    outputs: &Tensor,
    targets: &Tensor,
    use_them: impl FnOnce(&[f32], &[T]),
) -> Result<(), TorchError> {
    // SAFETY: nothing writes to a step's outputs and targets while its metrics are computed.
    if let (Some(outputs), Some(targets)) = unsafe { (values::slice(outputs), values::slice(targets)) } {
        use_them(outputs, targets);
        return Ok(());
    }
    let outputs = on_cpu::<f32>(outputs)?;
    let targets = on_cpu::<T>(targets)?;
    // SAFETY: copies, or the tensors themselves, to which nothing writes; see above.
    if let (Some(outputs), Some(targets)) = unsafe { (values::slice(&outputs), values::slice(&targets)) } {
        use_them(outputs, targets);
    }
    // Tensors that have no elements have no slices, and add nothing.
    Ok(())
}

fn on_cpu<T: values::Element>(tensor: &Tensor) -> Result<Tensor, TorchError> {
    Ok(tensor.f_to_device(Device::Cpu)?.f_to_kind(T::KIND)?.f_contiguous()?)
}

/// The outputs of each sample with its target; nothing for targets below zero.
pub(super) fn rows<'a>(outputs: &'a [f32], targets: &'a [i64]) -> impl Iterator<Item = (&'a [f32], usize)> {
    let width = outputs.len().checked_div(targets.len()).unwrap_or(0).max(1);
    let targets = targets.iter().map(|target| usize::try_from(*target).ok());
    outputs.chunks_exact(width).zip(targets).filter_map(|(row, target)| Some((row, target?)))
}

/// The class that a sample's outputs predict.
#[inline]
pub(super) fn predicted(row: &[f32]) -> usize {
    match row {
        [single] => usize::from(*single > 0.0),
        row => argmax(row),
    }
}

/// The index of the first largest value, as `torch.argmax`: NaN is larger than any number.
#[inline]
fn argmax(row: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, value) in row.iter().enumerate() {
        if *value > best.1 {
            best = (index, *value);
        } else if value.is_nan() {
            return index;
        }
    }
    best.0
}
