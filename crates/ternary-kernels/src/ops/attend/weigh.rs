//! Sums of a block's values, weighted with the exponentials of its scores.

#![expect(clippy::needless_range_loop, reason = "small arrays are registers, all indexed by the same constants")]

use std::ops::Range;

use super::data::{prefetch, share};
use super::rows::Rows;
use super::score::Scores;
use super::{KV_BLOCK, Partial, Queries};
use crate::ops::lanes::{LANES, Simd};

/// Adds the values of positions `range` of the block that are visible, weighted with the weights of rows `first..`, to
/// the rows of `out`. Between the values of the first rows the memory of `next_keys` is prefetched.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one block with its place, its operands and its result")]
pub(super) fn weigh<S: Simd, R: Rows>(
    s: S,
    q: &Queries<'_>,
    first: usize,
    start: usize,
    range: Range<usize>,
    values: R,
    next_keys: &[u8],
    weights: &[Scores],
    out: &mut Partial,
) {
    let rows = q.rows();
    let stride = Partial::stride_of(q.head_dim);
    let seen = |row: usize| q.visible(row, start).clamp(range.start, range.end);
    let mut row = first;
    macro_rules! together {
        ($rows:literal, $vectors:literal) => {
            while row + $rows <= rows {
                let mut ends = [0; $rows];
                for i in 0..$rows {
                    ends[i] = seen(row + i);
                }
                let sums = &mut out.values[row * stride..(row + $rows) * stride];
                let ahead = if row == first { next_keys } else { &[] };
                weigh_together::<S, R, $rows, $vectors>(s, values, &weights[row..], range.start, ends, ahead, sums);
                row += $rows;
            }
        };
    }
    if S::ACCUMULATORS >= 16 {
        // Of equally many sums, those of more rows read fewer values: on Zen 4 eight rows of two vectors run at 98 % of the rate of
        // multiplications alone, four of four at 79 %.
        together!(8, 2);
        together!(4, 4);
    } else {
        together!(4, 1);
    }
    while row < rows {
        let sums = &mut out.values[row * stride..(row + 1) * stride];
        let ahead = if row == first { next_keys } else { &[] };
        let (weights, range) = ([&weights[row]], range.start..seen(row));
        match S::ACCUMULATORS < 4 {
            true => weigh_rows::<S, R, 1, 2>(s, values, weights, range, ahead, sums),
            false => weigh_rows::<S, R, 1, 4>(s, values, weights, range, ahead, sums),
        }
        row += 1;
    }
}

/// Adds the values of positions from `start` on, weighted with the first `Q` rows of `weights`, to `Q` rows of sums; row `i` sees those
/// before `ends[i]`, which ascend.
#[inline(always)]
fn weigh_together<S: Simd, R: Rows, const Q: usize, const D: usize>(
    s: S,
    values: R,
    weights: &[Scores],
    start: usize,
    ends: [usize; Q],
    ahead: &[u8],
    sums: &mut [f32],
) {
    let mut w = [&weights[0]; Q];
    for i in 1..Q {
        w[i] = &weights[i];
    }
    // First the keys that all see, then those that only the later ones see.
    let common = ends[0];
    weigh_rows::<S, R, Q, D>(s, values, w, start..common, ahead, sums);
    let stride = sums.len() / Q;
    for i in 1..Q {
        if ends[i] > common {
            let sums = &mut sums[i * stride..(i + 1) * stride];
            weigh_rows::<S, R, 1, 4>(s, values, [w[i]], common..ends[i], &[], sums);
        }
    }
}

/// Adds the values of positions `range`, weighted with `Q` rows of weights, to `Q` rows of sums; `D` vectors of a row
/// are summed at a time.
#[inline(always)]
fn weigh_rows<S: Simd, R: Rows, const Q: usize, const D: usize>(
    s: S,
    values: R,
    weights: [&Scores; Q],
    range: Range<usize>,
    ahead: &[u8],
    sums: &mut [f32],
) {
    let stride = sums.len() / Q;
    let vectors = values.head_dim() / LANES;
    // Each pass over the values prefetches its part.
    let part = |v: usize, n: usize| &ahead[ahead.len() * v / vectors..ahead.len() * (v + n) / vectors];
    let mut v = 0;
    while v + D <= vectors {
        weigh_vectors::<S, R, Q, D>(s, values, weights, range.clone(), v, part(v, D), sums, stride);
        v += D;
    }
    while v < vectors {
        weigh_vectors::<S, R, Q, 1>(s, values, weights, range.clone(), v, part(v, 1), sums, stride);
        v += 1;
    }
    if !values.head_dim().is_multiple_of(LANES) {
        for (i, weights) in weights.iter().enumerate() {
            let sums: &mut [f32; LANES] = vector_mut(sums, i * stride + vectors * LANES);
            let mut acc = s.load(sums);
            for j in range.clone() {
                acc = s.fma(s.splat(weights[j]), R::tail(s, values.row(j)), acc);
            }
            s.store(acc, sums);
        }
    }
}

/// [`weigh_rows`] for the `D` vectors from vector `v` on, with the sums in registers.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "as above, and the place in the rows")]
fn weigh_vectors<S: Simd, R: Rows, const Q: usize, const D: usize>(
    s: S,
    values: R,
    weights: [&Scores; Q],
    range: Range<usize>,
    v: usize,
    ahead: &[u8],
    sums: &mut [f32],
    stride: usize,
) {
    let mut acc = [[s.splat(0.0); D]; Q];
    for i in 0..Q {
        for d in 0..D {
            acc[i][d] = s.load(vector_mut(sums, i * stride + (v + d) * LANES));
        }
    }
    for j in range.start..range.end.min(KV_BLOCK) {
        if !ahead.is_empty() {
            prefetch(share(ahead, j, j + 1));
        }
        let value = R::vectors(values.row(j), v, D);
        let mut x = [s.splat(0.0); D];
        for d in 0..D {
            x[d] = R::load(s, value, d);
        }
        for i in 0..Q {
            let w = s.splat(weights[i][j]);
            for d in 0..D {
                acc[i][d] = s.fma(w, x[d], acc[i][d]);
            }
        }
    }
    for i in 0..Q {
        for d in 0..D {
            s.store(acc[i][d], vector_mut(sums, i * stride + (v + d) * LANES));
        }
    }
}

#[inline(always)]
fn vector_mut(x: &mut [f32], at: usize) -> &mut [f32; LANES] {
    x[at..].first_chunk_mut().expect("rows of sums are whole vectors")
}
