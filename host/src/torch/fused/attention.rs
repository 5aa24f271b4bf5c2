//! Attention over short contexts, with the weights kept for the gradients
//! (`torch.nn.functional.scaled_dot_product_attention`, without mask and dropout).
//!
//! Queries, keys and values lie beside each other, `[batch, length, 3, heads, features]`, as one linear layer gives them. One
//! item is one head of one sample: all that it reads fits into a first- or second-level cache.

use std::cell::RefCell;
use std::ops::Range;

use gemm_common::pulp::Simd;

use super::Kernel;
use super::vector::{Matrix, TILE, exp, for_each_vector, load_some, multiply, store_some, transpose};

/// See `fused.cpp`, whose struct this is.
#[repr(C)]
pub(in crate::torch) struct Attention {
    length: i64,
    heads: i64,
    features: i64,
    scale: f32,
    causal: bool,
    /// Queries, keys, values.
    projected: *const f32,
    /// `[batch, heads, length, length]`: written forward, read backward; null where they are not kept. Of a causal one, what is
    /// above the diagonal's tiles is never written.
    weights: *mut f32,
    /// `[batch, length, heads, features]`: the output, or, backward, its gradient.
    output: *mut f32,
    /// As `projected`.
    gradient: *mut f32,
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Attention {
    fn sizes(&self) -> (usize, usize) {
        (self.length as usize, self.features as usize)
    }

    /// Where the queries of an item are, how far the keys and values are from them, and a position from the next one.
    fn place(&self, item: usize) -> (usize, usize, usize) {
        let (length, features) = self.sizes();
        let width = self.heads as usize * features;
        let (sample, head) = (item / self.heads as usize, item % self.heads as usize);
        (sample * length * 3 * width + head * features, width, 3 * width)
    }

    fn output_place(&self, item: usize) -> usize {
        let (length, features) = self.sizes();
        let (sample, head) = (item / self.heads as usize, item % self.heads as usize);
        (sample * length * self.heads as usize + head) * features
    }

    /// The tiles of queries: the first one, how many, and how many keys they see.
    fn tiles(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let (length, causal) = (self.length as usize, self.causal);
        (0..length).step_by(TILE).map(move |first| {
            let count = TILE.min(length - first);
            (first, count, if causal { first + count } else { length })
        })
    }

    #[inline(always)]
    unsafe fn forward<S: Simd>(&self, simd: S, item: usize, turned: *mut f32, weights: *mut f32) {
        let (length, features) = self.sizes();
        let (place, apart, stride) = self.place(item);
        let out_stride = self.heads as usize * features;
        // SAFETY: the caller's promise.
        unsafe {
            let queries = self.projected.add(place);
            let (keys, values) = (queries.add(apart), queries.add(2 * apart));
            let output = self.output.add(self.output_place(item));
            transpose(keys, stride, [length, features], turned);
            for (first, count, seen) in self.tiles() {
                let rows = weights.add(first * length);
                let left = Matrix { at: queries.add(first * stride), row: stride, column: 1 };
                multiply(simd, [count, seen, features], left, (turned, length), (rows, length));
                for row in 0..count {
                    let own = if self.causal { first + row + 1 } else { seen };
                    softmax(simd, rows.add(row * length), own, seen, self.scale);
                }
                let left = Matrix { at: rows, row: length, column: 1 };
                let out = output.add(first * out_stride);
                multiply(simd, [count, features, seen], left, (values, stride), (out, out_stride));
            }
        }
    }

    #[inline(always)]
    unsafe fn backward<S: Simd>(&self, simd: S, item: usize, turned: *mut f32, of_scores: *mut f32) {
        let (length, features) = self.sizes();
        let (place, apart, stride) = self.place(item);
        let out_stride = self.heads as usize * features;
        // SAFETY: the caller's promise.
        unsafe {
            let queries = self.projected.add(place);
            let (keys, values) = (queries.add(apart), queries.add(2 * apart));
            let of_queries = self.gradient.add(place);
            let (of_keys, of_values) = (of_queries.add(apart), of_queries.add(2 * apart));
            let of_output = self.output.add(self.output_place(item)).cast_const();
            let weights = self.weights.add(item * length * length).cast_const();
            transpose(values, stride, [length, features], turned);
            for (first, count, seen) in self.tiles() {
                let rows = of_scores.add(first * length);
                let left = Matrix { at: of_output.add(first * out_stride), row: out_stride, column: 1 };
                multiply(simd, [count, seen, features], left, (turned, length), (rows, length));
                for row in first..first + count {
                    softmax_backward(simd, weights.add(row * length), of_scores.add(row * length), seen, self.scale);
                }
                let left = Matrix { at: rows, row: length, column: 1 };
                let out = of_queries.add(first * stride);
                multiply(simd, [count, features, seen], left, (keys, stride), (out, stride));
            }
            // Keys are seen by the queries from their own tile on.
            for (first, count, _) in self.tiles() {
                let from = if self.causal { first } else { 0 };
                let sizes = [count, features, length - from];
                let columns =
                    |matrix: *const f32| Matrix { at: matrix.add(from * length + first), row: 1, column: length };
                let (right, out) = ((queries.add(from * stride), stride), (of_keys.add(first * stride), stride));
                multiply(simd, sizes, columns(of_scores), right, out);
                let right = (of_output.add(from * out_stride), out_stride);
                let out = (of_values.add(first * stride), stride);
                multiply(simd, sizes, columns(weights), right, out);
            }
        }
    }
}

/// The softmax of `scale` times the first `own` of `count` numbers, in place; the others become 0.
#[inline(always)]
unsafe fn softmax<S: Simd>(simd: S, row: *mut f32, own: usize, count: usize, scale: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let lowest = simd.splat_f32s(f32::NEG_INFINITY);
        let mut largest = lowest;
        for_each_vector!(simd, S, own, |offset, mask| {
            let value = load_some(simd, mask, row.add(offset));
            let value = match mask {
                None => value,
                Some(mask) => simd.select_f32s(mask.mask(), value, lowest),
            };
            largest = simd.max_f32s(largest, value);
        });
        let scale = simd.splat_f32s(scale);
        let largest = simd.splat_f32s(simd.reduce_max_f32s(largest));
        let mut sum = simd.splat_f32s(0.0);
        for_each_vector!(simd, S, own, |offset, mask| {
            let value = load_some(simd, mask, row.add(offset));
            let value = exp(simd, simd.mul_f32s(simd.sub_f32s(value, largest), scale));
            let value = match mask {
                None => value,
                Some(mask) => simd.select_f32s(mask.mask(), value, simd.splat_f32s(0.0)),
            };
            sum = simd.add_f32s(sum, value);
            store_some(simd, mask, row.add(offset), value);
        });
        let inverse = simd.splat_f32s(1.0 / simd.reduce_sum_f32s(sum));
        for_each_vector!(simd, S, own, |offset, mask| {
            let value = simd.mul_f32s(load_some(simd, mask, row.add(offset)), inverse);
            store_some(simd, mask, row.add(offset), value);
        });
        for place in own..count {
            *row.add(place) = 0.0;
        }
    }
}

