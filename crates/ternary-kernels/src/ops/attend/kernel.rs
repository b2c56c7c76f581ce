//! Scores, their exponentials, and the merging of blocks.

#![expect(clippy::needless_range_loop, reason = "small arrays are registers, all indexed by the same constants")]

use super::data::prefetch;
use super::dots;
use super::rows::{Codes, Floats, Rows};
use super::score::{KeyCode, OfCodes, OfFloats, QueryCodes, Scores, score};
use super::weigh::weigh;
use super::{BlockRows, KV_BLOCK, KvData, KvRows, Partial, Queries, Room, WEIGHT_LEVELS};
use crate::ColsMut;
use crate::ops::exp::exp;
use crate::ops::lanes::{LANES, Simd};
use crate::ops::reduce::total;

/// From this many queries on, 16-bit floats and codes of values are converted to f32 once for all queries of a block,
/// not for every four.
const WIDE_ROWS: usize = 8;

/// Calls `$function` with the rows in their own type.
macro_rules! typed {
    ($rows:expr, |$typed:ident| $call:expr) => {{
        let KvRows { data, head_dim, stride, .. } = $rows;
        match data {
            KvData::F32(data) => {
                let $typed = Floats { data, stride, head_dim };
                $call
            }
            KvData::F16(data) => {
                let $typed = Floats { data, stride, head_dim };
                $call
            }
            KvData::Bf16(data) => {
                let $typed = Floats { data, stride, head_dim };
                $call
            }
            KvData::Int8 { codes, .. } => {
                let $typed = Codes { data: codes.as_chunks::<LANES>().0, stride: stride / LANES, head_dim };
                $call
            }
            KvData::Int4 { nibbles, .. } => {
                let data = nibbles.as_chunks::<{ LANES / 2 }>().0;
                let $typed = Codes { data, stride: stride / LANES, head_dim };
                $call
            }
        }
    }};
}

/// Row 0 if it is kept in 8 bits.
#[inline(always)]
fn first_row<'a>(rows: &KvRows<'a>) -> Option<Codes<'a, [i8; LANES]>> {
    match rows.data {
        KvData::Int4 { first: Some((codes, _)), .. } => {
            let (data, _) = codes.as_chunks();
            Some(Codes { data, stride: data.len(), head_dim: rows.head_dim })
        }
        _ => None,
    }
}

#[inline(always)]
pub(super) fn block<S: Simd>(
    s: S,
    q: &Queries<'_>,
    block: usize,
    rows: BlockRows<'_>,
    room: &mut Room,
    out: &mut Partial,
) {
    out.reset(q.rows(), q.head_dim);
    let Some(seen) = Seen::of(q, block, &rows) else { return };
    if !many_codes::<S, false>(s, q, &seen, &rows, room, out) {
        any_rows(s, q, &seen, rows, room, out);
    }
}

/// [`block`] and [`merge`] into `sum` in one, where results are merged as they arise; otherwise it does nothing and returns `false`.
#[inline(always)]
pub(super) fn codes_onto<S: Simd>(
    s: S,
    q: &Queries<'_>,
    block: usize,
    rows: BlockRows<'_>,
    room: &mut Room,
    sum: &mut Partial,
) -> bool {
    check_merge(sum, [q.rows(), q.head_dim]);
    match Seen::of(q, block, &rows) {
        Some(seen) => many_codes::<S, true>(s, q, &seen, &rows, room, sum),
        None => true,
    }
}

/// The part of a block that queries see.
struct Seen {
    /// Position of the first key.
    start: usize,
    /// The first row of queries that sees the block.
    first: usize,
    /// Keys that the last row sees.
    len: usize,
    /// Whether the rows from `first` on are many.
    wide: bool,
}

