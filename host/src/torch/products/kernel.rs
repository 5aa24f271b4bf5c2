//! A product on one thread, by the crate `gemm`.

use std::cell::RefCell;

use gemm_common::Parallelism;

/// `out = left · right`, or `start + left · right`: see `products.cpp`, whose struct this is.
#[repr(C)]
pub(in crate::torch) struct Product {
    rows: i64,
    columns: i64,
    depth: i64,
    out: *mut f32,
    out_row: i64,
    left: *const f32,
    left_row: i64,
    left_column: i64,
    right: *const f32,
    right_row: i64,
    right_column: i64,
    start: *const f32,
    start_row: i64,
    start_column: i64,
}

/// Numbers of a copied panel, at most: a megabyte, which a second-level cache holds.
const PANEL: usize = 1 << 18;

thread_local! {
    static COPY: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Computes a product on the calling thread.
///
/// # Safety
///
/// `product` points to a product whose matrices have the elements that its shapes and strides say, `out` apart from the
/// factors, and nobody writes any of them meanwhile. The start is `out` itself, with its strides, or apart from it.
pub(in crate::torch) unsafe extern "C" fn compute(product: *const Product) {
    // SAFETY: the caller's promise.
    let product = unsafe { &*product };
    if !product.start.is_null() && !std::ptr::eq(product.start, product.out) {
        // SAFETY: the caller's promise.
        unsafe { product.copy_start() };
    }
    // What is read along its columns, as a weight is, is packed number by number: slower than the product of a small batch.
    // A copy the other way round is read as it lies.
    let panel = PANEL / product.depth as usize / 64 * 64;
    if product.right_row == 1 && product.columns >= 16 && product.depth >= 16 && panel > 0 && transpose::is_fast() {
        COPY.with_borrow_mut(|copy| {
            for first in (0..product.columns).step_by(panel) {
                let columns = (product.columns - first).min(panel as i64);
                // SAFETY: the caller's promise; `first` and `columns` are within the product.
                unsafe {
                    let right = product.right.offset((first * product.right_column) as isize);
                    let (rows, depth) = (columns as usize, product.depth as usize);
                    transpose::transpose(right, product.right_column as usize, rows, depth, copy);
                    let out = product.out.offset(first as isize);
                    product.multiply(out, columns, copy.as_ptr(), (columns, 1));
                }
            }
        });
    } else {
        // SAFETY: the caller's promise.
        unsafe {
            product.multiply(product.out, product.columns, product.right, (product.right_row, product.right_column))
        }
    }
}

impl Product {
    /// Multiplies by a right factor of `columns` columns, onto what `out` holds if there is a start.
    unsafe fn multiply(&self, out: *mut f32, columns: i64, right: *const f32, (right_row, right_column): (i64, i64)) {
        let multiply = gemm_f32::gemm::f32::get_gemm_fn();
        let reads_out = !self.start.is_null();
        // The kernel writes columns, so that it computes the transposed product: the factors change places.
        // SAFETY: the caller's promise, and `get_gemm_fn` chooses by what this processor has.
        unsafe {
            multiply(
                columns as usize,
                self.rows as usize,
                self.depth as usize,
                out,
                self.out_row as isize,
                1,
                reads_out,
                right,
                right_row as isize,
                right_column as isize,
                self.left,
                self.left_row as isize,
                self.left_column as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }

    /// Writes the start, a matrix or a repeated row, column or number, into `out`.
    unsafe fn copy_start(&self) {
        let columns = self.columns as usize;
        for row in 0..self.rows as isize {
            // SAFETY: the caller's promise; rows of `out` are contiguous.
            unsafe {
                let out = self.out.offset(row * self.out_row as isize);
                let start = self.start.offset(row * self.start_row as isize);
                if self.start_column == 1 {
                    std::ptr::copy_nonoverlapping(start, out, columns);
                } else {
                    for column in 0..columns {
                        *out.add(column) = *start.offset(column as isize * self.start_column as isize);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod transpose {
    //! A matrix the other way round, in blocks of 16 by 16 numbers that registers hold.

    use std::arch::x86_64::*;

    const BLOCK: usize = 16;

    /// Whether this processor has the instructions.
    pub(super) fn is_fast() -> bool {
        std::arch::is_x86_feature_detected!("avx512f")
    }

    /// Writes `columns` rows of `rows` numbers into `copy`, from `rows` rows of `columns` numbers, `stride` apart.
    ///
    /// # Safety
    ///
    /// `from` has those rows, and [`is_fast`].
    pub(super) unsafe fn transpose(from: *const f32, stride: usize, rows: usize, columns: usize, copy: &mut Vec<f32>) {
        copy.clear();
        copy.reserve(rows * columns);
        // SAFETY: the caller's promise; `transpose_blocks` writes each of the numbers reserved.
        unsafe {
            transpose_blocks(from, stride, rows, columns, copy.as_mut_ptr());
            copy.set_len(rows * columns);
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn transpose_blocks(from: *const f32, stride: usize, rows: usize, columns: usize, to: *mut f32) {
        let (block_rows, block_columns) = (rows / BLOCK * BLOCK, columns / BLOCK * BLOCK);
        // SAFETY: all places are within the rows and columns of the caller.
        unsafe {
            for column in (0..block_columns).step_by(BLOCK) {
                for row in (0..block_rows).step_by(BLOCK) {
                    let block = std::array::from_fn(|index| _mm512_loadu_ps(from.add((row + index) * stride + column)));
                    for (index, line) in turned(block).into_iter().enumerate() {
                        _mm512_storeu_ps(to.add((column + index) * rows + row), line);
                    }
                }
            }
            for row in 0..rows {
                let done = if row < block_rows { block_columns } else { 0 };
                for column in done..columns {
                    *to.add(column * rows + row) = *from.add(row * stride + column);
                }
            }
        }
    }

    /// A block the other way round: pairs of lines exchange single numbers, then pairs of numbers, then quarters, twice.
    #[target_feature(enable = "avx512f")]
    fn turned(lines: [__m512; BLOCK]) -> [__m512; BLOCK] {
        let mut pairs = lines;
        for line in (0..BLOCK).step_by(2) {
            pairs[line] = _mm512_unpacklo_ps(lines[line], lines[line + 1]);
            pairs[line + 1] = _mm512_unpackhi_ps(lines[line], lines[line + 1]);
        }
        let low = |a, b| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
        let high = |a, b| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
        let mut fours = pairs;
        for line in (0..BLOCK).step_by(4) {
            fours[line] = low(pairs[line], pairs[line + 2]);
            fours[line + 1] = high(pairs[line], pairs[line + 2]);
            fours[line + 2] = low(pairs[line + 1], pairs[line + 3]);
            fours[line + 3] = high(pairs[line + 1], pairs[line + 3]);
        }
        // Quarters 0 and 2, and 1 and 3, of both.
        const EVEN: i32 = 0b10_00_10_00;
        const ODD: i32 = 0b11_01_11_01;
        let mut eights = fours;
        for line in 0..4 {
            eights[line] = _mm512_shuffle_f32x4::<EVEN>(fours[line], fours[line + 4]);
            eights[line + 4] = _mm512_shuffle_f32x4::<ODD>(fours[line], fours[line + 4]);
            eights[line + 8] = _mm512_shuffle_f32x4::<EVEN>(fours[line + 8], fours[line + 12]);
            eights[line + 12] = _mm512_shuffle_f32x4::<ODD>(fours[line + 8], fours[line + 12]);
        }
        let mut turned = eights;
        for line in 0..8 {
            turned[line] = _mm512_shuffle_f32x4::<EVEN>(eights[line], eights[line + 8]);
            turned[line + 8] = _mm512_shuffle_f32x4::<ODD>(eights[line], eights[line + 8]);
        }
        turned
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod transpose {
    //! Nothing that is faster than what `gemm` does.

    pub(super) fn is_fast() -> bool {
        false
    }

    pub(super) unsafe fn transpose(_: *const f32, _: usize, _: usize, _: usize, _: &mut Vec<f32>) {}
}
