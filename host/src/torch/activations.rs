//! Activations with the attributes that tch does not support.

use tch::Tensor;

use super::{TorchError, error::check, shim};

/// `x` above 0, else `negative_slope · x` (`torch.nn.functional.leaky_relu`).
pub fn leaky_relu(tensor: &Tensor, negative_slope: f64) -> Result<Tensor, TorchError> {
    let mut output = std::ptr::null_mut();
    // SAFETY: a live tensor and a place to write to.
    let status = unsafe { shim::host_torch_leaky_relu(tensor.as_ptr(), negative_slope, &mut output) };
    check(status, "leaky_relu")?;
    // SAFETY: on success the shim returns a new tensor.
    Ok(unsafe { Tensor::from_ptr(output) })
}

/// `x` above 0, else `alpha (eˣ − 1)` (`torch.nn.functional.elu`).
pub fn elu(tensor: &Tensor, alpha: f64) -> Result<Tensor, TorchError> {
    let mut output = std::ptr::null_mut();
    // SAFETY: a live tensor and a place to write to.
    let status = unsafe { shim::host_torch_elu(tensor.as_ptr(), alpha, &mut output) };
    check(status, "elu")?;
    // SAFETY: on success the shim returns a new tensor.
    Ok(unsafe { Tensor::from_ptr(output) })
}
