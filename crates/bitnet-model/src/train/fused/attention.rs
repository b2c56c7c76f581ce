//! Causal attention of one window and its gradient, in blocks of queries.
//!
//! Scores are kept transposed, keys by queries: then maxima, sums and gradients of the softmax run along the lanes. The
//! backward pass computes probabilities again from the logarithms of the sums, so no `[t, t]` matrix outlives its
//! block.

use ternary_kernels::Ops;
use ternary_kernels::ops::{GemmScratch, Strided};

/// Queries of a block.
const BLOCK: usize = 64;

/// Shape of attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) d: usize,
}

impl Heads {
    /// Distance between tokens in a `[t, q | k | v]` buffer.
    pub(super) fn stride(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.d
    }
}

/// Buffers, reused from call to call.
#[derive(Debug, Default)]
pub(super) struct AttentionScratch {
    k: Vec<f32>,
    v: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    /// Queries of a block, times `1 / sqrt(d)`, `[r, d]`.
    q: Vec<f32>,
    /// `q` transposed, `[d, r]`.
    qt: Vec<f32>,
    /// Gradient of the block's output, `[r, d]` and `[d, r]`.
    o: Vec<f32>,
    ot: Vec<f32>,
    /// Scores, then probabilities, `[keys, r]`.
    s: Vec<f32>,
    ds: Vec<f32>,
    column: Vec<f32>,
    sums: Vec<f32>,
    gemm: GemmScratch,
}

fn zeroed(v: &mut Vec<f32>, len: usize) -> &mut [f32] {
    v.clear();
    v.resize(len, 0.0);
    v
}

/// Copies `d` columns from `at` on of every row of `x` to `out`, `[t, d]`.
fn gather(x: &[f32], stride: usize, at: usize, d: usize, out: &mut Vec<f32>) {
    out.clear();
    x.chunks_exact(stride).for_each(|row| out.extend_from_slice(&row[at..at + d]));
}

/// `[r, d]` to `[d, r]`.
fn transpose(x: &[f32], d: usize, out: &mut Vec<f32>) {
    let r = x.len() / d;
    zeroed(out, x.len());
    for (c, row) in x.chunks_exact(d).enumerate() {
        for (i, v) in row.iter().enumerate() {
            out[i * r + c] = *v;
        }
    }
}

impl AttentionScratch {
    /// Loads the queries of a block and computes its scores; returns the number of keys.
    fn scores(&mut self, ops: Ops, h: Heads, qkv: &[f32], head: usize, block: std::ops::Range<usize>) -> usize {
        let (d, r, keys) = (h.d, block.len(), block.end);
        let stride = h.stride();
        gather(&qkv[block.start * stride..keys * stride], stride, head * d, d, &mut self.q);
        ops.scale((d as f32).sqrt().recip(), &mut self.q);
        transpose(&self.q, d, &mut self.qt);
        let s = zeroed(&mut self.s, keys * r);
        ops.add_product(&self.k[..keys * d], &self.qt, d, s);
        // Keys after their query.
        for (key, row) in s.chunks_exact_mut(r).enumerate().skip(block.start + 1) {
            row[..key - block.start].fill(f32::NEG_INFINITY);
        }
        keys
    }

