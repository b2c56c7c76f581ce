//! Blocks of codes on CPUs that multiply and add bytes in one instruction.
//!
//! With many queries a lane is a query: the sixteen queries of a vector meet one key at a time, so scores need no sums
//! across lanes, and maxima, exponentials and weights are computed for sixteen queries at once. Weights are whole numbers
//! of up to eleven bits ([`super::WEIGHT_LEVELS`]), which are two digits of bytes; four of consecutive positions meet the
//! values of these positions, sixteen elements at a time. All sums are exact, so the results are those of the other ways.

#![expect(clippy::needless_range_loop, reason = "small arrays are registers, all indexed by the same constants")]

use std::ops::Range;

use super::data::{prefetch, quantize_row, share};
use super::score::Scores;
use super::{KV_BLOCK, KvData, KvRows, Partial, Queries, WEIGHT_LEVELS};
use crate::AlignedBuf;
use crate::ops::exp::exp;
use crate::ops::lanes::{LANES, Simd};

/// Four bytes in each lane.
type Fours = [i32; LANES];

/// Positions that meet at once.
const QUAD: usize = 4;
/// Fours of positions in a block.
const QUADS: usize = KV_BLOCK / QUAD;
/// Keys that meet the queries together.
const KEYS: usize = 8;
/// The offset that makes the codes of keys unsigned.
const BIAS: i32 = 128;

/// Working memory for one block.
#[derive(Clone, Debug)]
pub(super) struct DotRoom {
    /// Codes of queries, `[vectors of rows, width / 4]`; lane `l` has those of query `l`.
    queries: AlignedBuf<Fours>,
    rows: Vec<RowVector>,
    /// Whether they are the codes of the current queries.
    filled: bool,
    /// Codes of keys with the bias, `[KV_BLOCK, width / 4]`.
    keys: AlignedBuf<[u8; QUAD]>,
    /// Codes of values, `[QUADS, width / 16]`: in each lane those of four positions.
    values: AlignedBuf<Fours>,
    /// Codes that are stored in fewer bits, `[KV_BLOCK, width]`.
    wide: AlignedBuf<i8>,
    /// Scores, then weights of two vectors of queries.
    scores: Box<[[[f32; LANES]; KV_BLOCK]; 2]>,
    digits: Digits,
    /// Zeros in place of a row that is not visible.
    none: AlignedBuf<i8>,
}

/// Lower and upper bytes of the weights of sixteen queries: four positions in each lane.
type Digits = [[Fours; QUADS]; 2];

/// Sixteen queries.
#[derive(Clone, Copy, Debug, Default)]
struct RowVector {
    /// The excess of their products, from the bias.
    excess: [i32; LANES],
    /// The factor of a product: `scale` times the step.
    factors: [f32; LANES],
}

impl DotRoom {
    /// Room for `rows` queries of up to `head_dim` elements.
    pub(super) fn with_capacity(rows: usize, head_dim: usize) -> Self {
        let (row_vectors, width) = (rows.div_ceil(LANES), head_dim.next_multiple_of(LANES));
        Self {
            queries: AlignedBuf::zeroed(row_vectors * width / QUAD),
            rows: vec![RowVector::default(); row_vectors],
            filled: false,
            keys: AlignedBuf::zeroed(KV_BLOCK * width / QUAD),
            values: AlignedBuf::zeroed(QUADS * width / LANES),
            wide: AlignedBuf::zeroed(KV_BLOCK * width),
            scores: Box::new([[[0.0; LANES]; KV_BLOCK]; 2]),
            digits: [[[0; LANES]; QUADS]; 2],
            none: AlignedBuf::zeroed(width),
        }
    }

    /// Invalidates the codes of queries.
    pub(super) fn forget(&mut self) {
        self.filled = false;
    }