impl Seen {
    /// `None` if no query sees the block.
    ///
    /// # Panics
    /// If shapes differ or rows are missing.
    #[inline(always)]
    fn of(q: &Queries<'_>, block: usize, BlockRows { keys, values, .. }: &BlockRows<'_>) -> Option<Self> {
        assert!(
            keys.head_dim == q.head_dim && values.head_dim == q.head_dim,
            "attention: heads of {} (queries), {} (keys), {} (values)",
            q.head_dim,
            keys.head_dim,
            values.head_dim
        );
        q.check();
        let start = block.saturating_mul(KV_BLOCK);
        let first = start.saturating_sub(q.position).min(q.tokens) * q.group;
        if first == q.rows() {
            return None;
        }
        let len = q.visible(q.rows() - 1, start);
        assert!(
            keys.len >= len && values.len >= len,
            "attention: block {block} has {} keys and {} values, {len} are visible",
            keys.len,
            values.len
        );
        Some(Self { start, first, len, wide: q.rows() - first >= WIDE_ROWS })
    }
}

/// How many steps are finite before one is not. Values of a row whose step is not finite make the result so, although their codes are
/// numbers.
#[inline(always)]
fn sure(steps: &Scores) -> usize {
    steps.iter().position(|b| !b.is_finite()).unwrap_or(KV_BLOCK)
}

/// The block for many rows of queries, with codes as keys and values, if the CPU has dot products of bytes; with `MERGE` it is merged
/// into `out`. Otherwise it does nothing and returns `false`.
#[inline(always)]
fn many_codes<S: Simd, const MERGE: bool>(
    s: S,
    q: &Queries<'_>,
    seen: &Seen,
    BlockRows { keys, values, .. }: &BlockRows<'_>,
    room: &mut Room,
    out: &mut Partial,
) -> bool {
    if !(S::DOTS && seen.wide) {
        return false;
    }
    let (Some(key_steps), Some(value_steps)) = (keys.steps(), values.steps()) else { return false };
    let block = dots::Block {
        first: seen.first,
        start: seen.start,
        len: seen.len,
        keys,
        values,
        key_steps: &key_steps,
        value_steps: &value_steps,
        sure: sure(&value_steps),
    };
    dots::block::<S, MERGE>(s, q, &block, &mut room.dots, out);
    true
}

/// The block for any rows.
#[inline(always)]
fn any_rows<S: Simd>(
    s: S,
    q: &Queries<'_>,
    &Seen { start, first, len, wide: wide_rows }: &Seen,
    rows: BlockRows<'_>,
    room: &mut Room,
    out: &mut Partial,
) {
    let BlockRows { keys, values, next } = rows;
    let Room { scores, codes, rows: wide, dots } = room;
    let scores = scores.as_chunks_mut::<KV_BLOCK>().0;
    assert!(q.rows() <= scores.len(), "attention: {} queries exceed the capacity of {}", q.rows(), scores.len());
    let scores = &mut scores[..q.rows()];

    let (key_steps, value_steps) = (keys.steps(), values.steps());
    // With many rows to a block, its keys and values were in a near cache one tile ago.
    let next = next.filter(|_| !wide_rows);
    let own_values = if wide_rows { &[][..] } else { values.bytes() };
    let next_keys = next.map_or(&[][..], |(keys, _)| keys.bytes());
    let sure = value_steps.as_ref().map_or(KV_BLOCK, sure);
    let codes_of_values = values;
    let (keys, values) = if wide_rows {
        let stride = Room::stride_of(q.head_dim);
        let half = wide.len() / 2;
        let (k, v) = wide.split_at_mut(half);
        let floats = matches!(keys.data, KvData::F16(_) | KvData::Bf16(_));
        (if floats { widen(s, keys, len, k, stride) } else { keys }, widen(s, values, len, v, stride))
    } else {
        (keys, values)
    };

    all_scores(s, q, first, start, keys, own_values, codes, scores);
    let stride = Partial::stride_of(q.head_dim);
    if let Some((keys, values)) = next {
        prefetch(keys.step_bytes());
        prefetch(values.step_bytes());
    }
    for row in first..q.rows() {
        if let Some(steps) = &key_steps {
            multiply(s, &mut scores[row], steps);
        }
        let visible = q.visible(row, start);
        let (max, sum) = exponentials(s, &mut scores[row], visible);
        let end = &mut out.values[(row + 1) * stride - LANES..];
        (end[0], end[1]) = (max, sum);
        if let Some(steps) = &value_steps {
            multiply(s, &mut scores[row], steps);
            let scale = whole_weights(s, &mut scores[row]);
            end[SCALE] = if visible > sure { f32::NAN } else { scale };
        }
    }
    if S::DOTS && value_steps.is_some() && !wide_rows {
        let mut scale = [0.0; LANES];
        for (row, scale) in (first..q.rows()).zip(&mut scale) {
            *scale = std::mem::take(&mut out.values[(row + 1) * stride - LANES + SCALE]);
        }
        dots::weigh_few(s, [first, len], &codes_of_values, next_keys, scores, &scale, dots, out);
        return;
    }
    let mut from = 0;
    if let Some(value) = first_row(&values) {
        weigh(s, q, first, start, 0..1, value, &[], scores, out);
        from = 1;
    }
    typed!(values, |values| weigh(s, q, first, start, from..KV_BLOCK, values, next_keys, scores, out));
    if value_steps.is_some() {
        for row in out.values.chunks_exact_mut(stride).take(q.rows()).skip(first) {
            let (sums, end) = row.split_at_mut(stride - LANES);
            let scale = s.splat(std::mem::take(&mut end[SCALE]));
            for sum in sums.as_chunks_mut().0 {
                s.store(s.mul(s.load(sum), scale), sum);
            }
        }
    }
}

