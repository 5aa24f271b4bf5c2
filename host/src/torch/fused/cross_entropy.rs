//! The loss of each sample and the gradient of its outputs in one pass (`torch.nn.functional.cross_entropy`).

use std::ops::Range;

use gemm_common::pulp::Simd;

use super::Kernel;
use super::vector::{exp, for_each_vector, load_some, store_some};

/// See `fused.cpp`, whose struct this is. One item is one sample of `classes` outputs.
#[repr(C)]
pub(in crate::torch) struct CrossEntropy {
    classes: i64,
    /// What a sample's loss counts in the mean.
    weight: f32,
    outputs: *const f32,
    /// Each below `classes`.
    targets: *const i64,
    losses: *mut f32,
    /// Of the mean loss; null where none is wanted.
    gradient: *mut f32,
}

impl Kernel for CrossEntropy {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, simd: S, items: Range<usize>) {
        let classes = self.classes as usize;
        let lowest = simd.splat_f32s(f32::NEG_INFINITY);
        for item in items {
            // SAFETY: the caller's promise.
            unsafe {
                let row = self.outputs.add(item * classes);
                let target = *self.targets.add(item) as usize;
                let mut largest = lowest;
                for_each_vector!(simd, S, classes, |offset, mask| {
                    let value = load_some(simd, mask, row.add(offset));
                    let value = match mask {
                        None => value,
                        Some(mask) => simd.select_f32s(mask.mask(), value, lowest),
                    };
                    largest = simd.max_f32s(largest, value);
                });
                let largest = simd.reduce_max_f32s(largest);
                let shift = simd.splat_f32s(largest);
                let gradient =
                    if self.gradient.is_null() { std::ptr::null_mut() } else { self.gradient.add(item * classes) };
                let mut sum = simd.splat_f32s(0.0);
                for_each_vector!(simd, S, classes, |offset, mask| {
                    let value = exp(simd, simd.sub_f32s(load_some(simd, mask, row.add(offset)), shift));
                    let value = match mask {
                        None => value,
                        Some(mask) => simd.select_f32s(mask.mask(), value, simd.splat_f32s(0.0)),
                    };
                    sum = simd.add_f32s(sum, value);
                    if !gradient.is_null() {
                        store_some(simd, mask, gradient.add(offset), value);
                    }
                });
                let sum = simd.reduce_sum_f32s(sum);
                *self.losses.add(item) = sum.ln() + (largest - *row.add(target));
                if !gradient.is_null() {
                    let factor = simd.splat_f32s(self.weight / sum);
                    for_each_vector!(simd, S, classes, |offset, mask| {
                        let value = simd.mul_f32s(load_some(simd, mask, gradient.add(offset)), factor);
                        store_some(simd, mask, gradient.add(offset), value);
                    });
                    *gradient.add(target) -= self.weight;
                }
            }
        }
    }
}
