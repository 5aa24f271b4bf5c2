//! The declarations of this folder's C++ files, argument for argument. Only the safe functions of this folder call
//! them.

use std::ffi::{c_char, c_int, c_void};

use torch_sys::C_tensor;

use super::fused::Kernels;
use super::products::Product;

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

/// A program of operators.
#[repr(C)]
pub(super) struct Program {
    _private: [u8; 0],
}

/// Layers one after another, and their loss.
#[repr(C)]
pub(super) struct Chain {
    _private: [u8; 0],
}

/// The store of keys that the processes of a run share.
#[repr(C)]
pub(super) struct Store {
    _private: [u8; 0],
}

/// The processes of a run.
#[repr(C)]
pub(super) struct Group {
    _private: [u8; 0],
}

/// Gradients that are summed over ranks.
#[repr(C)]
pub(super) struct Buckets {
    _private: [u8; 0],
}

/// An argument of a call; everything is borrowed.
#[repr(C)]
pub(super) struct ProgramArgument {
    pub(super) name: *const c_char,
    pub(super) name_length: usize,
    pub(super) tag: c_int,
    pub(super) count: usize,
    pub(super) integers: *const i64,
    pub(super) are_slots: *const u8,
    pub(super) doubles: *const f64,
    pub(super) text: *const c_char,
}

/// What a call returns in one place; the slots are borrowed.
#[repr(C)]
pub(super) struct ProgramOutput {
    pub(super) count: usize,
    pub(super) is_list: bool,
    pub(super) slots: *const i64,
}

/// Takes an output of a program: the tensor is owned.
pub(super) type VisitOutput = unsafe extern "C" fn(context: *mut c_void, index: usize, tensor: *mut C_tensor);

/// Takes a tensor of a module: the name is borrowed, the tensor is owned.
pub(super) type VisitTensor =
    unsafe extern "C" fn(context: *mut c_void, name: *const c_char, length: usize, tensor: *mut C_tensor);

/// Gets each recorded operator: its name, when it began, and how long it took, in nanoseconds.
pub(super) type OperatorVisitor =
    unsafe extern "C" fn(context: *mut c_void, name: *const c_char, length: usize, began: i64, nanoseconds: i64);

/// Gets the value of a key, borrowed.
pub(super) type VisitValue = unsafe extern "C" fn(context: *mut c_void, value: *const u8, length: usize);

/// Asked while an operation waits for other ranks; false gives up.
pub(super) type GoOnWaiting = unsafe extern "C" fn(context: *mut c_void) -> bool;

/// Computes a product on the calling thread.
pub(super) type ProductKernel = unsafe extern "C" fn(product: *const Product);