    /// `qkv` is `[t, q | k | v]`, rotated; writes `att` `[t, heads * d]` and the logarithms of the softmax' sums,
    /// `[heads, t]`.
    pub(super) fn forward(&mut self, ops: Ops, h: Heads, qkv: &[f32], att: &mut [f32], lse: &mut [f32]) {
        let (d, stride, width) = (h.d, h.stride(), h.heads * h.d);
        let t = qkv.len() / stride;
        let group = h.heads / h.kv_heads;
        for kv in 0..h.kv_heads {
            gather(qkv, stride, (h.heads + kv) * d, d, &mut self.k);
            gather(qkv, stride, (h.heads + h.kv_heads + kv) * d, d, &mut self.v);
            for head in kv * group..(kv + 1) * group {
                for start in (0..t).step_by(BLOCK) {
                    let block = start..(start + BLOCK).min(t);
                    let r = block.len();
                    let keys = self.scores(ops, h, qkv, head, block.clone());
                    self.column.clear();
                    self.column.resize(r, f32::NEG_INFINITY);
                    ops.max_columns(&self.s, &mut self.column);
                    ops.exp_columns(&self.column, &mut self.s);
                    let sums = zeroed(&mut self.sums, r);
                    ops.add_columns(&self.s, sums);
                    let lse = &mut lse[head * t + start..head * t + block.end];
                    for ((lse, max), sum) in lse.iter_mut().zip(&self.column).zip(&*sums) {
                        *lse = max + sum.ln();
                    }
                    self.o.resize(r * d, 0.0);
                    let o = &mut self.o[..];
                    ops.gemm(Strided::rows(&self.s, r).t(), Strided::rows(&self.v, d), [r, d, keys], o, &mut self.gemm);
                    for ((token, o), sum) in block.zip(o.chunks_exact_mut(d)).zip(&*sums) {
                        ops.scale(1.0 / sum, o);
                        att[token * width + head * d..][..d].copy_from_slice(o);
                    }
                }
            }
        }
    }

    /// Writes the gradient of `qkv` for the gradient `datt` of `att`, both as in [`AttentionScratch::forward`].
    #[expect(clippy::too_many_arguments, reason = "what the forward pass took and made, and its gradient")]
    pub(super) fn backward(
        &mut self,
        ops: Ops,
        h: Heads,
        qkv: &[f32],
        att: &[f32],
        lse: &[f32],
        datt: &[f32],
        dqkv: &mut [f32],
    ) {
        let (d, stride, width) = (h.d, h.stride(), h.heads * h.d);
        let t = qkv.len() / stride;
        let group = h.heads / h.kv_heads;
        let scale = (d as f32).sqrt().recip();
        for kv in 0..h.kv_heads {
            let (k_at, v_at) = ((h.heads + kv) * d, (h.heads + h.kv_heads + kv) * d);
            gather(qkv, stride, k_at, d, &mut self.k);
            gather(qkv, stride, v_at, d, &mut self.v);
            zeroed(&mut self.dk, t * d);
            zeroed(&mut self.dv, t * d);
            for head in kv * group..(kv + 1) * group {
                for start in (0..t).step_by(BLOCK) {
                    let block = start..(start + BLOCK).min(t);
                    let r = block.len();
                    let keys = self.scores(ops, h, qkv, head, block.clone());
                    ops.exp_columns(&lse[head * t + start..head * t + block.end], &mut self.s);
                    gather(&datt[start * width..block.end * width], width, head * d, d, &mut self.o);
                    transpose(&self.o, d, &mut self.ot);
                    self.column.clear();
                    for (token, o) in block.clone().zip(self.o.chunks_exact(d)) {
                        self.column.push(ops.dot(o, &att[token * width + head * d..][..d]));
                    }
                    ops.add_product(&self.s, &self.o, r, &mut self.dv[..keys * d]);
                    let ds = zeroed(&mut self.ds, keys * r);
                    ops.add_product(&self.v[..keys * d], &self.ot, d, ds);
                    ops.softmax_gradient_columns(&self.s, &self.column, ds);
                    ops.add_product(ds, &self.q, r, &mut self.dk[..keys * d]);
                    let dq = &mut self.o[..];
                    ops.gemm(Strided::rows(ds, r).t(), Strided::rows(&self.k, d), [r, d, keys], dq, &mut self.gemm);
                    ops.scale(scale, dq);
                    for (token, dq) in block.zip(dq.chunks_exact(d)) {
                        dqkv[token * stride + head * d..][..d].copy_from_slice(dq);
                    }
                }
            }
            for (token, row) in dqkv.chunks_exact_mut(stride).enumerate() {
                row[k_at..k_at + d].copy_from_slice(&self.dk[token * d..][..d]);
                row[v_at..v_at + d].copy_from_slice(&self.dv[token * d..][..d]);
            }
        }
    }
}
