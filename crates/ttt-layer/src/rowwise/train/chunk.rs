//! One mini-batch of one head: the data kept for the backward pass, and its gradient.
//!
//! For a matrix with inputs `i` and written gradients `g` of the mini-batch's keys, the queries' results are
//! `z = x W + b - (t S) g` with `S = tril(x i^T + 1)`, and the next mini-batch begins with `W - t_last i^T g`.
//! Gradients go backwards through exactly these two formulas ([`Head::matrix`]), then through the computation of `g`
//! from the keys.

use std::ops::Range;

use ternary_kernels::Ops;
use ternary_kernels::ops::{GemmScratch, LayerNormGradient, NormGradients, Strided};

use super::super::head::{Head, HeadScratch};
use super::super::state::LayerState;
use crate::config::{Kind, TttConfig};

/// Tape of a mini-batch of `r` tokens; `m` is `d`, for TTT-MLP `4 d`.
pub(super) struct ChunkTape<'a> {
    /// Inner weights at its beginning, in the order of a state.
    pub(super) weights: &'a [f32],
    /// Queries and keys, rotated, and values less keys, `[r, d]`.
    pub(super) q: &'a mut [f32],
    pub(super) k: &'a mut [f32],
    pub(super) target: &'a mut [f32],
    /// Learning rates, `[r]`.
    pub(super) lr: &'a mut [f32],
    /// Per matrix: outputs for the keys (only of the first), outputs for the queries with the updates of the
    /// mini-batch, gradients of the keys' outputs times learning rates, `[r, m]` and `[r, d]`.
    z: &'a mut [f32],
    zq: [&'a mut [f32]; 2],
    g: [&'a mut [f32]; 2],
}

/// Columns of the outputs of the first and of the second matrix, 0 if there is no second.
fn columns(c: &TttConfig) -> [usize; 2] {
    match c.kind {
        Kind::Linear => [c.head_dim, 0],
        Kind::Mlp => [c.inner_dim(), c.head_dim],
    }
}

fn weight_floats(c: &TttConfig) -> usize {
    c.inner_shapes().iter().map(|(_, [rows, cols])| rows * cols).sum()
}

impl<'a> ChunkTape<'a> {
    /// Floats of `r` tokens, without the weights.
    pub(super) fn size(c: &TttConfig, r: usize) -> usize {
        let (d, [m1, m2]) = (c.head_dim, columns(c));
        r * (3 * d + 1 + 3 * m1 + 2 * m2)
    }

    /// Floats of a text of `len` tokens in a head: its mini-batches, all but the first with their weights, since a text
    /// begins with the first inner weights.
    pub(super) fn text_size(c: &TttConfig, len: usize) -> usize {
        let further = len.div_ceil(c.mini_batch_size).saturating_sub(1);
        Self::size(c, len) + further * weight_floats(c)
    }

    /// Mini-batch `i` of a text in a head, `r` tokens, in the data of that text; `first` are the first inner weights.
    pub(super) fn of_text(c: &TttConfig, first: &'a [f32], data: &'a mut [f32], i: usize, r: usize) -> Self {
        let before = Self::size(c, i * c.mini_batch_size) + i.saturating_sub(1) * weight_floats(c);
        let data = &mut data[before..];
        match i {
            0 => Self::new(c, first, data, r),
            _ => {
                let (weights, data) = data.split_at_mut(weight_floats(c));
                Self::new(c, weights, data, r)
            }
        }
    }

    pub(super) fn new(c: &TttConfig, weights: &'a [f32], data: &'a mut [f32], r: usize) -> Self {
        let (d, [m1, m2]) = (c.head_dim, columns(c));
        let mut rest = data;
        let mut take = |n: usize| rest.split_off_mut(..n).unwrap_or_default();
        Self {
            weights,
            q: take(r * d),
            k: take(r * d),
            target: take(r * d),
            lr: take(r),
            z: take(r * m1),
            zq: [take(r * m1), take(r * m2)],
            g: [take(r * m1), take(r * m2)],
        }
    }

    /// Keeps the results of [`super::RowWise::views`] in the scratch.
    pub(super) fn keep_views(&mut self, s: &HeadScratch) {
        let len = self.q.len();
        self.k.copy_from_slice(&s.kq[..len]);
        self.q.copy_from_slice(&s.kq[len..2 * len]);
        self.target.copy_from_slice(&s.target[..len]);
        self.lr.copy_from_slice(&s.lr[..self.lr.len()]);
    }

    /// Keeps the results of [`Head::run`] in scratch and state.
    pub(super) fn keep_results(&mut self, layers: &[LayerState<'_>; 2], s: &HeadScratch) {
        let len = self.z.len();
        self.z.copy_from_slice(&s.z1[..len]);
        self.zq[0].copy_from_slice(&s.z1[len..2 * len]);
        let second = self.zq[1].len();
        self.zq[1].copy_from_slice(&s.z2[..second]);
        for (g, layer) in self.g.iter_mut().zip(layers) {
            let len = g.len();
            g.copy_from_slice(&layer.outputs[..len]);
        }
    }
}

/// Buffers of the backward pass of one head, gradients of its inner weights among them.
#[derive(Clone, Debug)]
pub(super) struct Buffers {
    d: usize,
    /// Gradient of the outputs, then of the queries, `[b, d]`.
    d_q: Vec<f32>,
    d_k: Vec<f32>,
    /// Gradient of the targets, which is that of the values.
    d_target: Vec<f32>,
    pub(super) d_lr: Vec<f32>,
    /// Gradient of the position weights, `[b]`; summed over the head's mini-batches, as are all that follow.
    pub(super) d_t: Vec<f32>,
    /// Gradient of the inner norm, `[d]`.
    pub(super) d_gain: Vec<f32>,
    pub(super) d_bias: Vec<f32>,
    /// Gradients of the inner weights, in their shapes.
    pub(super) d_weights: Vec<Vec<f32>>,
    /// Of layers whose states forget: what mini-batches add to the gradients of the first inner weights, in the order
    /// of a state, and the gradient of what stays.
    d_first: Vec<f32>,
    pub(super) d_keep: f32,
    /// Per matrix: gradients of its outputs for queries, then for keys, and of the written gradients, `[b, m]`.
    d_z: [Vec<f32>; 2],
    d_g: [Vec<f32>; 2],
    /// TTT-MLP: inputs of the second matrix for keys and queries, `[b, m]`, their gradients, its outputs for the keys,
    /// `[b, d]`.
    x2: [Vec<f32>; 2],
    d_x2: [Vec<f32>; 2],
    z2: Vec<f32>,
    /// TTT-MLP: the written gradients, times the second matrix; `[b, m]` twice.
    back: [Vec<f32>; 2],
    small: Small,
}

/// Buffers of one matrix.
#[derive(Clone, Debug, Default)]
struct Small {
    /// `[r, r]`
    s: Vec<f32>,
    ds: Vec<f32>,
    /// `[r, m]`
    h: Vec<f32>,
    gemm: GemmScratch,
}

impl Buffers {
    pub(super) fn new(c: &TttConfig) -> Self {
        let (d, b, [m1, m2]) = (c.head_dim, c.mini_batch_size, columns(c));
        let zeros = |n: usize| vec![0.0; n];
        let wide = || [0, 1].map(|_| zeros(if m2 > 0 { b * m1 } else { 0 }));
        Self {
            d,
            d_q: zeros(b * d),
            d_k: zeros(b * d),
            d_target: zeros(b * d),
            d_lr: zeros(b),
            d_t: zeros(b),
            d_gain: zeros(d),
            d_bias: zeros(d),
            d_weights: c.inner_shapes().iter().map(|(_, [rows, cols])| zeros(rows * cols)).collect(),
            d_first: zeros(if c.decay { weight_floats(c) } else { 0 }),
            d_keep: 0.0,
            d_z: [zeros(b * m1), zeros(b * m2)],
            d_g: [zeros(b * m1), zeros(b * m2)],
            x2: wide(),
            d_x2: wide(),
            z2: zeros(b * m2),
            back: wide(),
            small: Small::default(),
        }
    }

    /// Another head begins; its last mini-batch comes first.
    pub(super) fn begin(&mut self) {
        let sums = [&mut self.d_t, &mut self.d_gain, &mut self.d_bias, &mut self.d_first];
        for sum in sums.into_iter().chain(&mut self.d_weights) {
            sum.fill(0.0);
        }
        self.d_keep = 0.0;
    }

    /// The head's first mini-batch is done: all that the first inner weights get is in the gradients of the inner weights.
    pub(super) fn end(&mut self, ops: Ops) {
        let mut rest = &self.d_first[..];
        for d in &mut self.d_weights {
            if let Some(part) = rest.split_off(..d.len()) {
                ops.add_assign(d, part);
            }
        }
    }

    /// Takes the gradients of `r` outputs from `[.., w]`.
    pub(super) fn load_outputs(&mut self, from: &[f32], at: usize, w: usize, columns: &Range<usize>, r: usize) {
        for (i, row) in self.d_q.chunks_exact_mut(self.d).enumerate().take(r) {
            row.copy_from_slice(&from[(at + i) * w..][columns.clone()]);
        }
    }

    /// Gradients of query, key and value of token `i`.
    pub(super) fn rows(&mut self, i: usize) -> [&mut [f32]; 3] {
        let row = i * self.d..(i + 1) * self.d;
        [&mut self.d_q[row.clone()], &mut self.d_k[row.clone()], &mut self.d_target[row]]
    }
}

/// One matrix in the backward pass of a mini-batch of `r` tokens.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    /// `[rows, cols]`
    w: &'a [f32],
    /// `[cols]`
    b: &'a [f32],
    /// Its place among all inner weights of the head.
    at: usize,
    /// Inputs for the queries and for the keys, `[r, rows]`.
    x: &'a [f32],
    inputs: &'a [f32],
    /// Outputs for the keys, `[r, cols]`.
    g: &'a [f32],
    /// Gradient of the outputs for the queries, `[r, cols]`.
    dz: &'a [f32],
}

/// The buffers of its gradients: added for `x`, the inner weights and the position weights; set for the inputs of the
/// keys and their written gradients.
struct MatrixGradients<'a> {
    /// Of the first inner weights of the matrix and its bias, and of what stays of later ones, if states forget.
    decay: Option<(&'a mut [f32], &'a mut f32)>,
    x: &'a mut [f32],
    inputs: &'a mut [f32],
    g: &'a mut [f32],
    w: &'a mut [f32],
    b: &'a mut [f32],
    t: &'a mut [f32],
}

