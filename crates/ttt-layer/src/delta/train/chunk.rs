//! A chunk of tokens in one value head, for the backward pass: products of small matrices instead of passes over the
//! state.
//!
//! Of `r` tokens with queries, keys and values `q`, `k`, `v`, rates `b` and the state `A` before the first, let
//! `G[t, i]` be the product of the decays of the tokens after `i` up to `t` (0 for `i > t`), and `g[t]` that of all
//! decays up to `t`. With the errors `e`, each a part of what its token writes, the recurrence is
//!
//! ```text
//! A_t = g_t A + sum_{i <= t} G[t, i] k_i^T e_i
//! e_t = b_t x_t,  x_t = v_t - g_t k_t A - sum_{i < t} G[t, i] (k_t . k_i) e_i
//! o_t = g_t q_t A + sum_{i <= t} G[t, i] (q_t . k_i) e_i
//! ```
//!
//! so the errors solve a triangular system, and everything else is products. Gradients, with `do` of the outputs, `D`
//! of the state after the last token, `P[t, i] = G[t, i] (q_t . k_i)` and `N[t, i] = G[t, i] (k_t . k_i)`:
//!
//! ```text
//! de = P^T do + G[last]^T (k D);  de_t <- de_t - sum_{s > t} N[s, t] dv_s;  dv_t = b_t de_t;  db_t = de_t . x_t
//! dN = -G (dv e^T), i < t;        dP = G (do e^T), i <= t
//! dq = dP k + g do A^T;           dk = dN k - g dv A^T + dN^T k + dP^T q + G[last] e D^T
//! dA = g_last D - (g k)^T dv + (g q)^T do
//! ```
//!
//! The logarithm of the decay of token `j` scales every pair of a later reader `t >= j` and an earlier writer `i < j`.
//! The sum of what such pairs give is kept from token to token: token `j` adds the pairs that it reads, `q . dq` and
//! the part of `k . dk` from the products in which it reads, and takes away those that it writes, the other part.
//!
//! Paper: arXiv:2406.06484, section 3.2, and arXiv:2412.06464, section 3.3 (the WY form).

use ternary_kernels::Ops;
use ternary_kernels::ops::{GemmScratch, Strided};

/// Tokens of a chunk: products over chunks cost as much as those with the state where chunks are as long as heads are
/// wide, and half as much here, for heads of 64.
pub(super) const CHUNK: usize = 32;

/// Tokens of a chunk in one value head.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    /// Keys of all tokens, then queries, `[2 r, d]`.
    pub(super) kq: &'a [f32],
    /// Values, `[r, d]`.
    pub(super) v: &'a [f32],
    /// Decays and rates, `[r]`.
    pub(super) decays: &'a [f32],
    pub(super) rates: &'a [f32],
    /// The state before the first token, `[d, d]`; zeros if there is none.
    pub(super) first: Option<&'a [f32]>,
}

/// Where the gradients of a chunk go.
pub(super) struct ChunkGradients<'a> {
    /// Of keys, then queries, `[2 r, d]`; added to.
    pub(super) kq: &'a mut [f32],
    /// Of values, `[r, d]`.
    pub(super) v: &'a mut [f32],
    /// Of the logarithms of the decays, `[r]`.
    pub(super) decays: &'a mut [f32],
    /// Of the rates, `[r]`.
    pub(super) rates: &'a mut [f32],
}

/// Buffers of a chunk in one value head.
#[derive(Clone, Debug, Default)]
pub(super) struct ChunkBuffers {
    /// `G`, `[r, r]`, and `g`, `[r]`.
    between: Vec<f32>,
    before: Vec<f32>,
    /// `-N` below its diagonal, then `P`, `[2 r, r]`.
    pairs: Vec<f32>,
    /// `-N` transposed, `[r, r]`.
    turned: Vec<f32>,
    /// `x` and `e`, `[r, d]` each.
    x: Vec<f32>,
    e: Vec<f32>,
    /// The values that keys find in the first state; then in the gradient of the last one, `[r, d]`.
    found: Vec<f32>,
    /// Gradient of `e`, `[r, d]`.
    d_e: Vec<f32>,
    /// `dv`, then `do`, `[2 r, d]`.
    d_both: Vec<f32>,
    /// `dN`, then `dP`, `[2 r, r]`.
    d_pairs: Vec<f32>,
    /// Of the products in which a token reads: gradients of keys, then queries, `[2 r, d]`.
    d_read: Vec<f32>,
    /// Of the products in which a token is read: gradient of keys, `[r, d]`.
    d_written: Vec<f32>,
    gemm: GemmScratch,
}

