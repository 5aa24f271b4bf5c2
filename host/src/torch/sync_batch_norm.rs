//! Batch normalization by the statistics of all ranks' samples.

use tch::Tensor;

use super::c10d::Group;
use super::{TorchError, error::check, shim};

/// The parameters and running statistics of a batch normalization, f32 `[channels]` each.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'t> {
    /// The scale.
    pub weight: &'t Tensor,
    /// The shift.
    pub bias: &'t Tensor,
    /// Moved in place.
    pub running_mean: &'t Tensor,
    /// Moved in place, by the unbiased variance.
    pub running_variance: &'t Tensor,
    /// How far they are moved, from 0 to 1.
    pub momentum: f64,
    /// Added to the variance.
    pub epsilon: f64,
}

/// Normalizes f32 `[batch, channels, …]` on the CPU by the mean and the variance of all ranks' values
/// (`torch.nn.SyncBatchNorm` in training mode). Every rank calls it, in forward and in backward, also with a batch of none.
/// Differentiable once.
///
/// # Errors
///
/// When a rank is gone, or all ranks together have one value a channel.
pub fn sync_batch_norm(group: &Group, input: &Tensor, norm: BatchNorm<'_>) -> Result<Tensor, TorchError> {
    const OPERATION: &str = "sync_batch_norm";
    let BatchNorm { weight, bias, running_mean, running_variance, momentum, epsilon } = norm;
    let mut output = std::ptr::null_mut();
    // SAFETY: a live group, live tensors borrowed for the call, and a place to write to.
    let status = unsafe {
        shim::host_torch_sync_batch_norm(
            group.as_ptr(),
            input.as_ptr(),
            weight.as_ptr(),
            bias.as_ptr(),
            running_mean.as_ptr(),
            running_variance.as_ptr(),
            momentum,
            epsilon,
            &mut output,
        )
    };
    check(status, OPERATION)?;
    // SAFETY: made for this call, and belongs to its caller.
    Ok(unsafe { Tensor::from_ptr(output) })
}
