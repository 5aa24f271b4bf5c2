//! Automatic mixed precision: matrix products and convolutions in bf16 or f16, the rest in f32 (`torch.autocast`).

use std::{ffi::c_int, marker::PhantomData};

use tch::{Device, Kind};

use super::{TorchError, device_index, error::check, shim};

/// Autocast is on for its device on this thread, from [`enter`], or off, from [`suspend`], until this is dropped. Guards nest.
#[derive(Debug)]
#[must_use = "autocast ends when the guard is dropped"]
pub struct Autocast {
    device: c_int,
    previous: c_int,
    /// Autocast is a property of the thread, so the guard must not leave it.
    _thread: PhantomData<*const ()>,
}

/// Turns autocast to bf16 or f16 on for `device` (the CPU or CUDA) on the calling thread.
///
/// Weights stay f32 and are cast where they are used; the casts are cached until the outermost guard is dropped,
/// which therefore must happen before the optimizer's update. Use it only for the forward pass and the loss.
pub fn enter(device: Device, kind: Kind) -> Result<Autocast, TorchError> {
    match kind {
        // As c10::ScalarType numbers them.
        Kind::Half => set(device, 5),
        Kind::BFloat16 => set(device, 15),
        _ => Err(TorchError::UnsupportedPrecision { kind }),
    }
}

/// Turns autocast off for `device` on the calling thread, where it may be on.
pub fn suspend(device: Device) -> Result<Autocast, TorchError> {
    set(device, -1)
}

fn set(device: Device, dtype: c_int) -> Result<Autocast, TorchError> {
    let device = device_index(device)?;
    let mut previous = -1;
    // SAFETY: `previous` is a place to write to.
    let status = unsafe { shim::host_torch_autocast_enter(device, dtype, &mut previous) };
    check(status, "autocast")?;
    Ok(Autocast { device, previous, _thread: PhantomData })
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: takes no pointers. It fails for no device that `set` accepted.
        let _ = unsafe { shim::host_torch_autocast_leave(self.device, self.previous) };
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    #[test]
    fn products_are_f16_where_that_is_asked_for() {
        let _guard = enter(Device::Cpu, Kind::Half).unwrap();
        let ones = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        assert_eq!(ones.matmul(&ones).kind(), Kind::Half);
    }

    #[test]
    fn products_are_bf16_within_the_outermost_guard_only() {
        let product = || {
            let ones = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
            ones.matmul(&ones).kind()
        };
        let outer = enter(Device::Cpu, Kind::BFloat16).unwrap();
        {
            let _inner = enter(Device::Cpu, Kind::BFloat16).unwrap();
            assert_eq!(product(), Kind::BFloat16);
        }
        {
            let _off = suspend(Device::Cpu).unwrap();
            assert_eq!(product(), Kind::Float);
        }
        assert_eq!(product(), Kind::BFloat16);
        drop(outer);
        assert_eq!(product(), Kind::Float);
    }

    #[test]
    fn other_dtypes_are_refused() {
        assert_eq!(enter(Device::Cpu, Kind::Int).unwrap_err(), TorchError::UnsupportedPrecision { kind: Kind::Int });
    }
}
