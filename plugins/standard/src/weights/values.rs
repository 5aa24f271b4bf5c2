//! The numbers of tensors that lie anywhere.

use std::borrow::Cow;

use plugin_api::{Element, Result, Run, TensorView};

/// Whether a tensor holds f32.
pub(crate) fn is_f32(view: &TensorView<'_>) -> bool {
    view.dtype() == f32::DTYPE
}

/// The elements of an f32 tensor in row-major order: borrowed where they lie so on the CPU, else copied.
///
/// # Errors
///
/// Another element type, or a device that fails.
pub(crate) fn f32_values<'a>(run: &'a Run<'_>, view: &TensorView<'a>) -> Result<Cow<'a, [f32]>> {
    let view = if view.device().is_cpu() { *view } else { run.to_host(view)? };
    if view.is_contiguous() { view.as_slice().map(Cow::Borrowed) } else { view.to_vec().map(Cow::Owned) }
}

/// The L2 norm, summed in f64: f32 overflows at the square of 2e19 and loses the small elements of large tensors.
pub(crate) fn norm(values: &[f32]) -> f64 {
    sum_of_squares(values).sqrt()
}

/// The sum of the squares, in f64.
pub(crate) fn sum_of_squares(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum()
}
