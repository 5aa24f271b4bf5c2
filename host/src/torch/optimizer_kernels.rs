//! libtorch's fused optimizer kernels, on state that the caller owns.
//!
//! A parameter without a gradient is skipped, state and all, as in `torch.optim`. Gradients are read from the
//! parameters. Called on the thread that owns the parameters; no autograd graph is recorded.

use super::{TensorList, TorchError, error::check, shim};

/// The scalars of one AdamW update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
}

/// One AdamW update (Loshchilov and Hutter 2019; `torch.optim.AdamW(fused=True)`, `at::_fused_adamw_`).
///
/// `steps` are scalar f32 tensors, incremented here before they are used. The four lists are of one length and of
/// the parameters' shapes, except `steps`.
pub fn fused_adamw(
    parameters: &TensorList,
    exp_avgs: &TensorList,
    exp_avg_sqs: &TensorList,
    steps: &TensorList,
    with: AdamW,
) -> Result<(), TorchError> {
    let lengths = [parameters.len(), exp_avgs.len(), exp_avg_sqs.len(), steps.len()];
    if lengths.iter().any(|length| *length != parameters.len()) {
        return Err(TorchError::LengthMismatch { operation: "_fused_adamw_", lengths: lengths.to_vec() });
    }
    // SAFETY: four live lists of one length; the kernel checks shapes and dtypes.
    let status = unsafe {
        shim::host_torch_fused_adamw(
            parameters.as_ptr(),
            exp_avgs.as_ptr(),
            exp_avg_sqs.as_ptr(),
            steps.as_ptr(),
            with.learning_rate,
            with.beta1,
            with.beta2,
            with.weight_decay,
            with.eps,
        )
    };
    check(status, "_fused_adamw_")
}

/// The scalars of one SGD update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the momentum buffer; dampening is zero.
    pub momentum: f64,
    /// L2 penalty, added to the gradient.
    pub weight_decay: f64,
    /// Nesterov's form of the momentum.
    pub nesterov: bool,
}

/// One update of stochastic gradient descent (`torch.optim.SGD(fused=True)`, `at::_fused_sgd_`).
///
/// `momentum_buffers` has one tensor per parameter, which starts at zero; without it, momentum is not used.
pub fn fused_sgd(parameters: &TensorList, momentum_buffers: Option<&TensorList>, with: Sgd) -> Result<(), TorchError> {
    if let Some(buffers) = momentum_buffers
        && buffers.len() != parameters.len()
    {
        return Err(TorchError::LengthMismatch {
            operation: "_fused_sgd_",
            lengths: vec![parameters.len(), buffers.len()],
        });
    }
    // SAFETY: live lists of one length, or null for no buffers; the kernel checks shapes and dtypes.
    let status = unsafe {
        shim::host_torch_fused_sgd(
            parameters.as_ptr(),
            momentum_buffers.map_or(std::ptr::null(), TensorList::as_ptr),
            with.learning_rate,
            if momentum_buffers.is_some() { with.momentum } else { 0.0 },
            with.weight_decay,
            with.nesterov,
        )
    };
    check(status, "_fused_sgd_")
}