/// Where the factor of a row's weights stands behind its sums until they are complete.
const SCALE: usize = 2;

/// The first `len` rows as f32, codes without their steps.
#[inline(always)]
fn widen<'a, S: Simd>(s: S, rows: KvRows<'a>, len: usize, out: &'a mut [f32], stride: usize) -> KvRows<'a> {
    if matches!(rows.data, KvData::F32(_)) {
        return rows;
    }
    let (vectors, _) = out.as_chunks_mut();
    typed!(rows, |rows| widen_rows(s, rows, len, vectors, stride / LANES));
    if let Some(first) = first_row(&rows) {
        widen_rows(s, first, len.min(1), vectors, stride / LANES);
    }
    KvRows { data: KvData::F32(out), len, stride, ..rows }
}

#[inline(always)]
fn widen_rows<S: Simd, R: Rows>(s: S, rows: R, len: usize, out: &mut [[f32; LANES]], stride: usize) {
    let vectors = rows.head_dim() / LANES;
    for j in 0..len {
        let row = rows.row(j);
        let (out, tail) = out[j * stride..][..stride].split_at_mut(vectors);
        let whole = R::vectors(row, 0, vectors);
        for (v, out) in out.iter_mut().enumerate() {
            s.store(R::load(s, whole, v), out);
        }
        if let Some(tail) = tail.first_mut() {
            s.store(R::tail(s, row), tail);
        }
    }
}

