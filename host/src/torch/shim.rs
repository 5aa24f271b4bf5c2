//! The declarations of `shim.cpp` and `script.cpp`, argument for argument. Only the safe functions of this folder call
//! them.

use std::ffi::{c_char, c_int, c_void};

use torch_sys::C_tensor;

/// `std::vector<at::Tensor>`.
#[repr(C)]
pub(super) struct Tensors {
    _private: [u8; 0],
}

/// `at::Generator`.
#[repr(C)]
pub(super) struct Generator {
    _private: [u8; 0],
}

/// A TorchScript module with its tensors.
#[repr(C)]
pub(super) struct Script {
    _private: [u8; 0],
}

/// Takes a tensor of a module: the name is borrowed, the tensor is owned.
pub(super) type VisitTensor =
    unsafe extern "C" fn(context: *mut c_void, name: *const c_char, length: usize, tensor: *mut C_tensor);

/// Gets each recorded operator: its name, when it began, and how long it took, in nanoseconds.
pub(super) type OperatorVisitor =
    unsafe extern "C" fn(context: *mut c_void, name: *const c_char, length: usize, began: i64, nanoseconds: i64);

unsafe extern "C" {
    pub(super) fn host_torch_last_error() -> *const c_char;

    pub(super) fn host_torch_now() -> i64;
    pub(super) fn host_torch_operators_begin() -> c_int;
    pub(super) fn host_torch_operators_end() -> c_int;
    pub(super) fn host_torch_operators_take(context: *mut c_void, visit: OperatorVisitor) -> c_int;

    pub(super) fn host_torch_tensors_new(
        tensors: *const *const C_tensor,
        count: usize,
        list: *mut *mut Tensors,
    ) -> c_int;
    pub(super) fn host_torch_tensors_free(list: *mut Tensors);

    pub(super) fn host_torch_fused_adam(
        parameters: *const Tensors,
        exp_avgs: *const Tensors,
        exp_avg_sqs: *const Tensors,
        steps: *const Tensors,
        decoupled: bool,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> c_int;
    pub(super) fn host_torch_fused_sgd(
        parameters: *const Tensors,
        momentum_buffers: *const Tensors,
        learning_rate: f64,
        momentum: f64,
        weight_decay: f64,
        nesterov: bool,
    ) -> c_int;
    pub(super) fn host_torch_fused_adagrad(
        parameters: *const Tensors,
        sums: *const Tensors,
        steps: *const Tensors,
        learning_rate: f64,
        learning_rate_decay: f64,
        weight_decay: f64,
        eps: f64,
    ) -> c_int;
    pub(super) fn host_torch_rmsprop(
        parameters: *const Tensors,
        square_avgs: *const Tensors,
        grad_avgs: *const Tensors,
        momentum_buffers: *const Tensors,
        learning_rate: f64,
        alpha: f64,
        momentum: f64,
        weight_decay: f64,
        eps: f64,
    ) -> c_int;

    pub(super) fn host_torch_clear_gradients(parameters: *const Tensors) -> c_int;
    pub(super) fn host_torch_gradient_norm(parameters: *const Tensors, norm: *mut f64) -> c_int;
    pub(super) fn host_torch_clip_gradient_norm(parameters: *const Tensors, maximum: f64, norm: *mut f64) -> c_int;

    pub(super) fn host_torch_generator_state(device: c_int, state: *mut *mut C_tensor) -> c_int;
    pub(super) fn host_torch_set_generator_state(device: c_int, state: *const C_tensor) -> c_int;
    pub(super) fn host_torch_generator_new(seed: u64, generator: *mut *mut Generator) -> c_int;
    pub(super) fn host_torch_generator_free(generator: *mut Generator);
    pub(super) fn host_torch_fill_uniform(
        tensor: *const C_tensor,
        low: f64,
        high: f64,
        generator: *const Generator,
    ) -> c_int;

    pub(super) fn host_torch_fill_normal(tensor: *const C_tensor, std: f64, generator: *const Generator) -> c_int;

    pub(super) fn host_torch_leaky_relu(
        tensor: *const C_tensor,
        negative_slope: f64,
        output: *mut *mut C_tensor,
    ) -> c_int;
    pub(super) fn host_torch_elu(tensor: *const C_tensor, alpha: f64, output: *mut *mut C_tensor) -> c_int;

    pub(super) fn host_torch_channels_last(tensor: *const C_tensor, output: *mut *mut C_tensor) -> c_int;
    pub(super) fn host_torch_row_major(tensor: *const C_tensor, output: *mut *mut C_tensor) -> c_int;

    pub(super) fn host_torch_keep_freed_memory();
    pub(super) fn host_torch_set_deterministic_algorithms(enabled: bool) -> c_int;
    pub(super) fn host_torch_autocast_enter(device: c_int, dtype: c_int, previous: *mut c_int) -> c_int;
    pub(super) fn host_torch_autocast_leave(device: c_int, previous: c_int) -> c_int;

    pub(super) fn host_torch_scalar(tensor: *const C_tensor, value: *mut f64) -> c_int;
    pub(super) fn host_torch_backward(tensor: *const C_tensor, gradient: *const C_tensor) -> c_int;
    pub(super) fn host_torch_forget_graph(tensor: *const C_tensor) -> c_int;
    pub(super) fn host_torch_add_one(tensor: *const C_tensor) -> c_int;
    pub(super) fn host_torch_cpu_data(
        tensor: *const C_tensor,
        dtype: c_int,
        writable: bool,
        data: *mut *mut c_void,
        count: *mut usize,
    ) -> c_int;

    pub(super) fn host_torch_script_load(
        bytes: *const c_char,
        size: usize,
        device: c_int,
        script: *mut *mut Script,
    ) -> c_int;
    pub(super) fn host_torch_script_free(script: *mut Script);
    pub(super) fn host_torch_script_tensors(script: *const Script, context: *mut c_void, visit: VisitTensor) -> c_int;
    pub(super) fn host_torch_script_forward(
        script: *mut Script,
        input: *const C_tensor,
        training: bool,
        output: *mut *mut C_tensor,
    ) -> c_int;
}
