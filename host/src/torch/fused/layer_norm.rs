//! Layer normalization, optionally of a sum (`torch.nn.functional.layer_norm`).

use std::ops::Range;

use gemm_common::pulp::Simd;

use super::Kernel;
use super::vector::{for_each_vector, load_some, store_some};

/// Forward; see `fused.cpp`, whose struct this is. One item is one row of `width` numbers.
#[repr(C)]
pub(in crate::torch) struct LayerNorm {
    width: i64,
    eps: f32,
    input: *const f32,
    /// What is added to the input, and where the sum goes; null where nothing is.
    other: *const f32,
    sum: *mut f32,
    weight: *const f32,
    bias: *const f32,
    output: *mut f32,
    /// The mean of each row, and the inverse of its standard deviation.
    mean: *mut f32,
    inverse: *mut f32,
}

impl Kernel for LayerNorm {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, simd: S, items: Range<usize>) {
        let width = self.width as usize;
        for row in items {
            // SAFETY: the caller's promise.
            unsafe {
                let mut input = self.input.add(row * width);
                let output = self.output.add(row * width);
                let zero = simd.splat_f32s(0.0);
                let mut sum = zero;
                if self.other.is_null() {
                    for_each_vector!(simd, S, width, |offset, mask| {
                        sum = simd.add_f32s(sum, load_some(simd, mask, input.add(offset)));
                    });
                } else {
                    let (other, to) = (self.other.add(row * width), self.sum.add(row * width));
                    for_each_vector!(simd, S, width, |offset, mask| {
                        let other = load_some(simd, mask, other.add(offset));
                        let value = simd.add_f32s(load_some(simd, mask, input.add(offset)), other);
                        store_some(simd, mask, to.add(offset), value);
                        sum = simd.add_f32s(sum, value);
                    });
                    input = to.cast_const();
                }
                let mean = simd.reduce_sum_f32s(sum) / width as f32;
                let center = simd.splat_f32s(mean);
                let mut squares = zero;
                for_each_vector!(simd, S, width, |offset, mask| {
                    let difference = simd.sub_f32s(load_some(simd, mask, input.add(offset)), center);
                    let difference = match mask {
                        None => difference,
                        Some(mask) => simd.select_f32s(mask.mask(), difference, zero),
                    };
                    squares = simd.mul_add_e_f32s(difference, difference, squares);
                });
                let inverse = 1.0 / (simd.reduce_sum_f32s(squares) / width as f32 + self.eps).sqrt();
                let scale = simd.splat_f32s(inverse);
                for_each_vector!(simd, S, width, |offset, mask| {
                    let difference = simd.sub_f32s(load_some(simd, mask, input.add(offset)), center);
                    let weight = load_some(simd, mask, self.weight.add(offset));
                    let bias = load_some(simd, mask, self.bias.add(offset));
                    let value = simd.mul_add_e_f32s(simd.mul_f32s(difference, scale), weight, bias);
                    store_some(simd, mask, output.add(offset), value);
                });
                *self.mean.add(row) = mean;
                *self.inverse.add(row) = inverse;
            }
        }
    }
}

/// Backward: the gradients of the input and, summed over an item, of weight and bias. An item is a block of `block` rows.
#[repr(C)]
pub(in crate::torch) struct LayerNormBackward {
    rows: i64,
    block: i64,
    width: i64,
    input: *const f32,
    weight: *const f32,
    mean: *const f32,
    inverse: *const f32,
    of_output: *const f32,
    /// What is added to the gradient of the input; null where nothing is.
    of_sum: *const f32,
    of_input: *mut f32,
    /// `[blocks, 2, width]`: of the weight, and of the bias.
    shares: *mut f32,
}

impl Kernel for LayerNormBackward {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, simd: S, items: Range<usize>) {
        let (width, block) = (self.width as usize, self.block as usize);
        for item in items {
            // SAFETY: the caller's promise.
            unsafe {
                let of_weight = self.shares.add(item * 2 * width);
                of_weight.write_bytes(0, 2 * width);
                for row in item * block..((item + 1) * block).min(self.rows as usize) {
                    self.row(simd, row, of_weight, of_weight.add(width));
                }
            }
        }
    }
}

impl LayerNormBackward {
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, simd: S, row: usize, of_weight: *mut f32, of_bias: *mut f32) {
        let width = self.width as usize;
        // SAFETY: the caller's promise.
        unsafe {
            let (input, of_output) = (self.input.add(row * width), self.of_output.add(row * width));
            let of_input = self.of_input.add(row * width);
            let (mean, inverse) = (simd.splat_f32s(*self.mean.add(row)), simd.splat_f32s(*self.inverse.add(row)));
            let normalized =
                |mask, offset| simd.mul_f32s(simd.sub_f32s(load_some(simd, mask, input.add(offset)), mean), inverse);
            // The sums of the gradient of the normalized values, and of it times them.
            let (mut sum, mut product) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
            for_each_vector!(simd, S, width, |offset, mask| {
                let gradient = load_some(simd, mask, of_output.add(offset));
                let value = normalized(mask, offset);
                let scaled = simd.mul_f32s(gradient, load_some(simd, mask, self.weight.add(offset)));
                sum = simd.add_f32s(sum, scaled);
                product = simd.mul_add_e_f32s(scaled, value, product);
                let before = load_some(simd, mask, of_weight.add(offset));
                store_some(simd, mask, of_weight.add(offset), simd.mul_add_e_f32s(gradient, value, before));
                let before = load_some(simd, mask, of_bias.add(offset));
                store_some(simd, mask, of_bias.add(offset), simd.add_f32s(gradient, before));
            });
            let sum = simd.splat_f32s(simd.reduce_sum_f32s(sum) / width as f32);
            let product = simd.splat_f32s(simd.reduce_sum_f32s(product) / width as f32);
            for_each_vector!(simd, S, width, |offset, mask| {
                let gradient = load_some(simd, mask, of_output.add(offset));
                let scaled = simd.mul_f32s(gradient, load_some(simd, mask, self.weight.add(offset)));
                let rest = simd.sub_f32s(scaled, sum);
                let rest = simd.sub_f32s(rest, simd.mul_f32s(normalized(mask, offset), product));
                let mut value = simd.mul_f32s(rest, inverse);
                if !self.of_sum.is_null() {
                    value = simd.add_f32s(value, load_some(simd, mask, self.of_sum.add(row * width + offset)));
                }
                store_some(simd, mask, of_input.add(offset), value);
            });
        }
    }
}