/// The buffer with `len` zeros.
fn zeroed(v: &mut Vec<f32>, len: usize) -> &mut [f32] {
    v.clear();
    v.resize(len, 0.0);
    v
}

impl ChunkBuffers {
    /// Room for the gradients of the outputs of `r` tokens, `[r, d]`, for [`ChunkBuffers::backward`] to read.
    pub(super) fn d_outputs(&mut self, r: usize, d: usize) -> &mut [f32] {
        self.d_both.resize(2 * r * d, 0.0);
        &mut self.d_both[r * d..]
    }

    /// Decays between tokens, pairs, and the errors of all tokens.
    pub(super) fn errors(&mut self, ops: Ops, c: &Chunk<'_>) {
        let r = c.rates.len();
        let d = c.v.len() / r;
        let between = zeroed(&mut self.between, r * r);
        self.before.clear();
        let mut before = 1.0;
        for (t, decay) in c.decays.iter().enumerate() {
            before *= decay;
            self.before.push(before);
            let (above, row) = between.split_at_mut(t * r);
            if let Some(above) = above.rchunks_exact(r).next() {
                row[..t].iter_mut().zip(above).for_each(|(g, above)| *g = decay * above);
            }
            row[t] = 1.0;
        }
        self.pairs.resize(2 * r * r, 0.0);
        let (k, both) = (Strided::rows(&c.kq[..r * d], d), Strided::rows(c.kq, d));
        ops.gemm(both, k.t(), [2 * r, r, d], &mut self.pairs, &mut self.gemm);
        let (of_keys, of_queries) = self.pairs.split_at_mut(r * r);
        self.turned.resize(r * r, 0.0);
        for t in 0..r {
            let (row, between) = (&mut of_keys[t * r..(t + 1) * r], &self.between[t * r..(t + 1) * r]);
            row[..t].iter_mut().zip(between).for_each(|(n, g)| *n *= -g);
            row[t..].fill(0.0);
            for (i, n) in row[..t].iter().enumerate() {
                self.turned[i * r + t] = *n;
            }
            let row = &mut of_queries[t * r..(t + 1) * r];
            row.iter_mut().zip(between).for_each(|(p, g)| *p *= g);
        }

        self.x.clear();
        self.x.extend_from_slice(c.v);
        if let Some(first) = c.first {
            let found = zeroed(&mut self.found, r * d);
            ops.add_product(&c.kq[..r * d], first, d, found);
            for ((found, x), g) in found.chunks_exact(d).zip(self.x.chunks_exact_mut(d)).zip(&self.before) {
                ops.axpy(-g, found, x);
            }
        }
        self.e.clear();
        for (t, (x, rate)) in self.x.chunks_exact_mut(d).zip(c.rates).enumerate() {
            ops.add_product(&of_keys[t * r..t * r + t], &self.e, t, x);
            self.e.extend(x.iter().map(|x| rate * x));
        }
    }

