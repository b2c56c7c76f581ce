//! Products of f32 matrices of any size and orientation, one thread each: the backward pass of training.
//!
//! Both operands are copied in pieces into the order in which the innermost loop reads them, so strides cost nothing
//! there. Every element of the result is a chain of fused multiply-adds over pieces of [`KC`] inner indices, and the
//! pieces are added in ascending order: the bits depend neither on the instruction set nor on the number of rows that
//! are computed together.

use super::lanes::{LANES, Simd};
use crate::simd::prefetch;

/// Inner indices in a piece: a panel of the right operand and a tile of the left one then fit the level-1 cache
/// together.
const KC: usize = 256;
/// Rows of the left operand that are packed together; they stay in the level-2 cache.
const MC: usize = 512;

/// A matrix in memory: element `(i, j)` is `data[i * row + j * col]`.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns; products are fast if one of the two distances is 1.
    pub col: usize,
}

impl<'a> Strided<'a> {
    /// Rows of `stride` elements, of which the first columns are used.
    pub fn rows(data: &'a [f32], stride: usize) -> Self {
        Self { data, row: stride, col: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self { row: self.col, col: self.row, ..self }
    }

    /// Whether the data holds `rows` by `cols` elements.
    fn holds(self, rows: usize, cols: usize) -> bool {
        let last = |n: usize, stride: usize| n.saturating_sub(1).checked_mul(stride);
        match (last(rows, self.row), last(cols, self.col)) {
            (Some(a), Some(b)) => a.checked_add(b).is_some_and(|at| at < self.data.len()) || rows == 0 || cols == 0,
            _ => false,
        }
    }
}

/// Buffers of [`Ops::gemm_add`](crate::Ops::gemm_add), reused from call to call.
#[derive(Clone, Debug, Default)]
pub struct GemmScratch {
    a: Vec<f32>,
    b: Vec<f32>,
}

ops! {
    /// `out[i, j] += sum_p a[i, p] * b[p, j]` with `a` `[m, k]`, `b` `[k, n]`, `out` `[m, n]` row-major, all f32;
    /// `shape` is `[m, n, k]`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn gemm_add(a: Strided<'_>, b: Strided<'_>, shape: [usize; 3], out: &mut [f32], scratch: &mut GemmScratch) = gemm_add;

    /// `out[i, j] = sum_p a[i, p] * b[p, j]`, with the bits of [`Ops::gemm_add`](crate::Ops::gemm_add) on zeros.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn gemm(a: Strided<'_>, b: Strided<'_>, shape: [usize; 3], out: &mut [f32], scratch: &mut GemmScratch) = gemm;
}

#[inline(always)]
fn gemm_add<S: Simd>(
    s: S,
    a: Strided<'_>,
    b: Strided<'_>,
    shape: [usize; 3],
    out: &mut [f32],
    scratch: &mut GemmScratch,
) {
    product::<S, true>(s, a, b, shape, out, scratch);
}

#[inline(always)]
fn gemm<S: Simd>(s: S, a: Strided<'_>, b: Strided<'_>, shape: [usize; 3], out: &mut [f32], scratch: &mut GemmScratch) {
    if shape[2] == 0 {
        out.fill(0.0);
    }
    product::<S, false>(s, a, b, shape, out, scratch);
}

/// The first piece of inner indices is added to the result or replaces it.
#[inline(always)]
fn product<S: Simd, const ADD: bool>(
    s: S,
    a: Strided<'_>,
    b: Strided<'_>,
    shape: [usize; 3],
    out: &mut [f32],
    scratch: &mut GemmScratch,
) {
    let [m, n, k] = shape;
    assert!(
        a.holds(m, k) && b.holds(k, n) && Some(out.len()) == m.checked_mul(n),
        "gemm_add [{m}, {n}, {k}]: operands of {} and {} elements, result of {}",
        a.data.len(),
        b.data.len(),
        out.len()
    );
    // As many accumulators as fit the registers with the operands.
    if S::ACCUMULATORS >= 16 {
        blocks::<S, 8, 2, ADD>(s, a, b, shape, out, scratch);
    } else {
        blocks::<S, 4, 1, ADD>(s, a, b, shape, out, scratch);
    }
}

#[inline(always)]
fn blocks<S: Simd, const R: usize, const C: usize, const ADD: bool>(
    s: S,
    a: Strided<'_>,
    b: Strided<'_>,
    [m, n, k]: [usize; 3],
    out: &mut [f32],
    scratch: &mut GemmScratch,
) {
    let width = C * LANES;
    scratch.a.resize(MC.min(m.next_multiple_of(R)) * KC, 0.0);
    scratch.b.resize(width * KC, 0.0);
    for p in (0..k).step_by(KC) {
        let kc = KC.min(k - p);
        for i in (0..m).step_by(MC) {
            let mc = MC.min(m - i);
            for (tile, packed) in scratch.a.chunks_exact_mut(R * kc).enumerate().take(mc.div_ceil(R)) {
                pack::<S, R>(s, a, (i + tile * R, m), (p, kc), packed);
            }
            for j in (0..n).step_by(width) {
                // Columns of the right operand are packed like rows of its transpose.
                match C {
                    1 => pack::<S, LANES>(s, b.t(), (j, n), (p, kc), &mut scratch.b),
                    _ => pack::<S, { 2 * LANES }>(s, b.t(), (j, n), (p, kc), &mut scratch.b),
                }
                let packed_b = &scratch.b[..width * kc];
                for (tile, packed_a) in scratch.a.chunks_exact(R * kc).enumerate().take(mc.div_ceil(R)) {
                    let row = i + tile * R;
                    let (rows, cols) = (R.min(m - row), width.min(n - j));
                    let out = &mut out[row * n + j..(row + rows - 1) * n + j + cols];
                    if ADD || p > 0 {
                        tile_product::<S, R, C, true>(s, packed_a, packed_b, out, n, rows, cols);
                    } else {
                        tile_product::<S, R, C, false>(s, packed_a, packed_b, out, n, rows, cols);
                    }
                }
            }
        }
    }
}

/// Rows `first..first + R` (zeros from row `end` on) of columns `p..p + kc`, as `[kc, R]`.
#[inline(always)]
fn pack<S: Simd, const R: usize>(
    s: S,
    x: Strided<'_>,
    (first, end): (usize, usize),
    (p, kc): (usize, usize),
    out: &mut [f32],
) {
    let rows = R.min(end - first);
    let (out, _) = out[..R * kc].as_chunks_mut::<R>();
    if x.row == 1 && rows == R {
        for (q, out) in out.iter_mut().enumerate() {
            let at = (p + q) * x.col + first;
            let (row, next) = x.data[at..].split_at(R);
            out.copy_from_slice(row);
            // Pieces of rows are too short for the hardware to see that the next ones follow: they would come from memory
            // one by one.
            prefetch_lines(&next[..R.min(next.len())]);
        }
    } else if x.row == 1 {
        for (q, out) in out.iter_mut().enumerate() {
            let at = (p + q) * x.col + first;
            out[..rows].copy_from_slice(&x.data[at..at + rows]);
            out[rows..].fill(0.0);
        }
    } else if x.col == 1 {
        let done = if rows == R { pack_squares::<S, R>(s, x, first, p, out) } else { 0 };
        for r in 0..rows {
            let at = (first + r) * x.row + p;
            for (out, v) in out[done..].iter_mut().zip(&x.data[at + done..at + kc]) {
                out[r] = *v;
            }
        }
        if rows < R {
            out.iter_mut().for_each(|out| out[rows..].fill(0.0));
        }
    } else {
        for (q, out) in out.iter_mut().enumerate() {
            for (r, out) in out.iter_mut().enumerate() {
                *out = if r < rows { x.data[(first + r) * x.row + (p + q) * x.col] } else { 0.0 };
            }
        }
    }
}

/// [`pack`] for rows whose elements are contiguous in memory, in squares of 16 by 16; returns the number of columns
/// done.
#[inline(always)]
fn pack_squares<S: Simd, const R: usize>(s: S, x: Strided<'_>, first: usize, p: usize, out: &mut [[f32; R]]) -> usize {
    // With few registers, squares would be kept in memory and gain nothing.
    if S::ACCUMULATORS < 16 {
        return 0;
    }
    let load = |r: usize, q: usize| {
        let at = (first + r) * x.row + p + q;
        x.data[at..].first_chunk::<LANES>()
    };
    if R.is_multiple_of(LANES) {
        let whole = out.len() / LANES * LANES;
        for q in (0..whole).step_by(LANES) {
            for group in (0..R).step_by(LANES) {
                let mut square = [s.splat(0.0); LANES];
                for (r, vector) in square.iter_mut().enumerate() {
                    let Some(row) = load(group + r, q) else { return q };
                    *vector = s.load(row);
                }
                let square = s.transpose(square);
                for (column, out) in square.into_iter().zip(&mut out[q..q + LANES]) {
                    if let Some(out) = out[group..].first_chunk_mut::<LANES>() {
                        s.store(column, out);
                    }
                }
            }
        }
        whole
    } else if 2 * R == LANES {
        // Two pieces of eight rows are side by side.
        let whole = out.len() / (2 * LANES) * (2 * LANES);
        for q in (0..whole).step_by(2 * LANES) {
            let mut square = [s.splat(0.0); LANES];
            for r in 0..R {
                let (Some(low), Some(high)) = (load(r, q), load(r, q + LANES)) else { return q };
                square[r] = s.load(low);
                square[R + r] = s.load(high);
            }
            let square = s.transpose(square);
            for (i, column) in square.into_iter().enumerate() {
                let mut both = [0.0; LANES];
                s.store(column, &mut both);
                out[q + i].copy_from_slice(&both[..R]);
                out[q + LANES + i].copy_from_slice(&both[R..]);
            }
        }
        whole
    } else {
        0
    }
}

/// Prefetches the lines of some elements, as if they began with a line.
#[inline(always)]
fn prefetch_lines(x: &[f32]) {
    x.chunks(LANES).for_each(|line| prefetch(line.as_ptr().cast()));
}

/// One tile of `R` rows and `C` vectors of columns, of which `rows` and `cols` exist; `out` begins at its first
/// element.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn tile_product<S: Simd, const R: usize, const C: usize, const ADD: bool>(
    s: S,
    a: &[f32],
    b: &[f32],
    out: &mut [f32],
    stride: usize,
    rows: usize,
    cols: usize,
) {
    if ADD {
        // The sums are read while the products are computed.
        (0..rows).for_each(|r| prefetch_lines(&out[r * stride..r * stride + cols]));
    }
    let mut accs = [[s.splat(0.0); C]; R];
    let (a, b) = (a.as_chunks::<R>().0, b.as_chunks::<LANES>().0.as_chunks::<C>().0);
    for (a, b) in a.iter().zip(b) {
        let mut vectors = [s.splat(0.0); C];
        for c in 0..C {
            vectors[c] = s.load(&b[c]);
        }
        for r in 0..R {
            let factor = s.splat(a[r]);
            for c in 0..C {
                accs[r][c] = s.fma(factor, vectors[c], accs[r][c]);
            }
        }
    }
    for (r, accs) in accs.iter().enumerate().take(rows) {
        let out = &mut out[r * stride..r * stride + cols];
        let (whole, tail) = out.as_chunks_mut::<LANES>();
        for (c, acc) in accs.iter().enumerate() {
            if let Some(out) = whole.get_mut(c) {
                s.store(if ADD { s.add(s.load(out), *acc) } else { *acc }, out);
            } else if c == whole.len() && !tail.is_empty() {
                let mut last = [0.0; LANES];
                s.store(*acc, &mut last);
                for (out, v) in tail.iter_mut().zip(last) {
                    *out = if ADD { *out + v } else { v };
                }
            }
        }
    }
}