    /// Quantises queries `first..`, unless that was done before. Fewer queries see later blocks, so the first block
    /// decides.
    #[inline(always)]
    fn fill<S: Simd>(&mut self, s: S, q: &Queries<'_>, first: usize, width: usize) {
        if self.filled {
            return;
        }
        self.filled = true;
        for row in first..q.rows() {
            let (vector, lane) = (row / LANES, row % LANES);
            let out = &mut self.queries[vector * width / QUAD..][..width / QUAD];
            let mut sum = 0i32;
            let step = quantize_row(s, q.row(row), 127.0, |g, codes| {
                sum += codes.iter().map(|&c| i32::from(c)).sum::<i32>();
                let fours: &[[u8; QUAD]; LANES / QUAD] = bytemuck::cast_ref(codes);
                for (i, four) in fours.iter().enumerate() {
                    out[g * LANES / QUAD + i][lane] = i32::from_ne_bytes(*four);
                }
            });
            self.rows[vector].excess[lane] = BIAS * sum;
            self.rows[vector].factors[lane] = q.scale * step;
        }
    }

    /// Takes the codes of the first `len` keys.
    #[inline(always)]
    fn take_keys<S: Simd>(&mut self, s: S, rows: &KvRows<'_>, len: usize, width: usize) {
        let (codes, stride) = wide_codes(s, rows, len, width, &mut self.wide);
        let out: &mut [u8] = bytemuck::cast_slice_mut(&mut self.keys);
        for (j, out) in out.chunks_exact_mut(width).take(len).enumerate() {
            for (out, code) in out.iter_mut().zip(&codes[j * stride..][..width]) {
                *out = *code as u8 ^ BIAS as u8;
            }
        }
    }

    /// Takes the codes of the first `len` values. Meanwhile the memory of `ahead` is prefetched.
    #[inline(always)]
    fn take_values<S: Simd>(&mut self, s: S, rows: &KvRows<'_>, len: usize, width: usize, ahead: &[u8]) {
        let (codes, stride) = wide_codes(s, rows, len, width, &mut self.wide);
        for (quad, out) in self.values.chunks_exact_mut(width / LANES).take(len.div_ceil(QUAD)).enumerate() {
            prefetch(share(ahead, QUAD * quad, QUAD * (quad + 1)));
            let mut rows = [&self.none[..width]; QUAD];
            for (i, row) in rows.iter_mut().enumerate().take(len - QUAD * quad) {
                *row = &codes[(QUAD * quad + i) * stride..][..width];
            }
            let rows = rows.map(|row| row.as_chunks::<LANES>().0);
            for (v, out) in out.iter_mut().enumerate() {
                s.interleave(&rows[0][v], &rows[1][v], &rows[2][v], &rows[3][v], out);
            }
        }
    }
}

/// The codes of the first `len` rows in 8 bits, and their stride.
#[inline(always)]
fn wide_codes<'a, S: Simd>(s: S, rows: &KvRows<'a>, len: usize, width: usize, room: &'a mut [i8]) -> (&'a [i8], usize) {
    match rows.data {
        KvData::Int8 { codes, .. } => (codes, rows.stride),
        KvData::Int4 { nibbles, first, .. } => {
            for (j, out) in room.chunks_exact_mut(width).take(len).enumerate() {
                let row = &nibbles[j * rows.stride / 2..][..width / 2];
                for (out, codes) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(row.as_chunks().0) {
                    s.store_i8(s.to_i(s.load_i4(codes)), out);
                }
            }
            if let Some((codes, _)) = first {
                room[..width].copy_from_slice(codes);
            }
            (room, width)
        }
        KvData::F32(_) | KvData::F16(_) | KvData::Bf16(_) => (&[], 0),
    }
}

/// A block of codes.
pub(super) struct Block<'a> {
    /// The first row of queries that sees it.
    pub(super) first: usize,
    /// Position of the first key.
    pub(super) start: usize,
    /// Keys that the last row sees.
    pub(super) len: usize,
    pub(super) keys: &'a KvRows<'a>,
    pub(super) values: &'a KvRows<'a>,
    pub(super) key_steps: &'a Scores,
    pub(super) value_steps: &'a Scores,
    /// Values before the first one whose step is not finite.
    pub(super) sure: usize,
}

