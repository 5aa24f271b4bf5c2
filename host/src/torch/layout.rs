//! The memory layout of a tensor.

use tch::Tensor;
use torch_sys::C_tensor;

use super::{TorchError, error::check, shim};

/// The same images, `[batch, channels, height, width]`, with the channels innermost in memory
/// (`torch.channels_last`); `None` if they can stay as they are, or if the tensor is not a batch of images on the CPU.
/// Differentiable.
///
/// libtorch's kernels for images keep the layout of their input, so a chain of them stays in this layout.
pub fn channels_last(tensor: &Tensor) -> Result<Option<Tensor>, TorchError> {
    let mut output = std::ptr::null_mut();
    // SAFETY: a live tensor and a place to write to.
    let status = unsafe { shim::host_torch_channels_last(tensor.as_ptr(), &mut output) };
    check(status, "contiguous")?;
    Ok(taken(output))
}

/// The same values in row-major order; `None` if they already are. Differentiable; the gradient of images is converted
/// back to their layout.
pub fn row_major(tensor: &Tensor) -> Result<Option<Tensor>, TorchError> {
    let mut output = std::ptr::null_mut();
    // SAFETY: a live tensor and a place to write to.
    let status = unsafe { shim::host_torch_row_major(tensor.as_ptr(), &mut output) };
    check(status, "contiguous")?;
    Ok(taken(output))
}

/// The tensor that the shim returned, if any.
fn taken(output: *mut C_tensor) -> Option<Tensor> {
    // SAFETY: a pointer that is not null is a new tensor that belongs to us.
    (!output.is_null()).then(|| unsafe { Tensor::from_ptr(output) })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn images_get_their_channels_innermost_and_back() {
        let images = Tensor::arange(2 * 3 * 4 * 5, (Kind::Float, Device::Cpu)).view([2, 3, 4, 5]);
        let moved = channels_last(&images).unwrap().unwrap();
        assert_eq!((moved.stride(), &moved), (vec![60, 1, 15, 3], &images));
        assert!(channels_last(&moved).unwrap().is_none());
        assert_eq!(row_major(&moved).unwrap().unwrap().stride(), images.stride());
        assert!(row_major(&images).unwrap().is_none());

        let gray = images.narrow(1, 0, 1).contiguous();
        let moved = channels_last(&gray).unwrap().unwrap();
        assert_eq!((moved.stride(), moved.data_ptr()), (vec![20, 1, 5, 1], gray.data_ptr()));
        assert_eq!(moved, gray);
    }

    #[test]
    fn gradients_of_images_keep_their_layout() {
        let images = Tensor::randn([2, 3, 4, 5], (Kind::Float, Device::Cpu));
        let moved = channels_last(&images).unwrap().unwrap().set_requires_grad(true);
        let weights = Tensor::randn([2, 3, 4, 5], (Kind::Float, Device::Cpu));
        (row_major(&moved).unwrap().unwrap() * &weights).sum(Kind::Float).backward();
        assert_eq!((moved.grad().stride(), moved.grad()), (moved.stride(), weights));
    }

    #[test]
    fn what_is_no_batch_of_images_stays() {
        assert!(channels_last(&Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))).unwrap().is_none());
    }
}
