//! Scores of a block: products of queries with keys, four queries with four keys or one with sixteen at a time.

#![expect(clippy::needless_range_loop, reason = "small arrays are registers, all indexed by the same constants")]

use super::rows::{Code, Codes, Rows};
use super::{KV_BLOCK, Queries};
use crate::AlignedBuf;
use crate::ops::attend::data::{prefetch, quantize_row, share};
use crate::ops::lanes::{CHUNK, LANES, Simd, pad};

/// Scores of one query.
pub(super) type Scores = [f32; KV_BLOCK];

/// How to compute scores with keys of one type.
pub(super) trait Score<S: Simd>: Copy {
    /// Some queries, with the values that are the same for all keys.
    type Queries: Copy;
    /// `N` queries from row `row` on, 4 or 1.
    fn queries<const N: usize>(self, s: S, row: usize) -> Self::Queries;
    /// Lane `4 i + j` is the score of query `i` of four with key `keys[j]`.
    fn four(self, s: S, queries: Self::Queries, keys: [usize; 4]) -> S::F;
    /// Lane `j` is the score of the query with key `keys[j]`.
    fn sixteen(self, s: S, queries: Self::Queries, keys: [usize; 16]) -> S::F;
}

/// Scores of rows `first..` with the block's keys; those of keys that a row does not see are arbitrary. Between the
/// keys of the first queries the memory of `values`, which is needed next, is prefetched.
#[inline(always)]
pub(super) fn score<S: Simd, P: Score<S>>(
    s: S,
    q: &Queries<'_>,
    first: usize,
    start: usize,
    products: P,
    values: &[u8],
    scores: &mut [Scores],
) {
    let rows = q.rows();
    let mut lanes = [0.0; LANES];
    let mut row = first;
    // Four queries with four keys at a time, then the remaining queries with sixteen keys. Keys after the last visible
    // one are replaced by it.
    while row + 4 <= rows {
        let len = q.visible(row + 3, start);
        let queries = products.queries::<4>(s, row);
        let mut j = 0;
        while j < len {
            if row == first {
                prefetch(share(values, j, j + 4));
            }
            let last = len - 1;
            s.store(
                products.four(s, queries, [j, (j + 1).min(last), (j + 2).min(last), (j + 3).min(last)]),
                &mut lanes,
            );
            for (scores, lanes) in scores[row..row + 4].iter_mut().zip(lanes.as_chunks::<4>().0) {
                scores[j..j + 4].copy_from_slice(lanes);
            }
            j += 4;
        }
        row += 4;
    }
    while row < rows {
        let len = q.visible(row, start);
        let queries = products.queries::<1>(s, row);
        let mut j = 0;
        while j < len {
            if row == first {
                prefetch(share(values, j, j + 16));
            }
            let mut keys = [len - 1; 16];
            for (i, key) in keys.iter_mut().enumerate().take(len - j) {
                *key = j + i;
            }
            s.store(products.sixteen(s, queries, keys), &mut lanes);
            scores[row][j..j + 16].copy_from_slice(&lanes);
            j += 16;
        }
        row += 1;
    }
}

/// Float keys: `(q . k) scale`.
#[derive(Clone, Copy)]
pub(super) struct OfFloats<'a, R> {
    pub(super) q: &'a Queries<'a>,
    pub(super) keys: R,
}