/// The contribution of a block to the rows that see it, as `out` or with `MERGE` added to it.
#[inline(always)]
pub(super) fn block<S: Simd, const MERGE: bool>(
    s: S,
    q: &Queries<'_>,
    block: &Block<'_>,
    room: &mut DotRoom,
    out: &mut Partial,
) {
    let &Block { first, start, len, .. } = block;
    let (rows, width) = (q.rows(), q.head_dim.next_multiple_of(LANES));
    let most = room.rows.len() * LANES;
    assert!(rows <= most, "attention: {rows} queries exceed the capacity of {most}");
    room.fill(s, q, first, width);
    room.take_keys(s, block.keys, len, width);
    room.take_values(s, block.values, len, width, &[]);
    let DotRoom { queries, rows: row_vectors, keys, values, scores, digits, .. } = room;
    let queries: &[Fours] = queries;
    let of = |vector: usize| &queries[vector * width / QUAD..][..width / QUAD];
    let end = rows.div_ceil(LANES);
    let stride = Partial::stride_of(q.head_dim);
    let mut vector = first / LANES;
    while vector < end {
        let many = (end - vector).min(2);
        let [a, b] = &mut **scores;
        if many == 2 {
            let both = [&row_vectors[vector], &row_vectors[vector + 1]];
            scores_of(s, [of(vector), of(vector + 1)], both, keys, block.key_steps, len, [a, b]);
        } else {
            scores_of(s, [of(vector)], [&row_vectors[vector]], keys, block.key_steps, len, [a]);
        }
        for i in 0..many {
            let from = (vector + i) * LANES;
            let lanes = first.saturating_sub(from)..(rows - from).min(LANES);
            let scores = &mut scores[i];
            for lane in lanes.clone() {
                for scores in &mut scores[q.visible(from + lane, start)..] {
                    scores[lane] = f32::NEG_INFINITY;
                }
            }
            let mut weights = weights(s, scores, block.value_steps, digits);
            if block.sure < len {
                for lane in lanes.clone() {
                    if q.visible(from + lane, start) > block.sure {
                        weights.scale[lane] = f32::NAN;
                    }
                }
            }
            let end_of = |lane: usize| (from + lane + 1) * stride - LANES;
            if MERGE {
                let (mut max, mut sum) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
                for lane in lanes.clone() {
                    let end = &out.values[end_of(lane)..];
                    (max[lane], sum[lane]) = (end[0], end[1]);
                }
                merge(s, max, sum, &mut weights);
            }
            for lane in lanes.clone() {
                let at = end_of(lane);
                (out.values[at], out.values[at + 1]) = (weights.max[lane], weights.sum[lane]);
            }
            weigh::<S, MERGE>(s, values, [width / LANES, len.div_ceil(QUAD)], digits, from, lanes, &weights, out);
        }
        vector += many;
    }
}

/// Scores of `N` vectors of queries with the first `len` keys.
#[inline(always)]
fn scores_of<S: Simd, const N: usize>(
    s: S,
    queries: [&[Fours]; N],
    rows: [&RowVector; N],
    keys: &[[u8; QUAD]],
    steps: &Scores,
    len: usize,
    out: [&mut [[f32; LANES]; KV_BLOCK]; N],
) {
    let width = queries[0].len();
    let mut q = queries;
    for q in &mut q {
        // The same length for all, so that the compiler can drop the bounds checks.
        *q = &q[..width];
    }
    for tile in 0..len.div_ceil(KEYS) {
        let mut k = [&[][..]; KEYS];
        for j in 0..KEYS {
            k[j] = &keys[(tile * KEYS + j) * width..][..width];
        }
        let mut acc = [[s.splat_i(0); KEYS]; N];
        for c in 0..width {
            let mut x = [s.splat_i(0); N];
            for i in 0..N {
                x[i] = s.load_i(&q[i][c]);
            }
            for j in 0..KEYS {
                let key = s.splat_i(i32::from_ne_bytes(k[j][c]));
                for i in 0..N {
                    acc[i][j] = s.dot4(acc[i][j], key, x[i]);
                }
            }
        }
        for i in 0..N {
            let (excess, factors) = (s.load_i(&rows[i].excess), s.load(&rows[i].factors));
            for j in 0..KEYS {
                let at = tile * KEYS + j;
                let score = s.mul(s.to_f(s.sub_i(acc[i][j], excess)), factors);
                s.store(s.mul(score, s.splat(steps[at])), &mut out[i][at]);
            }
        }
    }
}