/// Makes the gradient of a row of weights that of the numbers they are the softmax of, in place.
#[inline(always)]
unsafe fn softmax_backward<S: Simd>(simd: S, weights: *const f32, gradient: *mut f32, count: usize, scale: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sum = simd.splat_f32s(0.0);
        for_each_vector!(simd, S, count, |offset, mask| {
            let weight = load_some(simd, mask, weights.add(offset));
            sum = simd.mul_add_e_f32s(weight, load_some(simd, mask, gradient.add(offset)), sum);
        });
        let (mean, scale) = (simd.splat_f32s(simd.reduce_sum_f32s(sum)), simd.splat_f32s(scale));
        for_each_vector!(simd, S, count, |offset, mask| {
            let weight = simd.mul_f32s(load_some(simd, mask, weights.add(offset)), scale);
            let difference = simd.sub_f32s(load_some(simd, mask, gradient.add(offset)), mean);
            store_some(simd, mask, gradient.add(offset), simd.mul_f32s(weight, difference));
        });
    }
}

impl Kernel for Attention {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, simd: S, items: Range<usize>) {
        let (length, features) = self.sizes();
        // Taken out, not borrowed: what is computed in a closure does not get the vector instructions of this function.
        let mut memory = SCRATCH.take();
        memory.resize(memory.len().max(length * (features + length)), 0.0);
        let turned = memory.as_mut_ptr();
        for item in items {
            // SAFETY: the caller's promise, and the memory has the numbers.
            unsafe {
                let square = turned.add(length * features);
                if self.gradient.is_null() {
                    let kept = !self.weights.is_null();
                    let weights = if kept { self.weights.add(item * length * length) } else { square };
                    self.forward(simd, item, turned, weights);
                } else {
                    self.backward(simd, item, turned, square);
                }
            }
        }
        SCRATCH.set(memory);
    }
}
