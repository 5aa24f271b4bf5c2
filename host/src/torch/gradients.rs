//! The gradients of a list of parameters, taken together.

use super::{TensorList, TorchError, error::check, shim};

/// Removes every gradient (`zero_grad(set_to_none=True)`), so that the next backward pass does not have to add to
/// zeros.
pub fn clear(parameters: &TensorList) -> Result<(), TorchError> {
    // SAFETY: a live list.
    let status = unsafe { shim::host_torch_clear_gradients(parameters.as_ptr()) };
    check(status, "zero_grad")
}

/// The L2 norm over all gradients, as if they were one vector (`torch.nn.utils.get_total_norm`); 0 if there is
/// none. Waits for the device.
pub fn norm(parameters: &TensorList) -> Result<f64, TorchError> {
    let mut norm = 0.0;
    // SAFETY: a live list and a place to write to.
    let status = unsafe { shim::host_torch_gradient_norm(parameters.as_ptr(), &mut norm) };
    check(status, "get_total_norm")?;
    Ok(norm)
}

/// Scales all gradients in place so that their norm is at most `maximum`, and returns the norm before scaling
/// (`torch.nn.utils.clip_grad_norm_`). A norm that is NaN makes every gradient NaN, as in PyTorch.
pub fn clip_norm(parameters: &TensorList, maximum: f64) -> Result<f64, TorchError> {
    let mut norm = 0.0;
    // SAFETY: a live list and a place to write to.
    let status = unsafe { shim::host_torch_clip_gradient_norm(parameters.as_ptr(), maximum, &mut norm) };
    check(status, "clip_grad_norm_")?;
    Ok(norm)
}

/// Divides all gradients in place by `scale`, a power of two, and returns whether all of their numbers are finite
/// (`torch.amp.GradScaler.unscale_`). Waits for the device.
pub fn unscale(parameters: &TensorList, scale: f64) -> Result<bool, TorchError> {
    let mut finite = false;
    // SAFETY: a live list and a place to write to.
    let status = unsafe { shim::host_torch_unscale_gradients(parameters.as_ptr(), scale, &mut finite) };
    check(status, "unscale_")?;
    Ok(finite)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    /// Two parameters whose gradients are (3, 0) and (4), and one that has none.
    fn parameters() -> (Vec<Tensor>, TensorList) {
        let parameters: Vec<Tensor> =
            [2, 1, 3].iter().map(|n| Tensor::zeros([*n], (Kind::Float, Device::Cpu)).set_requires_grad(true)).collect();
        let loss = (&parameters[0] * Tensor::from_slice(&[3f32, 0.0])).sum(Kind::Float)
            + (&parameters[1] * 4.0).sum(Kind::Float);
        loss.backward();
        let list = TensorList::new(&parameters).unwrap();
        (parameters, list)
    }

    #[test]
    fn the_norm_is_over_all_gradients() {
        let (_parameters, list) = parameters();
        assert_eq!(norm(&list).unwrap(), 5.0);
    }

    #[test]
    fn clipping_scales_to_the_maximum_and_reports_the_norm_before() {
        let (parameters, list) = parameters();
        assert_eq!(clip_norm(&list, 1.0).unwrap(), 5.0);
        assert!((norm(&list).unwrap() - 1.0).abs() < 1e-5);
        assert!(!parameters[2].grad().defined());
        let clipped = norm(&list).unwrap();
        clip_norm(&list, 10.0).unwrap();
        assert_eq!(norm(&list).unwrap(), clipped, "a small norm stays");
    }

    #[test]
    fn unscaled_gradients_are_divided_and_told_from_those_that_are_not_finite() {
        let (parameters, list) = parameters();
        assert!(unscale(&list, 4.0).unwrap());
        assert_eq!(norm(&list).unwrap(), 1.25);
        let _ = parameters[1].grad().fill_(f64::INFINITY);
        assert!(!unscale(&list, 4.0).unwrap());
        clear(&list).unwrap();
        assert!(unscale(&list, 4.0).unwrap());
    }

    #[test]
    fn cleared_gradients_are_undefined_and_their_norm_is_zero() {
        let (parameters, list) = parameters();
        clear(&list).unwrap();
        assert!(parameters.iter().all(|parameter| !parameter.grad().defined()));
        assert_eq!(norm(&list).unwrap(), 0.0);
    }
}