/// Scores of rows `first..` with the block's keys, before the keys' steps are applied; those of keys that a row does
/// not see are arbitrary. Meanwhile the memory of `values` is prefetched.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one block with its place, its operands and its result")]
fn all_scores<S: Simd>(
    s: S,
    q: &Queries<'_>,
    first: usize,
    start: usize,
    keys: KvRows<'_>,
    values: &[u8],
    codes: &mut QueryCodes,
    scores: &mut [Scores],
) {
    let KvRows { data, stride, head_dim, .. } = keys;
    match data {
        KvData::F32(data) => {
            score(s, q, first, start, OfFloats { q, keys: Floats { data, stride, head_dim } }, values, scores);
        }
        KvData::F16(data) => {
            score(s, q, first, start, OfFloats { q, keys: Floats { data, stride, head_dim } }, values, scores);
        }
        KvData::Bf16(data) => {
            score(s, q, first, start, OfFloats { q, keys: Floats { data, stride, head_dim } }, values, scores);
        }
        KvData::Int8 { codes: data, .. } => {
            let data = data.as_chunks::<LANES>().0;
            let keys = Codes { data, stride: stride / LANES, head_dim };
            score_codes(s, q, first, start, keys, values, codes, scores);
        }
        KvData::Int4 { nibbles, first: row, .. } => {
            let data = nibbles.as_chunks::<{ LANES / 2 }>().0;
            let keys = Codes { data, stride: stride / LANES, head_dim };
            score_codes(s, q, first, start, keys, values, codes, scores);
            if let Some((key, _)) = row {
                codes.score_first::<[u8; LANES / 2]>(first, key, scores);
            }
        }
    }
}

/// [`all_scores`] for keys that are codes of one width.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "as above")]
fn score_codes<S: Simd, C: KeyCode>(
    s: S,
    q: &Queries<'_>,
    first: usize,
    start: usize,
    keys: Codes<'_, C>,
    values: &[u8],
    codes: &mut QueryCodes,
    scores: &mut [Scores],
) {
    codes.fill::<S, C>(s, q, first);
    score(s, q, first, start, OfCodes { queries: codes, keys }, values, scores);
}

/// `scores[j] *= steps[j]`
#[inline(always)]
fn multiply<S: Simd>(s: S, scores: &mut Scores, steps: &Scores) {
    let (steps, _) = steps.as_chunks::<LANES>();
    for (v, steps) in scores.as_chunks_mut::<LANES>().0.iter_mut().zip(steps) {
        s.store(s.mul(s.load(v), s.load(steps)), v);
    }
}

/// Replaces the first `visible` scores by their exponentials relative to the largest, and the others by 0; returns the
/// largest and the sum.
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

/// Replaces weights by whole numbers up to [`WEIGHT_LEVELS`], in proportion to the largest; returns the factor that restores
/// them.
#[inline(always)]
fn whole_weights<S: Simd>(s: S, weights: &mut Scores) -> f32 {
    let vectors = weights.as_chunks_mut::<LANES>().0;
    let mut v = [s.splat(0.0); KV_BLOCK / LANES];
    for i in 0..v.len() {
        v[i] = s.load(&vectors[i]);
    }
    let largest = s.max_lane(s.max(s.max(v[0], v[1]), s.max(v[2], v[3])));
    let factor = s.splat(WEIGHT_LEVELS / largest);
    for i in 0..v.len() {
        s.store(s.to_f(s.to_i(s.mul(v[i], factor))), &mut vectors[i]);
    }
    largest / WEIGHT_LEVELS
}

/// # Panics
/// If the sum is not of `rows` rows of heads of `head_dim`.
#[inline(always)]
fn check_merge(sum: &Partial, [rows, head_dim]: [usize; 2]) {
    assert!(
        sum.rows == rows && sum.head_dim == head_dim,
        "merge of {} queries of heads of {} with {rows} of {head_dim}",
        sum.rows,
        sum.head_dim
    );
}

#[inline(always)]
pub(super) fn merge<S: Simd>(s: S, sum: &mut Partial, next: &Partial) {
    check_merge(sum, [next.rows, next.head_dim]);
    let stride = Partial::stride_of(sum.head_dim);
    let rows = sum.values.chunks_exact_mut(stride).zip(next.values.chunks_exact(stride)).take(sum.rows);
    for (a, b) in rows {
        let (a, a_end) = a.split_at_mut(stride - LANES);
        let (b, b_end) = b.split_at(stride - LANES);
        if b_end[0] == f32::NEG_INFINITY && b_end[1] == 0.0 {
            // No key is visible; the difference of two such maxima would be NaN.
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
