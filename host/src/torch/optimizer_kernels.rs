//! libtorch's optimizer kernels, on state that the caller owns.
//!
//! A parameter without a gradient is skipped with its state, as in `torch.optim`. Gradients are read from the
//! parameters. Called on the thread that owns the parameters; no autograd graph is recorded.

use super::{TensorList, TorchError, error::check, shim};

/// The scalars of one Adam or AdamW update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Weight decay: separate from the moments and multiplied by the learning rate if `decoupled`, else an L2 penalty.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// AdamW instead of Adam.
    pub decoupled: bool,
}

/// One update of Adam (Kingma and Ba 2015; `torch.optim.Adam(fused=True)`, `at::_fused_adam_`) or AdamW (Loshchilov and
/// Hutter 2019; `torch.optim.AdamW(fused=True)`, `at::_fused_adamw_`).
///
/// `steps` are scalar f32 tensors, incremented here before they are used. The four lists have one length. All but
/// `steps` have the parameters' shapes.
pub fn fused_adam(
    parameters: &TensorList,
    exp_avgs: &TensorList,
    exp_avg_sqs: &TensorList,
    steps: &TensorList,
    with: Adam,
) -> Result<(), TorchError> {
    let operation = if with.decoupled { "_fused_adamw_" } else { "_fused_adam_" };
    same_lengths(operation, parameters, [Some(exp_avgs), Some(exp_avg_sqs), Some(steps)])?;
    // SAFETY: four live lists of one length; the kernel checks shapes and dtypes.
    let status = unsafe {
        shim::host_torch_fused_adam(
            parameters.as_ptr(),
            exp_avgs.as_ptr(),
            exp_avg_sqs.as_ptr(),
            steps.as_ptr(),
            with.decoupled,
            with.learning_rate,
            with.beta1,
            with.beta2,
            with.weight_decay,
            with.eps,
        )
    };
    check(status, operation)
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
    same_lengths("_fused_sgd_", parameters, [momentum_buffers])?;
    // SAFETY: live lists of one length, or null for no buffers; the kernel checks shapes and dtypes.
    let status = unsafe {
        shim::host_torch_fused_sgd(
            parameters.as_ptr(),
            pointer(momentum_buffers),
            with.learning_rate,
            if momentum_buffers.is_some() { with.momentum } else { 0.0 },
            with.weight_decay,
            with.nesterov,
        )
    };
    check(status, "_fused_sgd_")
}

/// The scalars of one Adagrad update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adagrad {
    /// Step size.
    pub learning_rate: f64,
    /// The step size is divided by one plus this times the updates so far.
    pub learning_rate_decay: f64,
    /// L2 penalty, added to the gradient.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
}

/// One update of Adagrad (Duchi, Hazan and Singer 2011; `torch.optim.Adagrad(fused=True)`, `at::_fused_adagrad_`).
///
/// `sums` are those of the squared gradients, of the parameters' shapes; `steps` as in [`fused_adam`].
pub fn fused_adagrad(
    parameters: &TensorList,
    sums: &TensorList,
    steps: &TensorList,
    with: Adagrad,
) -> Result<(), TorchError> {
    same_lengths("_fused_adagrad_", parameters, [Some(sums), Some(steps)])?;
    // SAFETY: three live lists of one length; the kernel checks shapes and dtypes.
    let status = unsafe {
        shim::host_torch_fused_adagrad(
            parameters.as_ptr(),
            sums.as_ptr(),
            steps.as_ptr(),
            with.learning_rate,
            with.learning_rate_decay,
            with.weight_decay,
            with.eps,
        )
    };
    check(status, "_fused_adagrad_")
}

/// The scalars of one RMSprop update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the mean of the squared gradients.
    pub alpha: f64,
    /// Decay of the momentum buffer.
    pub momentum: f64,
    /// L2 penalty, added to the gradient.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
}

/// One update of RMSprop (Tieleman and Hinton 2012; `torch.optim.RMSprop(foreach=True)`).
///
/// All lists are of one length and of the parameters' shapes and start at zero. With `grad_avgs` the second moment is
/// centered; without `momentum_buffers`, momentum is not used.
pub fn rmsprop(
    parameters: &TensorList,
    square_avgs: &TensorList,
    grad_avgs: Option<&TensorList>,
    momentum_buffers: Option<&TensorList>,
    with: RmsProp,
) -> Result<(), TorchError> {
    same_lengths("rmsprop", parameters, [Some(square_avgs), grad_avgs, momentum_buffers])?;
    // SAFETY: live lists of one length, or null for those that are not used; the operators check shapes and dtypes.
    let status = unsafe {
        shim::host_torch_rmsprop(
            parameters.as_ptr(),
            square_avgs.as_ptr(),
            pointer(grad_avgs),
            pointer(momentum_buffers),
            with.learning_rate,
            with.alpha,
            with.momentum,
            with.weight_decay,
            with.eps,
        )
    };
    check(status, "rmsprop")
}

fn pointer(list: Option<&TensorList>) -> *const shim::Tensors {
    list.map_or(std::ptr::null(), TensorList::as_ptr)
}

/// Rejects state for another number of parameters.
fn same_lengths<const COUNT: usize>(
    operation: &'static str,
    parameters: &TensorList,
    state: [Option<&TensorList>; COUNT],
) -> Result<(), TorchError> {
    let lengths = state.into_iter().flatten().map(TensorList::len);
    if lengths.clone().all(|length| length == parameters.len()) {
        return Ok(());
    }
    Err(TorchError::LengthMismatch { operation, lengths: [parameters.len()].into_iter().chain(lengths).collect() })
}
