//! GELU and its derivative in one pass (`torch.nn.functional.gelu`, without the approximation by tanh).

use std::ops::Range;

use gemm_common::pulp::Simd;

use super::Kernel;
use super::vector::{exp, for_each_vector, load_some, store_some};

/// See `fused.cpp`, whose struct this is.
#[repr(C)]
pub(in crate::torch) struct Gelu {
    input: *const f32,
    output: *mut f32,
    /// Null where none is wanted.
    derivative: *mut f32,
}

impl Kernel for Gelu {
    /// `x Φ(x)`, and its derivative `Φ(x) + x φ(x)`.
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, simd: S, items: Range<usize>) {
        for_each_vector!(simd, S, items.len(), |offset, mask| {
            let place = items.start + offset;
            // SAFETY: the caller's promise.
            unsafe {
                let x = load_some(simd, mask, self.input.add(place));
                let (distribution, density) = normal(simd, x);
                store_some(simd, mask, self.output.add(place), simd.mul_f32s(x, distribution));
                if !self.derivative.is_null() {
                    let derivative = simd.mul_add_e_f32s(x, density, distribution);
                    store_some(simd, mask, self.derivative.add(place), derivative);
                }
            }
        });
    }
}

/// The standard normal distribution Φ and its density φ.
///
/// Of the complementary error function, `erfc(z) exp(z²)` is a polynomial in `t = 1 / (1 + 0.3 z)` with a relative error of 2e-8,
/// fitted by least squares, weighted so that the largest error is least; the exponential is needed for the density anyway.
#[inline(always)]
fn normal<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    // From the highest power to the first one; halves, since Φ is half of erfc.
    const COEFFICIENTS: [f32; 9] = [
        -0.064_762_15,
        0.242_785_1,
        -0.256_146_53,
        0.273_868_94,
        -0.047_331_81,
        0.107_465_92,
        0.074_168_8,
        0.085_357_73,
        0.084_594,
    ];
    const SCALE: f32 = 0.3 * std::f32::consts::FRAC_1_SQRT_2;
    // 1 / √(2π)
    const DENSITY: f32 = 0.398_942_3;
    let splat = |value| simd.splat_f32s(value);
    let bell = exp(simd, simd.mul_f32s(simd.mul_f32s(x, x), splat(-0.5)));
    let t = simd.div_f32s(splat(1.0), simd.mul_add_e_f32s(simd.abs_f32s(x), splat(SCALE), splat(1.0)));
    let mut sum = splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        sum = simd.mul_add_e_f32s(sum, t, splat(*coefficient));
    }
    let tail = simd.mul_f32s(simd.mul_f32s(sum, t), bell);
    let distribution = simd.select_f32s(simd.less_than_f32s(x, splat(0.0)), tail, simd.sub_f32s(splat(1.0), tail));
    (distribution, simd.mul_f32s(bell, splat(DENSITY)))
}

/// `to = left × right`.
#[repr(C)]
pub(in crate::torch) struct Multiply {
    left: *const f32,
    right: *const f32,
    to: *mut f32,
}

impl Kernel for Multiply {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, simd: S, items: Range<usize>) {
        for_each_vector!(simd, S, items.len(), |offset, mask| {
            let place = items.start + offset;
            // SAFETY: the caller's promise.
            unsafe {
                let product = simd.mul_f32s(
                    load_some(simd, mask, self.left.add(place)),
                    load_some(simd, mask, self.right.add(place)),
                );
                store_some(simd, mask, self.to.add(place), product);
            }
        });
    }
}