unsafe extern "C" {
    pub(super) fn host_torch_products(own: Option<ProductKernel>, previous: *mut bool) -> c_int;

    pub(super) fn host_torch_chain_new(
        kinds: *const c_int,
        weights: *const *const C_tensor,
        biases: *const *const C_tensor,
        count: usize,
        loss: c_int,
        chain: *mut *mut Chain,
    ) -> c_int;
    pub(super) fn host_torch_chain_free(chain: *mut Chain);
    pub(super) fn host_torch_chain_step(
        chain: *mut Chain,
        inputs: *const C_tensor,
        targets: *const C_tensor,
        outputs: *mut *mut C_tensor,
        loss: *mut *mut C_tensor,
    ) -> c_int;

    pub(super) fn host_torch_fused(kernels: *const Kernels) -> *const Kernels;
    pub(super) fn host_torch_fused_gelu(input: *const C_tensor, output: *mut *mut C_tensor) -> c_int;
    pub(super) fn host_torch_fused_layer_norm(
        input: *const C_tensor,
        other: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        eps: f64,
        output: *mut *mut C_tensor,
        sum: *mut *mut C_tensor,
    ) -> c_int;
    pub(super) fn host_torch_fused_attention(
        projected: *const C_tensor,
        causal: bool,
        output: *mut *mut C_tensor,
    ) -> c_int;
    pub(super) fn host_torch_fused_cross_entropy(
        outputs: *const C_tensor,
        targets: *const C_tensor,
        loss: *mut *mut C_tensor,
    ) -> c_int;

    pub(super) fn host_torch_gru_is_ours(input: *const C_tensor, weight: *const C_tensor) -> bool;
    pub(super) fn host_torch_gru_layer(
        input: *const C_tensor,
        weights: *const *const C_tensor,
        reverse: bool,
        output: *mut *mut C_tensor,
    ) -> c_int;

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
    pub(super) fn host_torch_unscale_gradients(parameters: *const Tensors, scale: f64, finite: *mut bool) -> c_int;

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
    pub(super) fn host_torch_set_tf32(allowed: bool) -> c_int;
    #[cfg(test)]
    pub(super) fn host_torch_has_tf32(allowed: *mut bool) -> c_int;
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

    pub(super) fn host_torch_script_code(
        bytes: *const c_char,
        size: usize,
        context: *mut c_void,
        visit: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *const c_char, usize),
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

    pub(super) fn host_torch_program_new(device: c_int, program: *mut *mut Program) -> c_int;
    pub(super) fn host_torch_program_free(program: *mut Program);
    pub(super) fn host_torch_program_bind(
        program: *mut Program,
        slot: i64,
        tensor: *const C_tensor,
        is_buffer: bool,
    ) -> c_int;
    pub(super) fn host_torch_program_view(
        storage: *const C_tensor,
        sizes: *const i64,
        strides: *const i64,
        dimensions: usize,
        offset: i64,
        requires_grad: bool,
        view: *mut *mut C_tensor,
    ) -> c_int;
    pub(super) fn host_torch_program_knows(name: *const c_char, overload: *const c_char) -> bool;
    pub(super) fn host_torch_program_call(
        program: *mut Program,
        label: *const c_char,
        name: *const c_char,
        overload: *const c_char,
        arguments: *const ProgramArgument,
        argument_count: usize,
        outputs: *const ProgramOutput,
        output_count: usize,
        random: *mut bool,
    ) -> c_int;
    pub(super) fn host_torch_program_symbol(
        program: *mut Program,
        label: *const c_char,
        symbol: c_int,
        operands: *const i64,
        are_slots: *const u8,
        count: usize,
        output: i64,
    ) -> c_int;
    pub(super) fn host_torch_program_still(program: *mut Program, slots: *const i64, count: usize) -> c_int;
    pub(super) fn host_torch_program_unbind(program: *mut Program, slots: *const i64, count: usize) -> c_int;
    pub(super) fn host_torch_program_step(
        program: *mut Program,
        label: *const c_char,
        step: c_int,
        operands: *const i64,
        count: usize,
    ) -> c_int;
    pub(super) fn host_torch_program_finish(program: *mut Program, outputs: *const i64, count: usize) -> c_int;
    pub(super) fn host_torch_program_run(
        program: *mut Program,
        input_slots: *const i64,
        inputs: *const *const C_tensor,
        input_count: usize,
        wanted: *const i64,
        wanted_count: usize,
        training: bool,
        context: *mut c_void,
        visit: VisitOutput,
    ) -> c_int;

    pub(super) fn host_torch_store_new(
        host: *const c_char,
        host_length: usize,
        port: u16,
        serves: bool,
        listening: c_int,
        timeout: i64,
        store: *mut *mut Store,
    ) -> c_int;
    pub(super) fn host_torch_store_prefixed(
        store: *mut Store,
        prefix: *const c_char,
        length: usize,
        prefixed: *mut *mut Store,
    ) -> c_int;
    pub(super) fn host_torch_store_free(store: *mut Store);
    pub(super) fn host_torch_store_set(
        store: *mut Store,
        key: *const c_char,
        key_length: usize,
        value: *const u8,
        length: usize,
    ) -> c_int;
    pub(super) fn host_torch_store_get(
        store: *mut Store,
        key: *const c_char,
        key_length: usize,
        context: *mut c_void,
        visit: VisitValue,
    ) -> c_int;

    pub(super) fn host_torch_group_new(
        store: *mut Store,
        rank: c_int,
        world_size: c_int,
        interface_address: *const c_char,
        length: usize,
        timeout: i64,
        go_on: GoOnWaiting,
        context: *mut c_void,
        group: *mut *mut Group,
    ) -> c_int;
    pub(super) fn host_torch_group_free(group: *mut Group);
    pub(super) fn host_torch_group_all_gather(
        group: *mut Group,
        output: *const C_tensor,
        input: *const C_tensor,
    ) -> c_int;
    pub(super) fn host_torch_group_broadcast(group: *mut Group, tensors: *const *const C_tensor, count: usize)
    -> c_int;

    pub(super) fn host_torch_buckets_new(
        group: *const Group,
        parameters: *const *const C_tensor,
        count: usize,
        first_bytes: i64,
        bytes: i64,
        slot_count: usize,
        buckets: *mut *mut Buckets,
    ) -> c_int;
    pub(super) fn host_torch_buckets_free(buckets: *mut Buckets);
    pub(super) fn host_torch_buckets_begin(buckets: *mut Buckets, slots: *const f32, count: usize, scale: f64)
    -> c_int;
    pub(super) fn host_torch_buckets_finish(buckets: *mut Buckets, slots: *mut f32, overlapped: *mut usize) -> c_int;

    pub(super) fn host_torch_sync_batch_norm(
        group: *const Group,
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        running_mean: *const C_tensor,
        running_variance: *const C_tensor,
        momentum: f64,
        epsilon: f64,
        output: *mut *mut C_tensor,
    ) -> c_int;
}
