//! Scores, weights and sums of one block.

#![expect(clippy::needless_range_loop, reason = "small arrays are registers, all indexed by the same constants")]

use std::ops::Range;

use super::rows::{Codes, Rows};
use super::{KV_BLOCK, Partial, Queries};
use crate::ColsMut;
use crate::ops::exp::exp;
use crate::ops::lanes::{LANES, Simd, pad};
use crate::ops::reduce::total;

/// Scores of one query.
pub(super) type Scores = [f32; KV_BLOCK];

/// The rows of a block's queries: number of the first that sees it, and its first position.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) first: usize,
    pub(super) start: usize,
}

/// Replaces the scores of rows `at.first..` with the first key by those with row 0 of `keys`.
#[inline(always)]
pub(super) fn score_first<S: Simd>(
    s: S,
    q: &Queries<'_>,
    at: Place,
    keys: Codes<'_, [i8; LANES]>,
    scores: &mut [Scores],
) {
    for row in at.first..q.rows() {
        let product = products::<S, _, 1, 1>(s, [q.row(row)], keys, [keys.row(0)])[0][0];
        scores[row][0] = s.sum(product) * q.scale;
    }
}

/// Makes weights of the scores of rows `at.first..`, with the steps of keys and of values where they are codes, and puts maxima and
/// sums into `out`.
#[inline(always)]
pub(super) fn weights<S: Simd>(
    s: S,
    q: &Queries<'_>,
    at: Place,
    [of_keys, of_values]: [Option<Scores>; 2],
    scores: &mut [Scores],
    out: &mut Partial,
) {
    let stride = Partial::stride_of(q.head_dim);
    for row in at.first..q.rows() {
        if let Some(steps) = &of_keys {
            multiply(s, &mut scores[row], steps);
        }
        let (max, sum) = exponentials(s, &mut scores[row], q.visible(row, at.start));
        let end = &mut out.values[(row + 1) * stride - 16..];
        (end[0], end[1]) = (max, sum);
        if let Some(steps) = &of_values {
            multiply(s, &mut scores[row], steps);
        }
    }
}

/// `scores[j] *= steps[j]`
#[inline(always)]
fn multiply<S: Simd>(s: S, scores: &mut Scores, steps: &Scores) {
    let (steps, _) = steps.as_chunks::<LANES>();
    for (v, steps) in scores.as_chunks_mut::<LANES>().0.iter_mut().zip(steps) {
        s.store(s.mul(s.load(v), s.load(steps)), v);
    }
}

/// Scores of rows `at.first..` with the block's keys; those of keys that a row does not see are arbitrary.
#[inline(always)]
pub(super) fn score<S: Simd, R: Rows>(s: S, q: &Queries<'_>, at: Place, keys: R, scores: &mut [Scores]) {
    let Place { first, start } = at;
    let rows = q.rows();
    let scale = s.splat(q.scale);
    let mut lanes = [0.0; LANES];
    let mut row = first;
    // Four queries with four keys at a time, then what is left of the queries with sixteen keys. Keys behind the last
    // visible one are replaced by it.
    while row + 4 <= rows {
        let len = q.visible(row + 3, start);
        let queries = [q.row(row), q.row(row + 1), q.row(row + 2), q.row(row + 3)];
        let mut j = 0;
        while j < len {
            let key = [
                keys.row(j),
                keys.row((j + 1).min(len - 1)),
                keys.row((j + 2).min(len - 1)),
                keys.row((j + 3).min(len - 1)),
            ];
            s.store(s.mul(s.sums(products_4x4(s, queries, keys, key)), scale), &mut lanes);
            for (scores, lanes) in scores[row..row + 4].iter_mut().zip(lanes.as_chunks::<4>().0) {
                scores[j..j + 4].copy_from_slice(lanes);
            }
            j += 4;
        }
        row += 4;
    }
    while row < rows {
        let len = q.visible(row, start);
        let mut j = 0;
        while j < len {
            let mut key = [keys.row(len - 1); 16];
            for (i, key) in key.iter_mut().enumerate().take(len - j) {
                *key = keys.row(j + i);
            }
            s.store(s.mul(s.sums(products_1x16(s, q.row(row), keys, key)), scale), &mut lanes);
            scores[row][j..j + 16].copy_from_slice(&lanes);
            j += 16;
        }
        row += 1;
    }
}

