//! What the host needs from libtorch and tch does not offer, behind safe functions.
//!
//! The `.cpp` files are the C++ side; the private module `shim` declares it. All other code in the crate
//! uses tch's own `Tensor` and the modules below, and nothing outside this folder calls C++.

pub mod activations;
pub mod attention;
pub mod autocast;
pub mod buckets;
pub mod c10d;
pub mod chain;
mod error;
pub mod fused;
pub mod gradients;
pub mod gru;
pub mod layout;
pub mod operators;
pub mod optimizer_kernels;
pub mod products;
pub mod program;
pub mod random;
mod script;
mod shim;
pub mod sync_batch_norm;
mod tensor_list;
pub mod values;

pub use error::TorchError;
pub(crate) use error::without_backtrace;
pub use script::{ScriptModule, script_code};
pub use tensor_list::TensorList;

/// Makes libtorch choose deterministic algorithms, and fail where an operator has none, for the whole process
/// (`torch.use_deterministic_algorithms`).
///
/// CPU operators are deterministic for a fixed number of threads with few exceptions (scatter and index additions),
/// which this covers. Fresh memory is not filled, unlike in PyTorch's deterministic mode: nothing here reads it.
pub fn set_deterministic_algorithms(enabled: bool) -> Result<(), TorchError> {
    // SAFETY: takes no pointers.
    let status = unsafe { shim::host_torch_set_deterministic_algorithms(enabled) };
    error::check(status, "set_deterministic_algorithms")
}

/// Lets CUDA compute products, convolutions and recurrent layers of f32 in TensorFloat-32, or not, for the whole process
/// (`torch.backends.cuda.matmul.allow_tf32`, `torch.backends.cudnn.allow_tf32`). PyTorch lets cuDNN unless it is told not to.
pub fn set_tf32(allowed: bool) -> Result<(), TorchError> {
    // SAFETY: takes no pointers.
    let status = unsafe { shim::host_torch_set_tf32(allowed) };
    error::check(status, "allow_tf32")
}

/// Makes the process keep the memory of freed tensors for the next ones, up to 1 GiB at the end of the heap, instead of
/// returning it to the system. Only with glibc.
///
/// Every step frees and allocates the same tensors, and the system clears each page that it hands out again. Measured
/// on two cores: a step of the CNN of the benchmarks 5.1 ms before and 4.3 ms after, of a model of 30 million
/// parameters 251 ms and 204 ms, with the same peak memory.
pub fn keep_freed_memory() {
    // SAFETY: takes no pointers, and the C library locks its own state.
    unsafe { shim::host_torch_keep_freed_memory() }
}

/// Seeds libtorch's default generators, CPU and every CUDA device (`torch.manual_seed`). Dropout in training draws
/// from them; nothing in evaluation does.
pub fn manual_seed(seed: u64) {
    // libtorch uses the 64 bits as they are.
    tch::manual_seed(seed.cast_signed());
}

/// The name of a device, as `[run] device` and PyTorch have it: `cpu`, `cuda:0`.
pub fn device_name(device: tch::Device) -> String {
    match device {
        tch::Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

/// tch's number for a device in the C interface: -1 for the CPU, the index for CUDA.
fn device_index(device: tch::Device) -> Result<std::ffi::c_int, TorchError> {
    match device {
        tch::Device::Cpu => Ok(-1),
        tch::Device::Cuda(index) => {
            std::ffi::c_int::try_from(index).map_err(|_| TorchError::UnsupportedDevice { device })
        }
        tch::Device::Mps | tch::Device::Vulkan => Err(TorchError::UnsupportedDevice { device }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tf32_is_allowed_and_forbidden() {
        // It belongs to the process, and jobs of other tests set it: they hold this, too.
        let _alone = test_support::default_generator();
        let is_allowed = || {
            let mut allowed = false;
            // SAFETY: a place to write to.
            error::check(unsafe { shim::host_torch_has_tf32(&mut allowed) }, "allow_tf32").unwrap();
            allowed
        };
        set_tf32(true).unwrap();
        assert!(is_allowed());
        set_tf32(false).unwrap();
        assert!(!is_allowed());
    }
}

#[cfg(test)]
pub(crate) mod test_support {
    //! libtorch's default generators belong to the process, and tests run on many threads of one process.

    use std::sync::{Mutex, MutexGuard, PoisonError};

    static DEFAULT_GENERATOR: Mutex<()> = Mutex::new(());

    /// Held by every test that seeds, reads or draws from the default generator.
    pub(crate) fn default_generator() -> MutexGuard<'static, ()> {
        DEFAULT_GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