    /// The gradient of the chunk for those of its outputs, in [`ChunkBuffers::d_outputs`], and of the state after it,
    /// `d_state`, which becomes that of the state before it; of no use if there is none.
    pub(super) fn backward(&mut self, ops: Ops, c: &Chunk<'_>, d_state: &mut [f32], to: ChunkGradients<'_>) {
        self.errors(ops, c);
        let r = c.rates.len();
        let d = c.v.len() / r;
        let keys = &c.kq[..r * d];
        let last = &self.between[(r - 1) * r..];
        let (d_v, d_out) = self.d_both.split_at_mut(r * d);

        // Errors are read by later queries and by what follows the chunk.
        self.d_e.resize(r * d, 0.0);
        let of_queries = Strided::rows(&self.pairs[r * r..], r);
        ops.gemm(of_queries.t(), Strided::rows(d_out, d), [r, d, r], &mut self.d_e, &mut self.gemm);
        let found = zeroed(&mut self.found, r * d);
        ops.add_product(keys, d_state, d, found);
        for ((found, d_e), g) in found.chunks_exact(d).zip(self.d_e.chunks_exact_mut(d)).zip(last) {
            ops.axpy(*g, found, d_e);
        }
        for t in (0..r).rev() {
            let (d_e, later) = (&mut self.d_e[t * d..(t + 1) * d], &self.turned[t * r + t + 1..(t + 1) * r]);
            ops.add_product(later, &d_v[(t + 1) * d..], r - t - 1, d_e);
            to.rates[t] = ops.dot(d_e, &self.x[t * d..(t + 1) * d]);
            let d_v = &mut d_v[t * d..(t + 1) * d];
            d_v.iter_mut().zip(&*d_e).for_each(|(d_v, d_e)| *d_v = c.rates[t] * d_e);
        }
        to.v.copy_from_slice(d_v);

        self.d_pairs.resize(2 * r * r, 0.0);
        let (both, e) = (Strided::rows(&self.d_both, d), Strided::rows(&self.e, d));
        ops.gemm(both, e.t(), [2 * r, r, d], &mut self.d_pairs, &mut self.gemm);
        let (of_keys, of_queries) = self.d_pairs.split_at_mut(r * r);
        for t in 0..r {
            let between = &self.between[t * r..(t + 1) * r];
            let row = &mut of_keys[t * r..(t + 1) * r];
            row[..t].iter_mut().zip(between).for_each(|(n, g)| *n *= -g);
            row[t..].fill(0.0);
            of_queries[t * r..(t + 1) * r].iter_mut().zip(between).for_each(|(p, g)| *p *= g);
        }
        let read = zeroed(&mut self.d_read, 2 * r * d);
        ops.add_product(&self.d_pairs, keys, r, read);
        self.d_written.resize(r * d, 0.0);
        let (pairs, kq) = (Strided::rows(&self.d_pairs, r).t(), Strided::rows(c.kq, d));
        ops.gemm(pairs, kq, [r, d, 2 * r], &mut self.d_written, &mut self.gemm);
        for (e, g) in self.e.chunks_exact_mut(d).zip(last) {
            ops.scale(*g, e);
        }
        let of_state = Strided::rows(d_state, d);
        ops.gemm_add(Strided::rows(&self.e, d), of_state.t(), [r, d, d], &mut self.d_written, &mut self.gemm);

        // Pairs of what follows the chunk and what is written before its end.
        let mut across = f64::from(ops.dot(&self.found, &self.e));
        if let Some(first) = c.first {
            let (d_v, d_out) = self.d_both.split_at_mut(r * d);
            for (t, g) in self.before.iter().enumerate() {
                ops.scale(-g, &mut d_v[t * d..(t + 1) * d]);
                ops.scale(*g, &mut d_out[t * d..(t + 1) * d]);
            }
            let (both, state) = (Strided::rows(&self.d_both, d), Strided::rows(first, d));
            ops.gemm_add(both, state.t(), [2 * r, d, d], read, &mut self.gemm);
            let whole = self.before[r - 1];
            across += f64::from(whole) * f64::from(ops.dot(d_state, first));
            ops.scale(whole, d_state);
            ops.gemm_add(kq.t(), both, [d, d, 2 * r], d_state, &mut self.gemm);
        }
        for t in (0..r).rev() {
            let (k, q) = (t * d..(t + 1) * d, (r + t) * d..(r + t + 1) * d);
            let reads = ops.dot(&c.kq[q.clone()], &read[q]) + ops.dot(&keys[k.clone()], &read[k.clone()]);
            across += f64::from(reads) - f64::from(ops.dot(&keys[k.clone()], &self.d_written[k]));
            to.decays[t] = across as f32;
        }
        ops.add_assign(to.kq, read);
        ops.add_assign(&mut to.kq[..r * d], &self.d_written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from -1 to 1.
    fn numbers(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Outputs and last state from the errors of a chunk are those of the recurrence token by token.
    ///
    /// An element of either is a sum of at most `d + r` products in one way and of as many, in `r` steps, in the other;
    /// what is rounded off in a step is carried along by factors of at most 1, since `I - b k^T k` with a unit key and a
    /// rate up to 1 lengthens nothing. So each of the `r` steps adds at most `2 (d + r) u` times the largest sum of
    /// absolute terms, `u = 2^-24`; the sums here are at most the length of a state's column, of the errors and values.
    #[test]
    fn errors_are_those_of_the_recurrence() {
        let ops = Ops::selected().unwrap();
        for (r, d, has_first) in [(1, 4, true), (CHUNK, 64, true), (CHUNK, 20, false), (19, 36, true)] {
            let unit = |row: &[f32]| {
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter().map(|x| x / length).collect::<Vec<f32>>()
            };
            let kq: Vec<f32> = numbers(1, 2 * r * d).chunks(d).flat_map(unit).collect();
            let (v, first) = (numbers(2, r * d), numbers(3, d * d));
            let decays: Vec<f32> = numbers(4, r).iter().map(|x| 0.9 + 0.1 * x).collect();
            let rates: Vec<f32> = numbers(5, r).iter().map(|x| 0.5 + 0.5 * x).collect();
            let first = has_first.then_some(&first[..]);
            let c = Chunk { kq: &kq, v: &v, decays: &decays, rates: &rates, first };
            let mut got = ChunkBuffers::default();
            got.errors(ops, &c);

            let mut a = first.map_or(vec![0.0; d * d], <[f32]>::to_vec);
            let start = a.clone();
            let (mut out, mut largest) = (vec![0.0; d], 0.0f32);
            let (mut off, mut compared) = (0.0f32, 0);
            for t in 0..r {
                let (k, q) = (&kq[t * d..(t + 1) * d], &kq[(r + t) * d..(r + t + 1) * d]);
                let v = &v[t * d..(t + 1) * d];
                let token = ternary_kernels::ops::DeltaToken { k, q, v, decay: decays[t], beta: rates[t] };
                ops.delta_rule(&mut a, token, &mut out);
                let row = &got.pairs[(r + t) * r..(r + t + 1) * r];
                for (j, out) in out.iter().enumerate() {
                    let old: f32 = (0..d).map(|i| got.before[t] * q[i] * start[i * d + j]).sum();
                    let new: f32 = (0..r).map(|i| row[i] * got.e[i * d + j]).sum();
                    off = off.max((old + new - out).abs());
                    let terms = |n: usize, f: &dyn Fn(usize) -> f32| (0..n).map(f).map(f32::abs).sum::<f32>();
                    largest = largest.max(
                        terms(d, &|i| start[i * d + j])
                            + terms(r, &|i| got.e[i * d + j])
                            + terms(r, &|i| got.x[i * d + j]),
                    );
                    compared += 1;
                }
            }
            let last = &got.between[(r - 1) * r..];
            for i in 0..d {
                for j in 0..d {
                    let new: f32 = (0..r).map(|t| last[t] * kq[t * d + i] * got.e[t * d + j]).sum();
                    off = off.max((got.before[r - 1] * start[i * d + j] + new - a[i * d + j]).abs());
                }
            }
            let bound = (r * 2 * (d + r)) as f32 * 0.5f32.powi(24) * largest;
            assert!(compared == r * d && off <= bound, "{r} tokens, heads of {d}: {off} exceeds {bound}");
            assert!(got.e.iter().any(|e| e.abs() > 0.01));
        }
    }
}