/// The lane sums of four queries with four keys, in this order.
#[inline(always)]
fn products_4x4<S: Simd, R: Rows>(s: S, q: [&[f32]; 4], keys: R, k: [R::Row; 4]) -> [S::F; 16] {
    let mut out = [s.splat(0.0); 16];
    if S::ACCUMULATORS >= 16 {
        let tile = products::<S, R, 4, 4>(s, q, keys, k);
        for i in 0..16 {
            out[i] = tile[i / 4][i % 4];
        }
    } else {
        for i in [0, 2] {
            for j in [0, 2] {
                let tile = products::<S, R, 2, 2>(s, [q[i], q[i + 1]], keys, [k[j], k[j + 1]]);
                out[4 * i + j] = tile[0][0];
                out[4 * i + j + 1] = tile[0][1];
                out[4 * i + j + 4] = tile[1][0];
                out[4 * i + j + 5] = tile[1][1];
            }
        }
    }
    out
}

/// The lane sums of one query with sixteen keys.
#[inline(always)]
fn products_1x16<S: Simd, R: Rows>(s: S, q: &[f32], keys: R, k: [R::Row; 16]) -> [S::F; 16] {
    if S::ACCUMULATORS >= 16 {
        return products::<S, R, 1, 16>(s, [q], keys, k)[0];
    }
    let mut out = [s.splat(0.0); 16];
    for (out, k) in out.as_chunks_mut::<4>().0.iter_mut().zip(k.as_chunks::<4>().0) {
        *out = products::<S, R, 1, 4>(s, [q], keys, *k)[0];
    }
    out
}

/// The lane sums of `Q` queries with `K` of the rows in `keys`, all of the same length.
#[inline(always)]
fn products<S: Simd, R: Rows, const Q: usize, const K: usize>(
    s: S,
    q: [&[f32]; Q],
    keys: R,
    k: [R::Row; K],
) -> [[S::F; K]; Q] {
    let mut acc = [[s.splat(0.0); K]; Q];
    let vectors = keys.head_dim() / LANES;
    let mut q_vectors: [&[[f32; LANES]]; Q] = [&[]; Q];
    for (vs, q) in q_vectors.iter_mut().zip(q) {
        // As many of all, which lets the compiler drop the bounds checks.
        *vs = &q.as_chunks().0[..vectors];
    }
    let mut k_vectors = k;
    for k in &mut k_vectors {
        *k = R::vectors(*k, 0, vectors);
    }
    for v in 0..vectors {
        let mut q = [s.splat(0.0); Q];
        for i in 0..Q {
            q[i] = s.load(&q_vectors[i][v]);
        }
        for j in 0..K {
            let k = R::load(s, k_vectors[j], v);
            for i in 0..Q {
                acc[i][j] = s.fma(q[i], k, acc[i][j]);
            }
        }
    }
    if !keys.head_dim().is_multiple_of(LANES) {
        for j in 0..K {
            let k = R::tail(s, k[j]);
            for i in 0..Q {
                acc[i][j] = s.fma(s.load(&pad(&q[i][vectors * LANES..], 0.0)), k, acc[i][j]);
            }
        }
    }
    acc
}

/// Replaces the first `visible` scores by their exponentials relative to the largest, and the others by 0; returns the largest
/// and the sum.
#[inline(always)]
fn exponentials<S: Simd>(s: S, scores: &mut Scores, visible: usize) -> (f32, f32) {
    scores[visible..].fill(f32::NEG_INFINITY);
    let vectors = scores.as_chunks_mut::<LANES>().0;
    let mut v = [s.splat(0.0); KV_BLOCK / LANES];
    for i in 0..v.len() {
        v[i] = s.load(&vectors[i]);
    }
    let max = s.max_lane(s.max(s.max(v[0], v[1]), s.max(v[2], v[3])));
    for i in 0..v.len() {
        v[i] = exp(s, s.sub(v[i], s.splat(max)));
        s.store(v[i], &mut vectors[i]);
    }
    (max, total(s, v))
}

/// Adds the values of positions `range` of the block, as far as they are seen, weighted with the weights of rows
/// `at.first..`, to the rows of `out`.
#[inline(always)]
pub(super) fn weigh<S: Simd, R: Rows>(
    s: S,
    q: &Queries<'_>,
    at: Place,
    range: Range<usize>,
    values: R,
    weights: &[Scores],
    out: &mut Partial,
) {
    let Place { first, start } = at;
    let rows = q.rows();
    let stride = Partial::stride_of(q.head_dim);
    let seen = |row: usize| q.visible(row, start).clamp(range.start, range.end);
    let mut row = first;
    while row + 4 <= rows {
        let w = [&weights[row], &weights[row + 1], &weights[row + 2], &weights[row + 3]];
        let sums = &mut out.values[row * stride..(row + 4) * stride];
        // What all four see, then what only the later ones see.
        let common = seen(row);
        if S::ACCUMULATORS >= 16 {
            weigh_rows::<S, R, 4, 4>(s, values, w, range.start..common, sums);
        } else {
            weigh_rows::<S, R, 4, 1>(s, values, w, range.start..common, sums);
        }
        for i in 1..4 {
            let visible = seen(row + i);
            if visible > common {
                weigh_rows::<S, R, 1, 4>(s, values, [w[i]], common..visible, &mut sums[i * stride..(i + 1) * stride]);
            }
        }
        row += 4;
    }
    while row < rows {
        let sums = &mut out.values[row * stride..(row + 1) * stride];
        weigh_rows::<S, R, 1, 4>(s, values, [&weights[row]], range.start..seen(row), sums);
        row += 1;
    }
}