/// Facts about the weights of sixteen queries, and how their results are merged with those of earlier blocks.
struct Weights {
    /// The largest scores.
    max: [f32; LANES],
    /// The sums of the exponentials.
    sum: [f32; LANES],
    /// The factors of the numbers.
    scale: [f32; LANES],
    /// The factors of the earlier results.
    earlier: [f32; LANES],
    /// The factors of the new ones.
    new: [f32; LANES],
}

/// The digits of the weights of sixteen queries, from their scores, which are overwritten.
#[inline(always)]
fn weights<S: Simd>(s: S, scores: &mut [[f32; LANES]; KV_BLOCK], steps: &Scores, digits: &mut Digits) -> Weights {
    let mut most = [s.load(&scores[0]); 4];
    for j in 1..KV_BLOCK {
        most[j % 4] = s.max(most[j % 4], s.load(&scores[j]));
    }
    let max = s.max(s.max(most[0], most[1]), s.max(most[2], most[3]));
    // The sum of a row has sixteen lanes, too: positions 16 apart are added first, then neighbours over the tree.
    let mut sums = [s.splat(0.0); LANES];
    let mut largest = [s.splat(0.0); KV_BLOCK / LANES];
    for l in 0..LANES {
        let mut p = [s.splat(0.0); KV_BLOCK / LANES];
        for i in 0..KV_BLOCK / LANES {
            let j = i * LANES + l;
            p[i] = exp(s, s.sub(s.load(&scores[j]), max));
            let weight = s.mul(p[i], s.splat(steps[j]));
            largest[i] = s.max(weight, largest[i]);
            s.store(weight, &mut scores[j]);
        }
        sums[l] = s.add(s.add(p[0], p[1]), s.add(p[2], p[3]));
    }
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            sums[l] = s.add(sums[l], sums[l + half]);
        }
    }
    let largest = s.max(s.max(largest[0], largest[1]), s.max(largest[2], largest[3]));
    let factor = s.div(s.splat(WEIGHT_LEVELS), largest);
    let [low, high] = digits;
    for (quad, (low, high)) in low.iter_mut().zip(high).enumerate() {
        let mut n = [s.splat_i(0); QUAD];
        for i in 0..QUAD {
            n[i] = s.to_i(s.mul(s.load(&scores[QUAD * quad + i]), factor));
        }
        s.store_digits(n, low, high);
    }
    let none = [0.0; LANES];
    let mut out = Weights { max: none, sum: none, scale: none, earlier: none, new: none };
    s.store(max, &mut out.max);
    s.store(sums[0], &mut out.sum);
    s.store(s.div(largest, s.splat(WEIGHT_LEVELS)), &mut out.scale);
    out
}

/// Merges the maxima and sums of earlier blocks into those of this one, like [`super::Ops::merge_partial`].
#[inline(always)]
fn merge<S: Simd>(s: S, max: [f32; LANES], sum: [f32; LANES], weights: &mut Weights) {
    let (a, b) = (s.load(&max), s.load(&weights.max));
    let max = s.max(a, b);
    let (earlier, new) = (exp(s, s.sub(a, max)), exp(s, s.sub(b, max)));
    let sum = s.fma(s.load(&weights.sum), new, s.mul(s.load(&sum), earlier));
    s.store(max, &mut weights.max);
    s.store(sum, &mut weights.sum);
    s.store(earlier, &mut weights.earlier);
    s.store(new, &mut weights.new);
}

