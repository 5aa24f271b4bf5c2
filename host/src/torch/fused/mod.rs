//! Layers and a loss that are one pass forward and one backward, by kernels of ours; see `fused.cpp`.
//!
//! They take the places of libtorch's operators where products are ours, too (`products`), and the processor has vector
//! instructions that the kernels are written for. Elsewhere each function returns `None`, and libtorch computes. Their values are
//! libtorch's within a few units in the last place, and the same on every number of threads.

mod attention;
mod cross_entropy;
mod gelu;
mod layer_norm;
mod vector;

use std::ops::Range;
use std::ptr;

use gemm_common::pulp::{Arch, Scalar, Simd, WithSimd};
use tch::Tensor;
use torch_sys::C_tensor;

use super::{TorchError, error::check, shim};

/// What a thread computes: some of the items that a struct of arguments describes.
trait Kernel {
    /// # Safety
    ///
    /// The arguments point to what their documentation says, for all of these items, and nobody else writes their results
    /// meanwhile.
    unsafe fn run<S: Simd>(&self, simd: S, items: Range<usize>);
}

struct Run<'k, K> {
    kernel: &'k K,
    items: Range<usize>,
}

impl<K: Kernel> WithSimd for Run<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // SAFETY: the promise of whoever called `vectorized` or `plain`.
        unsafe { self.kernel.run(simd, self.items) }
    }
}

type KernelFunction<K> = unsafe extern "C" fn(kernel: *const K, first: i64, last: i64);

/// The items from `first` to before `last`, by the vector instructions of this processor.
unsafe extern "C" fn vectorized<K: Kernel>(kernel: *const K, first: i64, last: i64) {
    // SAFETY: `fused.cpp` passes live arguments.
    let kernel = unsafe { &*kernel };
    Arch::new().dispatch(Run { kernel, items: first as usize..last as usize });
}

/// As [`vectorized`], number by number.
unsafe extern "C" fn plain<K: Kernel>(kernel: *const K, first: i64, last: i64) {
    // SAFETY: `fused.cpp` passes live arguments.
    let kernel = unsafe { &*kernel };
    Scalar::new().vectorize(Run { kernel, items: first as usize..last as usize });
}

/// The kernels that a thread uses; see `fused.h`, whose struct this is.
#[repr(C)]
pub(super) struct Kernels {
    gelu: KernelFunction<gelu::Gelu>,
    multiply: KernelFunction<gelu::Multiply>,
    attention: KernelFunction<attention::Attention>,
    layer_norm: KernelFunction<layer_norm::LayerNorm>,
    layer_norm_backward: KernelFunction<layer_norm::LayerNormBackward>,
    cross_entropy: KernelFunction<cross_entropy::CrossEntropy>,
}

static VECTORIZED: Kernels = Kernels {
    gelu: vectorized,
    multiply: vectorized,
    attention: vectorized,
    layer_norm: vectorized,
    layer_norm_backward: vectorized,
    cross_entropy: vectorized,
};

/// For processors without such instructions libtorch is faster: these are what tests compare with.
static PLAIN: Kernels = Kernels {
    gelu: plain,
    multiply: plain,
    attention: plain,
    layer_norm: plain,
    layer_norm_backward: plain,
    cross_entropy: plain,
};

/// Which kernels a thread uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Those of libtorch.
    Libtorch,
    /// Ours where the processor has the instructions, else those of libtorch.
    Fastest,
    #[cfg_attr(not(test), expect(dead_code, reason = "libtorch is faster"))]
    Plain,
}

/// Sets which kernels the calling thread uses from now on.
pub(super) fn choose(choice: Choice) {
    let kernels = match choice {
        Choice::Libtorch => ptr::null(),
        Choice::Fastest if matches!(Arch::new(), Arch::Scalar) => ptr::null(),
        Choice::Fastest => &raw const VECTORIZED,
        Choice::Plain => &raw const PLAIN,
    };
    // SAFETY: the kernels are static, and compute what the shim's structs say.
    unsafe { shim::host_torch_fused(kernels) };
}

/// GELU without the approximation by tanh (`torch.nn.functional.gelu`).
///
/// # Errors
///
/// When memory is short, as for all functions here.
pub fn gelu(input: &Tensor) -> Result<Option<Tensor>, TorchError> {
    // SAFETY: a live tensor and a place to write to.
    output_of("gelu", |output| unsafe { shim::host_torch_fused_gelu(input.as_ptr(), output) })
}

/// Layer normalization over the last dimensions, those of `weight` and `bias` (`torch.nn.functional.layer_norm`).
pub fn layer_norm(input: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Option<Tensor>, TorchError> {
    let [input, weight, bias] = [input, weight, bias].map(Tensor::as_ptr);
    let mut none = ptr::null_mut();
    output_of("layer_norm", |output| {
        // SAFETY: live tensors, one that is null, and two places to write to.
        unsafe { shim::host_torch_fused_layer_norm(input, ptr::null(), weight, bias, eps, output, &mut none) }
    })
}

/// [`layer_norm`] of the sum of two values of one shape: the output, and the sum.
pub fn add_and_layer_norm(
    [left, right]: [&Tensor; 2],
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Option<(Tensor, Tensor)>, TorchError> {
    let [left, right, weight, bias] = [left, right, weight, bias].map(Tensor::as_ptr);
    let mut sum = ptr::null_mut();
    let output = output_of("layer_norm", |output| {
        // SAFETY: live tensors and two places to write to.
        unsafe { shim::host_torch_fused_layer_norm(left, right, weight, bias, eps, output, &mut sum) }
    })?;
    // SAFETY: the shim leaves null in both, or new tensors that belong to their caller.
    Ok(output.map(|output| (output, unsafe { Tensor::from_ptr(sum) })))
}

/// Attention of queries, keys and values that lie beside each other, `[batch, length, 3, heads, features]`, to
/// `[batch, length, heads × features]`; without dropout (`torch.nn.functional.scaled_dot_product_attention`). `None` for long
/// contexts, too.
pub fn attention(projected: &Tensor, causal: bool) -> Result<Option<Tensor>, TorchError> {
    let projected = projected.as_ptr();
    // SAFETY: a live tensor and a place to write to.
    output_of("attention", |output| unsafe { shim::host_torch_fused_attention(projected, causal, output) })
}

/// The mean loss of outputs, `[size, classes]`, for classes, i64 `[size]` (`torch.nn.functional.cross_entropy`). `None` for classes
/// out of range, too, of which libtorch tells.
pub fn cross_entropy(outputs: &Tensor, targets: &Tensor) -> Result<Option<Tensor>, TorchError> {
    let [outputs, targets] = [outputs, targets].map(Tensor::as_ptr);
    // SAFETY: live tensors and a place to write to.
    output_of("cross_entropy", |loss| unsafe { shim::host_torch_fused_cross_entropy(outputs, targets, loss) })
}

fn output_of(
    operation: &'static str,
    compute: impl FnOnce(&mut *mut C_tensor) -> std::ffi::c_int,
) -> Result<Option<Tensor>, TorchError> {
    let mut output = ptr::null_mut();
    check(compute(&mut output), operation)?;
    // SAFETY: the shim leaves null, or a new tensor that belongs to its caller.
    Ok((!output.is_null()).then(|| unsafe { Tensor::from_ptr(output) }))
}

#[cfg(test)]
mod tests;