/// Adds the values of positions `range`, weighted with `Q` rows of weights, to as many rows of sums; `D` vectors of a row
/// are summed at a time.
#[inline(always)]
fn weigh_rows<S: Simd, R: Rows, const Q: usize, const D: usize>(
    s: S,
    values: R,
    weights: [&Scores; Q],
    range: Range<usize>,
    sums: &mut [f32],
) {
    let stride = sums.len() / Q;
    let vectors = values.head_dim() / LANES;
    let mut v = 0;
    while v + D <= vectors {
        weigh_vectors::<S, R, Q, D>(s, values, weights, range.clone(), v, sums, stride);
        v += D;
    }
    while v < vectors {
        weigh_vectors::<S, R, Q, 1>(s, values, weights, range.clone(), v, sums, stride);
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

/// The same for the `D` vectors from vector `v` on, with the sums in registers.
#[inline(always)]
fn weigh_vectors<S: Simd, R: Rows, const Q: usize, const D: usize>(
    s: S,
    values: R,
    weights: [&Scores; Q],
    range: Range<usize>,
    v: usize,
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

#[inline(always)]
pub(super) fn merge<S: Simd>(s: S, sum: &mut Partial, next: &Partial) {
    assert!(
        sum.rows == next.rows && sum.head_dim == next.head_dim,
        "merge of {} queries of heads of {} with {} of {}",
        sum.rows,
        sum.head_dim,
        next.rows,
        next.head_dim
    );
    let stride = Partial::stride_of(sum.head_dim);
    let rows = sum.values.chunks_exact_mut(stride).zip(next.values.chunks_exact(stride)).take(sum.rows);
    for (a, b) in rows {
        let (a, a_end) = a.split_at_mut(stride - LANES);
        let (b, b_end) = b.split_at(stride - LANES);
        if b_end[0] == f32::NEG_INFINITY && b_end[1] == 0.0 {
            // Nothing was seen; the difference of two such maxima would be NaN.
            continue;
        }
        let max = if a_end[0] > b_end[0] { a_end[0] } else { b_end[0] };
        let mut factors = [0.0; LANES];
        (factors[0], factors[1]) = (a_end[0] - max, b_end[0] - max);
        s.store(exp(s, s.load(&factors)), &mut factors);
        let (a_factor, b_factor) = (s.splat(factors[0]), s.splat(factors[1]));
        for (a, b) in a.as_chunks_mut().0.iter_mut().zip(b.as_chunks().0) {
            s.store(s.fma(s.load(b), b_factor, s.mul(s.load(a), a_factor)), a);
        }
        let mut l = [0.0; LANES];
        s.store(s.fma(s.splat(b_end[1]), b_factor, s.mul(s.splat(a_end[1]), a_factor)), &mut l);
        (a_end[0], a_end[1]) = (max, l[0]);
    }
}

#[inline(always)]
pub(super) fn finish<S: Simd>(s: S, sum: &Partial, out: &mut ColsMut<'_, f32>) {
    let d = sum.head_dim;
    assert_eq!(
        out.n().checked_mul(out.width()),
        sum.rows.checked_mul(d),
        "attention: a result of [{}, {}] for {} queries of heads of {d}",
        out.n(),
        out.width(),
        sum.rows
    );
    let stride = Partial::stride_of(d);
    let mut rows = sum.values.chunks_exact(stride);
    for t in 0..out.n() {
        for (head, row) in out.row_mut(t).chunks_exact_mut(d.max(1)).zip(&mut rows) {
            let l = s.splat(row[stride - LANES + 1]);
            let (vectors, tail) = head.as_chunks_mut();
            let (row, _) = row.as_chunks();
            for (out, o) in vectors.iter_mut().zip(row) {
                s.store(s.div(s.load(o), l), out);
            }
            if !tail.is_empty() {
                let mut last = [0.0; LANES];
                s.store(s.div(s.load(&row[d / LANES]), l), &mut last);
                tail.copy_from_slice(&last[..tail.len()]);
            }
        }
    }
}