/// The values of a block weighted with the whole numbers of a few rows, from `first` on; `len` values are visible.
/// Meanwhile the memory of `ahead` is prefetched.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one block with its place, its operands and its result")]
pub(super) fn weigh_few<S: Simd>(
    s: S,
    [first, len]: [usize; 2],
    values: &KvRows<'_>,
    ahead: &[u8],
    weights: &[Scores],
    scale: &[f32; LANES],
    room: &mut DotRoom,
    out: &mut Partial,
) {
    let width = out.head_dim.next_multiple_of(LANES);
    room.take_values(s, values, len, width, ahead);
    let [low, high] = &mut room.digits;
    let rows = weights.len() - first;
    for (lane, weights) in weights[first..].iter().enumerate() {
        // Where the unit in the last place of an f32 is 1, its lowest bits are the number.
        let bits = weights.map(|w| (w + 12_582_912.0).to_bits());
        let digits = [bits.map(|b| b as u8), bits.map(|b| (b >> 8) as u8)];
        let [lower, upper] = [digits[0].as_chunks::<QUAD>().0, digits[1].as_chunks::<QUAD>().0];
        for quad in 0..QUADS {
            low[quad][lane] = i32::from_ne_bytes(lower[quad]);
            high[quad][lane] = i32::from_ne_bytes(upper[quad]);
        }
    }
    let none = [0.0; LANES];
    let weights = Weights { max: none, sum: none, scale: *scale, earlier: none, new: none };
    let shape = [width / LANES, len.div_ceil(QUAD)];
    weigh::<S, false>(s, &room.values, shape, &room.digits, first, 0..rows, &weights, out);
}

/// The values weighted with the digits of lanes `lanes`, as rows `from + lane` of `out`, or with `MERGE` added to them. `vectors`
/// of sixteen elements and `quads` of positions are values.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "as above")]
fn weigh<S: Simd, const MERGE: bool>(
    s: S,
    values: &[Fours],
    [vectors, quads]: [usize; 2],
    digits: &Digits,
    from: usize,
    lanes: Range<usize>,
    weights: &Weights,
    out: &mut Partial,
) {
    let stride = Partial::stride_of(out.head_dim);
    let values = &values[..quads * vectors];
    let mut lane = lanes.start;
    macro_rules! rows {
        ($rows:literal) => {
            while lanes.end - lane >= $rows {
                let out = &mut out.values[(from + lane) * stride..][..$rows * stride];
                let mut v = 0;
                while v + 4 <= vectors {
                    weigh_vectors::<S, $rows, 4, MERGE>(s, values, vectors, digits, lane, weights, v, out);
                    v += 4;
                }
                while v < vectors {
                    weigh_vectors::<S, $rows, 1, MERGE>(s, values, vectors, digits, lane, weights, v, out);
                    v += 1;
                }
                lane += $rows;
            }
        };
    }
    rows!(2);
    rows!(1);
}

