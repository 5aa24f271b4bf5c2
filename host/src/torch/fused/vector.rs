//! What the kernels are made of: vectors of f32 of any width, their exponential, and products of small matrices.
//!
//! Everything is generic over the instructions, and inlined into the function that has them.

use gemm_common::pulp::{MemMask, Simd};

/// The first `count` numbers of a vector. One that pulp makes for memory is read by a function of its own for each count, which
/// costs a jump; processors with masks need none.
#[inline(always)]
fn first<S: Simd>(simd: S, count: usize) -> MemMask<S::m32s> {
    MemMask::from(simd.mask_between_m32s(0, count as u32).mask())
}

/// How many whole vectors, and which numbers of one more, make `count` numbers.
#[derive(Clone, Copy)]
pub(super) struct Vectors<S: Simd> {
    pub(super) whole: usize,
    pub(super) rest: Option<MemMask<S::m32s>>,
}

impl<S: Simd> Vectors<S> {
    #[inline(always)]
    pub(super) fn of(simd: S, count: usize) -> Self {
        let (whole, rest) = (count / S::F32_LANES, count % S::F32_LANES);
        Self { whole, rest: (rest > 0).then(|| first(simd, rest)) }
    }
}

#[inline(always)]
pub(super) unsafe fn load<S: Simd>(_: S, from: *const f32) -> S::f32s {
    // SAFETY: the caller's promise: a vector of numbers is there.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}

#[inline(always)]
pub(super) unsafe fn store<S: Simd>(_: S, to: *mut f32, value: S::f32s) {
    // SAFETY: the caller's promise: there is place for a vector of numbers.
    unsafe { to.cast::<S::f32s>().write_unaligned(value) }
}

/// Calls `body` with the offset of each vector of `$count` numbers, and a mask where it is not whole.
macro_rules! for_each_vector {
    ($simd:expr, $S:ty, $count:expr, |$offset:ident, $mask:ident| $body:expr) => {{
        let vectors = $crate::torch::fused::vector::Vectors::<$S>::of($simd, $count);
        for index in 0..vectors.whole {
            let $offset = index * <$S>::F32_LANES;
            let $mask: Option<gemm_common::pulp::MemMask<<$S as Simd>::m32s>> = None;
            $body
        }
        if let Some(mask) = vectors.rest {
            let $offset = vectors.whole * <$S>::F32_LANES;
            let $mask = Some(mask);
            $body
        }
    }};
}
pub(super) use for_each_vector;

/// A whole vector, or the numbers of a mask and zeros.
#[inline(always)]
pub(super) unsafe fn load_some<S: Simd>(simd: S, mask: Option<MemMask<S::m32s>>, from: *const f32) -> S::f32s {
    // SAFETY: the caller's promise: the numbers are there.
    unsafe {
        match mask {
            None => load(simd, from),
            Some(mask) => simd.mask_load_ptr_f32s(mask, from),
        }
    }
}

/// Writes a whole vector, or its numbers of a mask.
#[inline(always)]
pub(super) unsafe fn store_some<S: Simd>(simd: S, mask: Option<MemMask<S::m32s>>, to: *mut f32, value: S::f32s) {
    // SAFETY: the caller's promise: there is place for the numbers.
    unsafe {
        match mask {
            None => store(simd, to, value),
            Some(mask) => simd.mask_store_ptr_f32s(mask, to, value),
        }
    }
}

/// The exponential of numbers that are not above zero, with an error of about one unit in the last place; 0 where it would be no
/// normal number, NaN for NaN.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Added to a number, it leaves the number's whole part in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first one short, so that its products with whole numbers are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // Taylor's, with the last ones moved so that the error on half of ln 2 is least.
    const COEFFICIENTS: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
    let splat = |value| simd.splat_f32s(value);
    let shifted = simd.mul_add_e_f32s(x, splat(std::f32::consts::LOG2_E), splat(ROUND));
    let whole = simd.sub_f32s(shifted, splat(ROUND));
    let rest = simd.mul_add_e_f32s(whole, splat(-LN_2[0]), x);
    let rest = simd.mul_add_e_f32s(whole, splat(-LN_2[1]), rest);
    let mut sum = splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        sum = simd.mul_add_e_f32s(sum, rest, splat(*coefficient));
    }
    let sum = simd.mul_add_e_f32s(simd.mul_f32s(rest, rest), sum, simd.add_f32s(rest, splat(1.0)));
    // 2 to the power of the whole part: it becomes the exponent.
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let power = simd.add_u32s(exponent, simd.splat_u32s(1.0f32.to_bits()));
    let value = simd.mul_f32s(sum, simd.transmute_f32s_u32s(power));
    simd.select_f32s(simd.less_than_f32s(x, splat(-87.336_54)), splat(0.0), value)
}