fn add_rows(ops: Ops, x: &[f32], sum: &mut [f32]) {
    for row in x.chunks_exact(sum.len()) {
        ops.add_assign(sum, row);
    }
}

impl Head<'_> {
    /// The gradient of a mini-batch. On entry the buffers hold the gradients of its outputs and of the inner weights
    /// after it; then those of its views and of the inner weights at its beginning.
    pub(super) fn backward(&self, tape: &ChunkTape<'_>, s: &mut Buffers) {
        let (ops, d, r) = (self.ops, s.d, tape.lr.len());
        let m = tape.z.len() / r;
        let (w1, after) = tape.weights.split_at(d * m);
        let Buffers { d_q, d_k, d_target, d_lr, d_t, d_gain, d_bias, d_weights, d_first, d_keep, d_z, d_g, .. } = s;
        let (first1, first2) = d_first.split_at_mut(if self.decay.is_some() { d * m + m } else { 0 });
        let (d_q, d_k, d_target) = (&mut d_q[..r * d], &mut d_k[..r * d], &mut d_target[..r * d]);
        let [dz1, dz2] = d_z;
        let [dg1, dg2] = d_g;
        let (dz1, dg1) = (&mut dz1[..r * m], &mut dg1[..r * m]);
        let (dw1, rest) = d_weights.split_at_mut(2);
        let [dw1, db1] = dw1 else { return };
        let small = &mut s.small;

        // Queries: out = q + LN(z).
        let mut norm = NormGradients { gain: d_gain, bias: d_bias };
        let mut mlp = match (self.kind, rest) {
            (Kind::Mlp, [dw2, db2]) => {
                let (w2, b2) = after[m..].split_at(m * d);
                let [x2, x2q] = s.x2.each_mut().map(|x| &mut x[..r * m]);
                let [dx2, dx2q] = s.d_x2.each_mut().map(|x| &mut x[..r * m]);
                let (dz2, dg2) = (&mut dz2[..r * d], &mut dg2[..r * d]);
                ops.gelu(tape.z, x2);
                ops.gelu(tape.zq[0], x2q);
                ops.layer_norm_gradient(tape.zq[1], self.norm, d_q, dz2, norm.again());
                let matrix = Matrix { w: w2, b: b2, at: d * m + m, x: x2q, inputs: x2, g: tape.g[1], dz: dz2 };
                dx2q.fill(0.0);
                let decay = self.decay.is_some().then_some((first2, &mut *d_keep));
                let to = MatrixGradients { decay, x: dx2q, inputs: dx2, g: dg2, w: dw2, b: db2, t: d_t };
                self.matrix(matrix, to, small);
                dz1.copy_from_slice(dx2q);
                ops.gelu_derivative_mul_assign(tape.zq[0], dz1);
                Some((w2, b2, x2, dx2, dz2, dg2, dw2, db2))
            }
            _ => {
                ops.layer_norm_gradient(tape.zq[0], self.norm, d_q, dz1, norm.again());
                None
            }
        };
        let matrix = Matrix { w: w1, b: &after[..m], at: 0, x: tape.q, inputs: tape.k, g: tape.g[0], dz: dz1 };
        // The gradient of the outputs stays in `d_q`: a query goes into its output as it is, too.
        let decay = self.decay.is_some().then_some((first1, d_keep));
        let to = MatrixGradients { decay, x: d_q, inputs: d_k, g: dg1, w: dw1, b: db1, t: d_t };
        self.matrix(matrix, to, small);

        // Keys: g = lr times the gradient of |f(k) - v|^2 / 2 with respect to the outputs.
        match &mut mlp {
            Some((w2, b2, x2, dx2, dz2, dg2, dw2, db2)) => {
                let [back, dback] = s.back.each_mut().map(|x| &mut x[..r * m]);
                let z2 = &mut s.z2[..r * d];
                // The written gradients of the first matrix are `gelu'(z) (g2 W2^T)`.
                let w2t = Strided::rows(w2, d).t();
                ops.gemm(Strided::rows(tape.g[1], d), w2t, [r, m, d], back, &mut small.gemm);
                dback.copy_from_slice(dg1);
                ops.gelu_derivative_mul_assign(tape.z, dback);
                for ((dz, dg), back) in dz1.iter_mut().zip(&*dg1).zip(&*back) {
                    *dz = dg * back;
                }
                ops.gelu_second_mul_assign(tape.z, dz1);
                ops.add_product(dback, w2, m, dg2);
                ops.gemm_add(Strided::rows(dback, m).t(), Strided::rows(tape.g[1], d), [m, d, r], dw2, &mut small.gemm);
                ops.affine(x2, w2, b2, z2);
                let to = LayerNormGradient { x: dz2, target: d_target, scale: &mut d_lr[..r], norm };
                ops.layer_norm_l2_second(z2, tape.target, self.norm, tape.lr, dg2, to);
                ops.gemm_add(Strided::rows(dz2, d), w2t, [r, m, d], dx2, &mut small.gemm);
                ops.gemm_add(Strided::rows(x2, m).t(), Strided::rows(dz2, d), [m, d, r], dw2, &mut small.gemm);
                add_rows(ops, dz2, db2);
                ops.gelu_derivative_mul_assign(tape.z, dx2);
                ops.add_assign(dz1, dx2);
            }
            None => {
                let to = LayerNormGradient { x: dz1, target: d_target, scale: &mut d_lr[..r], norm };
                ops.layer_norm_l2_second(tape.z, tape.target, self.norm, tape.lr, dg1, to);
            }
        }
        let dz = Strided::rows(dz1, m);
        ops.gemm_add(dz, Strided::rows(w1, m).t(), [r, d, m], d_k, &mut small.gemm);
        ops.gemm_add(Strided::rows(tape.k, d).t(), dz, [d, m, r], dw1, &mut small.gemm);
        add_rows(ops, dz1, db1);
        // The target is the value less the key.
        ops.axpy(-1.0, d_target, d_k);
    }

    /// The gradient of `z_n = x_n W + b - t_n sum_{k <= n} (x_n . i_k + 1) g_k` and, if the mini-batch is complete, of
    /// `W - t_last i^T g` and `b - t_last sum g`, with `W` and `b` after their decay if there is one.
    fn matrix(&self, m: Matrix<'_>, to: MatrixGradients<'_>, small: &mut Small) {
        let (ops, b) = (self.ops, self.t.len());
        let cols = to.b.len();
        let (rows, r) = (m.w.len() / cols, m.g.len() / cols);
        let Small { s, ds, h, gemm } = small;
        if r == b {
            let last = self.t[b - 1];
            h.resize(r * cols, 0.0);
            ops.affine(m.inputs, to.w, to.b, h);
            to.t[b - 1] -= ops.dot(h, m.g);
            for (g, h) in to.g.iter_mut().zip(&*h) {
                *g = -last * h;
            }
            let back = Strided::rows(to.w, cols).t();
            ops.gemm(Strided::rows(m.g, cols), back, [r, rows, cols], to.inputs, gemm);
            ops.scale(-last, to.inputs);
            if let (Some(decay), Some((d_first, d_keep))) = (self.decay, to.decay) {
                // W0 + keep (W - W0), of the matrix and of its bias.
                let first = &decay.first[m.at..m.at + d_first.len()];
                let ((first_w, first_b), (d_w, d_b)) = (first.split_at(m.w.len()), d_first.split_at_mut(m.w.len()));
                for (w, first, d_first, d) in [(m.w, first_w, d_w, &mut *to.w), (m.b, first_b, d_b, &mut *to.b)] {
                    *d_keep += ops.dot(d, w) - ops.dot(d, first);
                    ops.axpy(1.0 - decay.keep, d, d_first);
                    ops.scale(decay.keep, d);
                }
            }
        } else {
            to.g.fill(0.0);
            to.inputs.fill(0.0);
        }
        s.clear();
        s.resize(r * r, 1.0);
        ds.resize(r * r, 0.0);
        ops.gemm_add(Strided::rows(m.x, rows), Strided::rows(m.inputs, rows).t(), [r, r, rows], s, gemm);
        ops.gemm(Strided::rows(m.dz, cols), Strided::rows(m.g, cols).t(), [r, r, cols], ds, gemm);
        for (n, (s, ds)) in s.chunks_exact_mut(r).zip(ds.chunks_exact_mut(r)).enumerate() {
            let t = self.t[n];
            let mut sum = 0.0;
            for (s, ds) in s[..=n].iter_mut().zip(&mut ds[..=n]) {
                sum += *s * *ds;
                *s *= -t;
                *ds *= -t;
            }
            to.t[n] -= sum;
            s[n + 1..].fill(0.0);
            ds[n + 1..].fill(0.0);
        }
        let dz = Strided::rows(m.dz, cols);
        ops.gemm_add(Strided::rows(s, r).t(), dz, [r, cols, r], to.g, gemm);
        ops.gemm_add(Strided::rows(ds, r).t(), Strided::rows(m.x, rows), [r, rows, r], to.inputs, gemm);
        ops.add_product(ds, m.inputs, r, to.x);
        ops.gemm_add(dz, Strided::rows(m.w, cols).t(), [r, rows, cols], to.x, gemm);
        ops.gemm_add(Strided::rows(m.x, rows).t(), dz, [rows, cols, r], to.w, gemm);
        add_rows(ops, m.dz, to.b);
    }
}