impl<'a, S: Simd, R: Rows> Score<S> for OfFloats<'a, R> {
    type Queries = ([&'a [f32]; 4], S::F);

    #[inline(always)]
    fn queries<const N: usize>(self, s: S, row: usize) -> Self::Queries {
        let mut rows = [&[][..]; 4];
        for i in 0..N {
            rows[i] = self.q.row(row + i);
        }
        (rows, s.splat(self.q.scale))
    }
    #[inline(always)]
    fn four(self, s: S, (q, scale): Self::Queries, keys: [usize; 4]) -> S::F {
        let mut k = [self.keys.row(keys[0]); 4];
        for j in 1..4 {
            k[j] = self.keys.row(keys[j]);
        }
        // Two copies, so that the one without a tail calls nothing, and keeps its sums in registers.
        let sums = match self.keys.head_dim().is_multiple_of(LANES) {
            true => s.sums(products_4x4::<S, R, false>(s, q, self.keys, k)),
            false => s.sums(products_4x4::<S, R, true>(s, q, self.keys, k)),
        };
        s.mul(sums, scale)
    }
    #[inline(always)]
    fn sixteen(self, s: S, (q, scale): Self::Queries, keys: [usize; 16]) -> S::F {
        let mut k = [self.keys.row(keys[0]); 16];
        for j in 1..16 {
            k[j] = self.keys.row(keys[j]);
        }
        let sums = match self.keys.head_dim().is_multiple_of(LANES) {
            true => s.sums(products_1x16::<S, R, false>(s, q[0], self.keys, k)),
            false => s.sums(products_1x16::<S, R, true>(s, q[0], self.keys, k)),
        };
        s.mul(sums, scale)
    }
}

/// The lane sums of four queries with four keys, in this order.
#[inline(always)]
fn products_4x4<S: Simd, R: Rows, const TAIL: bool>(s: S, q: [&[f32]; 4], keys: R, k: [R::Row; 4]) -> [S::F; 16] {
    if S::ACCUMULATORS >= 16 {
        // Split by constants: an index would keep the sums in memory, and the next step would read them from there.
        let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = products::<S, R, 4, 4, TAIL>(s, q, keys, k);
        return [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
    }
    let mut out = [s.splat(0.0); 16];
    for i in [0, 2] {
        for j in [0, 2] {
            let tile = products::<S, R, 2, 2, TAIL>(s, [q[i], q[i + 1]], keys, [k[j], k[j + 1]]);
            out[4 * i + j] = tile[0][0];
            out[4 * i + j + 1] = tile[0][1];
            out[4 * i + j + 4] = tile[1][0];
            out[4 * i + j + 5] = tile[1][1];
        }
    }
    out
}

/// The lane sums of one query with sixteen keys.
#[inline(always)]
fn products_1x16<S: Simd, R: Rows, const TAIL: bool>(s: S, q: &[f32], keys: R, k: [R::Row; 16]) -> [S::F; 16] {
    if S::ACCUMULATORS >= 16 {
        return products::<S, R, 1, 16, TAIL>(s, [q], keys, k)[0];
    }
    let mut out = [s.splat(0.0); 16];
    if S::ACCUMULATORS < 4 {
        for (out, k) in out.as_chunks_mut::<2>().0.iter_mut().zip(k.as_chunks::<2>().0) {
            *out = products::<S, R, 1, 2, TAIL>(s, [q], keys, *k)[0];
        }
        return out;
    }
    for (out, k) in out.as_chunks_mut::<4>().0.iter_mut().zip(k.as_chunks::<4>().0) {
        *out = products::<S, R, 1, 4, TAIL>(s, [q], keys, *k)[0];
    }
    out
}

/// The lane sums of `Q` queries with `K` of the rows in `keys`, all of equal length, which has a `TAIL` if it is not whole vectors.
#[inline(always)]
fn products<S: Simd, R: Rows, const Q: usize, const K: usize, const TAIL: bool>(
    s: S,
    q: [&[f32]; Q],
    keys: R,
    k: [R::Row; K],
) -> [[S::F; K]; Q] {
    let mut acc = [[s.splat(0.0); K]; Q];
    let vectors = keys.head_dim() / LANES;
    let mut q_vectors: [&[[f32; LANES]]; Q] = [&[]; Q];
    for (vs, q) in q_vectors.iter_mut().zip(q) {
        // The same number of vectors for all, so that the compiler can drop the bounds checks.
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
    if TAIL {
        for j in 0..K {
            let k = R::tail(s, k[j]);
            for i in 0..Q {
                acc[i][j] = s.fma(s.load(&pad(&q[i][vectors * LANES..], 0.0)), k, acc[i][j]);
            }
        }
    }
    acc
}

/// Queries in 8 bits, in the order of the keys' codes.
#[derive(Clone, Debug)]
pub(super) struct QueryCodes {
    /// `[rows, stride]`, rows padded with zeros.
    codes: AlignedBuf<i8>,
    rows: Vec<QueryRow>,
    stride: usize,
    /// Whether they are the codes of the current queries.
    filled: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct QueryRow {
    /// The factor of a product with codes: `scale` times the step.
    factor: f32,
    /// Sum of the codes.
    sum: i32,
}

impl QueryCodes {
    /// Room for `rows` queries of up to `head_dim` elements.
    pub(super) fn with_capacity(rows: usize, head_dim: usize) -> Self {
        let codes = AlignedBuf::zeroed(rows * Self::stride_of(head_dim));
        Self { codes, rows: vec![QueryRow::default(); rows], stride: 0, filled: false }
    }

    /// A multiple of the chunks of both widths of keys.
    fn stride_of(head_dim: usize) -> usize {
        head_dim.next_multiple_of(2 * CHUNK)
    }

    /// Invalidates the codes: other queries, or other keys, follow.
    pub(super) fn forget(&mut self) {
        self.filled = false;
    }

    /// Quantises queries `first..` for keys of `C`, unless that was done before. Fewer queries see later blocks, so the
    /// first block decides.
    #[inline(always)]
    pub(super) fn fill<S: Simd, C: KeyCode>(&mut self, s: S, q: &Queries<'_>, first: usize) {
        if self.filled {
            return;
        }
        self.filled = true;
        let stride = Self::stride_of(q.head_dim);
        self.stride = stride;
        for row in first..q.rows() {
            let out = &mut self.codes[row * stride..][..stride];
            // An incomplete group leaves gaps.
            out[q.head_dim / (2 * CHUNK) * (2 * CHUNK)..].fill(0);
            let mut sum = 0i32;
            let step = quantize_row(s, q.row(row), 127.0, |g, codes| {
                sum += codes.iter().map(|&c| i32::from(c)).sum::<i32>();
                C::deal(g, codes, out);
            });
            self.rows[row] = QueryRow { factor: q.scale * step, sum };
        }
    }

    /// Codes of query `row`.
    #[inline(always)]
    fn row(&self, row: usize) -> &[i8] {
        &self.codes[row * self.stride..][..self.stride]
    }

    /// Scores of queries `first..` with one key of 8 bits, `[head_dim]` padded to whole vectors, as first scores, for
    /// any order of the queries' codes.
    #[inline(always)]
    pub(super) fn score_first<C: KeyCode>(&self, first: usize, key: &[i8], scores: &mut [Scores]) {
        for row in first..scores.len() {
            let q = self.row(row);
            let mut sum = 0i32;
            for (g, key) in key.as_chunks::<LANES>().0.iter().enumerate() {
                for (l, &k) in key.iter().enumerate() {
                    sum += i32::from(k) * i32::from(q[C::place(g, l)]);
                }
            }
            scores[row][0] = sum as f32 * self.rows[row].factor;
        }
    }
}

/// Codes of keys for the integer products.
pub(super) trait KeyCode: Code {
    /// Codes of a chunk.
    const CODES: usize;
    /// The place of code `l` of group `g` in a row of queries.
    fn place(g: usize, l: usize) -> usize;
    /// Writes group `g` of sixteen codes of a query to that place.
    #[inline(always)]
    fn deal(g: usize, codes: &[i8; LANES], out: &mut [i8]) {
        for (l, &code) in codes.iter().enumerate() {
            out[Self::place(g, l)] = code;
        }
    }
    /// The offset that [`KeyCode::dot`] adds to each code.
    fn bias<S: Simd>() -> i32;
    /// Adds the products of a chunk of codes with as many of a query.
    fn dot<S: Simd>(s: S, acc: S::I, q: &[i8], key: &[u8; CHUNK]) -> S::I;
}

impl KeyCode for [i8; LANES] {
    const CODES: usize = CHUNK;

    #[inline(always)]
    fn place(g: usize, l: usize) -> usize {
        g * LANES + l
    }
    #[inline(always)]
    fn bias<S: Simd>() -> i32 {
        S::DOT_I8_BIAS
    }
    #[inline(always)]
    fn dot<S: Simd>(s: S, acc: S::I, q: &[i8], key: &[u8; CHUNK]) -> S::I {
        s.dot_i8(acc, q.first_chunk().expect("rows of queries are whole chunks"), key)
    }
}

impl KeyCode for [u8; LANES / 2] {
    const CODES: usize = 2 * CHUNK;

    /// Lower nibbles of a chunk of bytes first: each group of sixteen codes has eight bytes, in the order of
    /// [`super::KvData::Int4`].
    #[inline(always)]
    fn place(g: usize, l: usize) -> usize {
        let byte = 4 * (l % 2) + l / 4;
        g / 8 * (2 * CHUNK) + l / 2 % 2 * CHUNK + g % 8 * 8 + byte
    }
    #[inline(always)]
    fn bias<S: Simd>() -> i32 {
        S::DOT_I4_BIAS
    }
    #[inline(always)]
    fn dot<S: Simd>(s: S, acc: S::I, q: &[i8], key: &[u8; CHUNK]) -> S::I {
        let (halves, _) = q.as_chunks();
        s.dot_i4(acc, [&halves[0], &halves[1]], key)
    }
}

/// Quantised keys: `(q . k) (scale a)`, where `q` is quantised as well and `a` is its step; the caller applies the
/// keys' steps.
#[derive(Clone, Copy)]
pub(super) struct OfCodes<'a, C> {
    pub(super) queries: &'a QueryCodes,
    pub(super) keys: Codes<'a, C>,
}

impl<'a, C: KeyCode> OfCodes<'a, C> {
    /// The lane sums of `Q` queries from row `row` on with `K` keys.
    #[inline(always)]
    fn products<S: Simd, const Q: usize, const K: usize>(self, s: S, row: usize, keys: [usize; K]) -> [[S::I; K]; Q] {
        let mut acc = [[s.splat_i(0); K]; Q];
        let mut q = [&[][..]; Q];
        for i in 0..Q {
            q[i] = self.queries.row(row + i);
        }
        let mut k = [&[][..]; K];
        for j in 0..K {
            k[j] = self.keys.bytes_from(keys[j]);
        }
        for c in 0..self.keys.head_dim.div_ceil(C::CODES) {
            for j in 0..K {
                // Elements after a row are multiplied with zeros; after the last row there may be none.
                let mut rest = [0; CHUNK];
                let bytes = k[j].get(c * CHUNK..).unwrap_or_default();
                let key = match bytes.first_chunk() {
                    Some(key) => key,
                    None => {
                        rest[..bytes.len()].copy_from_slice(bytes);
                        &rest
                    }
                };
                for i in 0..Q {
                    acc[i][j] = C::dot(s, acc[i][j], &q[i][c * C::CODES..(c + 1) * C::CODES], key);
                }
            }
        }
        acc
    }
}

impl<S: Simd, C: KeyCode> Score<S> for OfCodes<'_, C> {
    /// The first row, the correction of the lane sums, and their factor.
    type Queries = (usize, S::I, S::F);

    #[inline(always)]
    fn queries<const N: usize>(self, s: S, row: usize) -> Self::Queries {
        let (mut sums, mut factors) = ([0; LANES], [0.0; LANES]);
        for l in 0..LANES {
            let query = self.queries.rows[row + l * N / LANES];
            (sums[l], factors[l]) = (C::bias::<S>() * query.sum, query.factor);
        }
        (row, s.load_i(&sums), s.load(&factors))
    }
    #[inline(always)]
    fn four(self, s: S, (row, more, factors): Self::Queries, keys: [usize; 4]) -> S::F {
        let mut all = [s.splat_i(0); 16];
        if S::ACCUMULATORS >= 16 {
            let tile = self.products::<S, 4, 4>(s, row, keys);
            for i in 0..16 {
                all[i] = tile[i / 4][i % 4];
            }
        } else {
            for i in [0, 2] {
                for j in [0, 2] {
                    let tile = self.products::<S, 2, 2>(s, row + i, [keys[j], keys[j + 1]]);
                    all[4 * i + j] = tile[0][0];
                    all[4 * i + j + 1] = tile[0][1];
                    all[4 * i + j + 4] = tile[1][0];
                    all[4 * i + j + 5] = tile[1][1];
                }
            }
        }
        s.mul(s.to_f(s.sub_i(s.sums_i(all), more)), factors)
    }
    #[inline(always)]
    fn sixteen(self, s: S, (row, more, factors): Self::Queries, keys: [usize; 16]) -> S::F {
        let mut all = [s.splat_i(0); 16];
        if S::ACCUMULATORS >= 16 {
            all = self.products::<S, 1, 16>(s, row, keys)[0];
        } else {
            for j in [0, 4, 8, 12] {
                let four = self.products::<S, 1, 4>(s, row, [keys[j], keys[j + 1], keys[j + 2], keys[j + 3]])[0];
                all[j..j + 4].copy_from_slice(&four);
            }
        }
        s.mul(s.to_f(s.sub_i(s.sums_i(all), more)), factors)
    }
}
