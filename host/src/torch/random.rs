//! Random number generators: the state of libtorch's own, and separate ones.

use std::ptr::NonNull;

use tch::{Device, Kind, Tensor};

use super::{TorchError, device_index, device_name, error::check, shim};

/// A copy of the state of a device's default generator: bytes in a u8 tensor on the CPU (5056 of them for the CPU's
/// Mersenne twister, 16 for CUDA's Philox), as `torch.get_rng_state` returns it.
pub fn generator_state(device: Device) -> Result<Tensor, TorchError> {
    let mut state = std::ptr::null_mut();
    // SAFETY: `state` is a place to write to.
    let status = unsafe { shim::host_torch_generator_state(device_index(device)?, &mut state) };
    check(status, "get_rng_state")?;
    // SAFETY: on success the shim returns a new tensor.
    Ok(unsafe { Tensor::from_ptr(state) })
}

/// Sets a device's default generator to a state that [`generator_state`] returned (`torch.set_rng_state`).
pub fn set_generator_state(device: Device, state: &Tensor) -> Result<(), TorchError> {
    // SAFETY: a live tensor; the generator checks its dtype and length.
    let status = unsafe { shim::host_torch_set_generator_state(device_index(device)?, state.as_ptr()) };
    check(status, "set_rng_state")
}

/// The states of the CPU's generator and of every CUDA device's, named `cpu`, `cuda:0` …
pub fn generator_states() -> Result<Vec<(String, Tensor)>, TorchError> {
    let mut states = vec![("cpu".to_owned(), generator_state(Device::Cpu)?)];
    for index in 0..usize::try_from(tch::Cuda::device_count()).unwrap_or(0) {
        states.push((device_name(Device::Cuda(index)), generator_state(Device::Cuda(index))?));
    }
    Ok(states)
}

/// A separate CPU generator, for draws that must not change the default one: initial weights.
pub struct Generator {
    generator: NonNull<shim::Generator>,
}

// SAFETY: only this value reaches the generator, and its draws take its lock.
unsafe impl Send for Generator {}

impl Generator {
    /// A generator that yields the same values as the default one after `torch.manual_seed(seed)`.
    pub fn new(seed: u64) -> Result<Generator, TorchError> {
        let mut generator = std::ptr::null_mut();
        // SAFETY: `generator` is a place to write to.
        let status = unsafe { shim::host_torch_generator_new(seed, &mut generator) };
        check(status, "Generator")?;
        match NonNull::new(generator) {
            Some(generator) => Ok(Generator { generator }),
            None => Err(TorchError::Operation { operation: "Generator", message: "no generator was made".to_owned() }),
        }
    }

    /// A f32 tensor on the CPU, uniform on `[low, high)`.
    pub fn uniform(&mut self, shape: &[i64], low: f64, high: f64) -> Result<Tensor, TorchError> {
        let tensor = Tensor::f_empty(shape, (Kind::Float, Device::Cpu))?;
        // SAFETY: a live tensor that nothing else refers to, and a live generator.
        let status = unsafe { shim::host_torch_fill_uniform(tensor.as_ptr(), low, high, self.generator.as_ptr()) };
        check(status, "uniform_")?;
        Ok(tensor)
    }

    /// A f32 tensor on the CPU, normal around 0.
    pub fn normal(&mut self, shape: &[i64], std: f64) -> Result<Tensor, TorchError> {
        let tensor = Tensor::f_empty(shape, (Kind::Float, Device::Cpu))?;
        // SAFETY: a live tensor that nothing else refers to, and a live generator.
        let status = unsafe { shim::host_torch_fill_normal(tensor.as_ptr(), std, self.generator.as_ptr()) };
        check(status, "normal_")?;
        Ok(tensor)
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // SAFETY: made by `host_torch_generator_new`, freed once.
        unsafe { shim::host_torch_generator_free(self.generator.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{manual_seed, test_support};

    #[test]
    fn a_restored_state_repeats_the_draws() {
        let _generator = test_support::default_generator();
        manual_seed(7);
        let _moved = Tensor::rand([3], (Kind::Float, Device::Cpu));
        let state = generator_state(Device::Cpu).unwrap();
        assert_eq!((state.kind(), state.size()), (Kind::Uint8, vec![5056]));
        let first = Tensor::randn([100], (Kind::Float, Device::Cpu));
        assert_ne!(first, Tensor::randn([100], (Kind::Float, Device::Cpu)));
        set_generator_state(Device::Cpu, &state).unwrap();
        assert_eq!(first, Tensor::randn([100], (Kind::Float, Device::Cpu)));
    }

    #[test]
    fn a_state_of_the_wrong_length_is_an_error() {
        let error = set_generator_state(Device::Cpu, &Tensor::from_slice(&[1u8, 2])).unwrap_err();
        assert!(matches!(error, TorchError::Operation { operation: "set_rng_state", .. }));
    }

    #[test]
    fn a_generator_of_its_own_draws_as_the_default_one_and_leaves_it_alone() {
        let _generator = test_support::default_generator();
        manual_seed(11);
        let before = generator_state(Device::Cpu).unwrap();
        let own = Generator::new(11).unwrap().uniform(&[4, 5], -0.5, 0.5).unwrap();
        assert_eq!(before, generator_state(Device::Cpu).unwrap());
        let default = Tensor::empty([4, 5], (Kind::Float, Device::Cpu)).uniform_(-0.5, 0.5);
        assert_eq!(own, default);
    }
}