/// [`weigh`] for `R` lanes from `lane` on and the `D` vectors from vector `v` on, with the sums in registers.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "as above, and the place in the rows")]
fn weigh_vectors<S: Simd, const R: usize, const D: usize, const MERGE: bool>(
    s: S,
    values: &[Fours],
    vectors: usize,
    [low, high]: &Digits,
    lane: usize,
    weights: &Weights,
    v: usize,
    out: &mut [f32],
) {
    let mut lower = [[s.splat_i(0); D]; R];
    let mut upper = [[s.splat_i(0); D]; R];
    for (values, (low, high)) in values.chunks_exact(vectors).zip(low.iter().zip(high)) {
        let values = &values[v..][..D];
        let mut x = [s.splat_i(0); D];
        for d in 0..D {
            x[d] = s.load_i(&values[d]);
        }
        for r in 0..R {
            let (low, high) = (s.splat_i(low[(lane + r) % LANES]), s.splat_i(high[(lane + r) % LANES]));
            for d in 0..D {
                lower[r][d] = s.dot4(lower[r][d], low, x[d]);
                upper[r][d] = s.dot4(upper[r][d], high, x[d]);
            }
        }
    }
    let stride = out.len() / R;
    for r in 0..R {
        let at = (lane + r) % LANES;
        let scale = s.splat(weights.scale[at]);
        let (earlier, new) = (s.splat(weights.earlier[at]), s.splat(weights.new[at]));
        let out: &mut [[f32; LANES]] = out[r * stride + v * LANES..][..D * LANES].as_chunks_mut().0;
        for d in 0..D {
            // Below 2^24, so exact.
            let sum = s.fma(s.to_f(upper[r][d]), s.splat(256.0), s.to_f(lower[r][d]));
            let mut sum = s.mul(sum, scale);
            if MERGE {
                sum = s.fma(sum, new, s.mul(s.load(&out[d]), earlier));
            }
            s.store(sum, &mut out[d]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::ops::lanes::Portable;
    use crate::ops::{AttendScratch, Ops};

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed).wrapping_mul(2_654_435_769) >> 7) % 2001).map(|x| x as f32 / 1e3 - 1.0).collect()
    }

    /// Codes of 8 or 4 bits, and their steps.
    fn coded(ops: Ops, x: &[f32], d: usize, bits: usize) -> (Vec<u8>, Vec<f32>) {
        let width = d.next_multiple_of(LANES) * bits / 8;
        let mut codes = vec![0u8; x.len() / d * width];
        let steps = x.chunks(d).zip(codes.chunks_mut(width)).map(|(x, codes)| match bits {
            8 => ops.quantize_kv8(x, bytemuck::cast_slice_mut(codes)),
            _ => ops.quantize_kv4(x, codes),
        });
        let steps = steps.collect();
        (codes, steps)
    }

    fn rows<'a>((codes, steps): &'a (Vec<u8>, Vec<f32>), d: usize, bits: usize) -> KvRows<'a> {
        let data = match bits {
            8 => KvData::Int8 { codes: bytemuck::cast_slice(codes), steps },
            _ => KvData::Int4 { nibbles: codes, steps, first: None },
        };
        KvRows::new(data, steps.len(), d, d.next_multiple_of(LANES))
    }

    /// The portable form, which no CPU takes, against floats whose lanes are elements.
    #[test]
    fn lanes_of_queries_give_what_lanes_of_elements_give() {
        let ops = Ops::for_isa(Isa::Scalar).unwrap();
        for (d, group, tokens, position, bits) in
            [(64, 4, 8, 0, 8), (40, 3, 7, 60, 8), (16, 1, 33, 64, 4), (144, 5, 4, 130, 8), (80, 2, 9, 120, 4)]
        {
            let len = position + tokens;
            let [keys, values] = [1, 7].map(|seed| coded(ops, &numbers(len * d, seed), d, bits));
            let [keys, values] = [&keys, &values].map(|coded| rows(coded, d, bits));
            let data = numbers(tokens * group * d, 3);
            let token_stride = group * d;
            let q = Queries { data: &data, tokens, token_stride, group, head_dim: d, position, scale: 2.0 };
            let mut scratch = AttendScratch::new(q.rows(), d);
            let mut room = DotRoom::with_capacity(q.rows(), d);
            let mut all = [0; 4].map(|_| Partial::with_capacity(q.rows(), d));
            all.iter_mut().for_each(|p| p.reset(q.rows(), d));
            let [got, want, got_sum, want_sum] = &mut all;
            for number in 0..q.blocks() {
                let start = number * KV_BLOCK;
                let (keys, values) = (keys.block(number), values.block(number));
                ops.attend_block(&q, number, keys, values, &mut scratch, want);
                ops.merge_partial(want_sum, want);
                let block = Block {
                    first: start.saturating_sub(position) * group,
                    start,
                    len: q.visible(q.rows() - 1, start),
                    keys: &keys,
                    values: &values,
                    key_steps: &keys.steps().unwrap(),
                    value_steps: &values.steps().unwrap(),
                    sure: KV_BLOCK,
                };
                got.reset(q.rows(), d);
                super::block::<_, false>(Portable, &q, &block, &mut room, got);
                super::block::<_, true>(Portable, &q, &block, &mut room, got_sum);
                let at = format!("block {number} of {d}");
                assert_eq!(got.values[..], want.values[..], "{at}");
                assert_eq!(got_sum.values[..], want_sum.values[..], "merged, {at}");
            }
        }
    }
}