/// A matrix: element (i, j) lies at `i * row + j * column`.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    pub(super) at: *const f32,
    pub(super) row: usize,
    pub(super) column: usize,
}

/// Rows that a tile has.
pub(super) const TILE: usize = 8;

/// Writes `left · right` into `out`, `rows` by `columns`, whose rows are `out_row` apart; those of `right` are contiguous.
///
/// # Safety
///
/// The matrices have these numbers, `depth` those that are summed, and nobody writes them meanwhile.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd>(
    simd: S,
    [rows, columns, depth]: [usize; 3],
    left: Matrix,
    (right, right_row): (*const f32, usize),
    (out, out_row): (*mut f32, usize),
) {
    let lanes = S::F32_LANES;
    let mut column = 0;
    while column < columns {
        let width = (columns - column).min(2 * lanes);
        // The last vector's numbers; a tile of one vector has none before it.
        let vectors = width.div_ceil(lanes);
        let last = first(simd, width - (vectors - 1) * lanes);
        let mut row = 0;
        while row < rows {
            // SAFETY: the places are within the matrices.
            unsafe {
                let left = Matrix { at: left.at.add(row * left.row), ..left };
                let right = (right.add(column), right_row);
                let out = (out.add(row * out_row + column), out_row);
                match (vectors, rows - row >= TILE) {
                    (2, true) => tile::<S, TILE, 2>(simd, depth, last, left, right, out),
                    (2, false) => tile::<S, 1, 2>(simd, depth, last, left, right, out),
                    (_, true) => tile::<S, TILE, 1>(simd, depth, last, left, right, out),
                    (_, false) => tile::<S, 1, 1>(simd, depth, last, left, right, out),
                }
            }
            row += if rows - row >= TILE { TILE } else { 1 };
        }
        column += width;
    }
}

/// A part of a product that registers hold.
#[inline(always)]
unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    depth: usize,
    last: MemMask<S::m32s>,
    left: Matrix,
    (right, right_row): (*const f32, usize),
    (out, out_row): (*mut f32, usize),
) {
    let lanes = S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        for index in 0..depth {
            let right = right.add(index * right_row);
            let left_column = left.at.add(index * left.column);
            let mut line = [simd.splat_f32s(0.0); VECTORS];
            for (vector, line) in line[..VECTORS - 1].iter_mut().enumerate() {
                *line = load(simd, right.add(vector * lanes));
            }
            line[VECTORS - 1] = simd.mask_load_ptr_f32s(last, right.add((VECTORS - 1) * lanes));
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = simd.splat_f32s(*left_column.add(row * left.row));
                for (sum, line) in sums.iter_mut().zip(line) {
                    *sum = simd.mul_add_e_f32s(factor, line, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let out = out.add(row * out_row);
            for (vector, sum) in sums[..VECTORS - 1].iter().enumerate() {
                store(simd, out.add(vector * lanes), *sum);
            }
            simd.mask_store_ptr_f32s(last, out.add((VECTORS - 1) * lanes), sums[VECTORS - 1]);
        }
    }
}

/// Writes a matrix of `rows` by `columns`, whose rows are `stride` apart, the other way round.
///
/// # Safety
///
/// Both have these numbers; those of `to` are contiguous.
#[inline(always)]
pub(super) unsafe fn transpose(from: *const f32, stride: usize, [rows, columns]: [usize; 2], to: *mut f32) {
    for column in 0..columns {
        for row in 0..rows {
            // SAFETY: the caller's promise.
            unsafe { *to.add(column * rows + row) = *from.add(row * stride + column) };
        }
    }
}
