//! Some tokens of one mini-batch in one head.

use ternary_kernels::ops::LayerNorm;
use ternary_kernels::{AlignedBuf, Ops};

use super::state::LayerState;
use crate::config::{Kind, TttConfig};

/// Buffers of one thread, as large as a mini-batch of one head needs.
#[derive(Clone, Debug)]
pub(super) struct HeadScratch {
    /// Keys followed by queries, `[2 r, d]`.
    pub(super) kq: AlignedBuf<f32>,
    /// Values less keys, `[r, d]`.
    pub(super) target: AlignedBuf<f32>,
    /// Learning rates, `[r]`.
    pub(super) lr: AlignedBuf<f32>,
    /// Outputs of the first matrix for keys and queries, `[2 r, cols]`.
    pub(super) z1: AlignedBuf<f32>,
    /// Inputs of the second matrix, `[r, rows]`.
    x2: AlignedBuf<f32>,
    /// Outputs of the second matrix, `[r, d]`.
    pub(super) z2: AlignedBuf<f32>,
    /// Products of inputs with the inputs of the mini-batch, `[r, b]`.
    seen: AlignedBuf<f32>,
    /// Inputs of the mini-batch times minus the last position weight, `[rows, b]`.
    steps: AlignedBuf<f32>,
}

impl HeadScratch {
    pub(super) fn new(config: &TttConfig) -> Self {
        let (d, b) = (config.head_dim, config.mini_batch_size);
        let (m, second) = match config.kind {
            Kind::Linear => (d, 0),
            Kind::Mlp => (config.inner_dim(), config.inner_dim()),
        };
        Self {
            kq: AlignedBuf::zeroed(2 * b * d),
            target: AlignedBuf::zeroed(b * d),
            lr: AlignedBuf::zeroed(b),
            z1: AlignedBuf::zeroed(2 * b * m),
            x2: AlignedBuf::zeroed(b * second),
            z2: AlignedBuf::zeroed(if second > 0 { b * d } else { 0 }),
            seen: AlignedBuf::zeroed(b * b),
            steps: AlignedBuf::zeroed(m.max(d) * b),
        }
    }
}

/// Constants of one head.
pub(super) struct Head<'a> {
    pub(super) ops: Ops,
    pub(super) kind: Kind,
    /// The norm of the inner model, over `[d]`.
    pub(super) norm: LayerNorm<'a>,
    /// Position weights, `[b]`.
    pub(super) t: &'a [f32],
    /// If states forget.
    pub(super) decay: Option<Decay<'a>>,
}

/// How a head forgets: after a mini-batch, and before its gradients move them, inner weights `W` become
/// `W0 + keep (W - W0)`.
#[derive(Clone, Copy)]
pub(super) struct Decay<'a> {
    /// Between 0 and 1.
    pub(super) keep: f32,
    /// The first inner weights, `W0`, in the order of a state.
    pub(super) first: &'a [f32],
}

impl Decay<'_> {
    /// Weights that lie from `at` on among all of the head's.
    fn apply(self, at: usize, w: &mut [f32]) {
        for (w, first) in w.iter_mut().zip(&self.first[at..]) {
            *w = first + self.keep * (*w - first);
        }
    }
}

impl Head<'_> {
    /// Reads the `r` tokens in the scratch, as those from `first` on in the mini-batch; returns the model's results for
    /// the queries, `[r, d]`. The weights do not change until [`Head::complete`].
    pub(super) fn run<'s>(
        &self,
        layers: &mut [LayerState<'_>; 2],
        first: usize,
        r: usize,
        s: &'s mut HeadScratch,
    ) -> &'s [f32] {
        let (ops, d, b) = (self.ops, self.norm.gain.len(), self.t.len());
        let [one, two] = layers;
        let m = one.b.len();
        let kq = &mut s.kq[..2 * r * d];
        let z1 = &mut s.z1[..2 * r * m];
        ops.affine(kq, one.w, one.b, z1);
        let (zk, zq) = z1.split_at_mut(r * m);
        let (keys, queries) = kq.split_at_mut(r * d);
        ops.store_columns(keys, d, b, first, one.inputs);
        let gradients = |z: &[f32], out: &mut [f32]| {
            let (target, lr) = (&s.target[..r * d], &s.lr[..r]);
            ops.layer_norm_l2_gradient(z, target, self.norm, lr, out);
        };
        match self.kind {
            Kind::Linear => {
                gradients(zk, &mut one.outputs[first * d..(first + r) * d]);
            }
            Kind::Mlp => {
                let (x2, z2) = (&mut s.x2[..r * m], &mut s.z2[..r * d]);
                ops.gelu(zk, x2);
                ops.store_columns(x2, m, b, first, two.inputs);
                ops.affine(x2, two.w, two.b, z2);
                let outputs = &mut two.outputs[first * d..(first + r) * d];
                gradients(z2, outputs);
                let back = &mut one.outputs[first * m..(first + r) * m];
                for (output, back) in outputs.chunks_exact(d).zip(back.chunks_exact_mut(m)) {
                    ops.dots(two.w, output, back);
                }
                ops.gelu_derivative_mul_assign(zk, back);
            }
        }
        self.correct(queries, one, d, first, r, &mut s.seen, zq);
        let out: &[f32] = match self.kind {
            Kind::Linear => zq,
            Kind::Mlp => {
                let (x2, z2) = (&mut s.x2[..r * m], &mut s.z2[..r * d]);
                ops.gelu(zq, x2);
                ops.affine(x2, two.w, two.b, z2);
                self.correct(x2, two, m, first, r, &mut s.seen, z2);
                z2
            }
        };
        ops.add_layer_norm(out, self.norm, queries);
        queries
    }

    /// The mini-batch is complete: its gradients move the weights.
    pub(super) fn complete(&self, [one, two]: &mut [LayerState<'_>; 2], s: &mut HeadScratch) {
        if let Some(decay) = self.decay {
            let mut at = 0;
            for w in [&mut *one.w, &mut *one.b, &mut *two.w, &mut *two.b] {
                decay.apply(at, w);
                at += w.len();
            }
        }
        self.step(one, self.norm.gain.len(), &mut s.steps);
        if self.kind == Kind::Mlp {
            let m = one.b.len();
            self.step(two, m, &mut s.steps);
        }
    }

    /// Inner losses `|f(k) - v|^2 / 2` of the `r` tokens that are in the scratch, at the weights of the beginning of
    /// the mini-batch.
    pub(super) fn losses(&self, layers: &[LayerState<'_>; 2], r: usize, s: &HeadScratch) -> Vec<f32> {
        let (ops, d) = (self.ops, self.norm.gain.len());
        let affine = |x: &[f32], layer: &LayerState<'_>| {
            let mut z = vec![0.0; r * layer.b.len()];
            ops.affine(x, layer.w, layer.b, &mut z);
            z
        };
        let mut z = affine(&s.kq[..r * d], &layers[0]);
        if self.kind == Kind::Mlp {
            let mut x2 = vec![0.0; z.len()];
            ops.gelu(&z, &mut x2);
            z = affine(&x2, &layers[1]);
        }
        let mut e = vec![0.0; r * d];
        ops.layer_norm(&z, self.norm, &mut e);
        ops.axpy(-1.0, &s.target[..r * d], &mut e);
        e.chunks_exact(d).map(|e| ops.dot(e, e) / 2.0).collect()
    }

    /// Adds the updates of the open mini-batch to outputs `z` `[r, cols]` for inputs `x` `[r, rows]`:
    /// `z_n -= t_n sum_{k <= n} (x_n . x_k + 1) g_k`.
    #[allow(clippy::too_many_arguments)]
    fn correct(
        &self,
        x: &[f32],
        layer: &LayerState<'_>,
        rows: usize,
        first: usize,
        r: usize,
        seen: &mut [f32],
        z: &mut [f32],
    ) {
        let b = self.t.len();
        let seen = &mut seen[..r * b];
        // The input of the bias is 1. Columns of tokens that are not read yet hold old values; they are not used.
        seen.fill(1.0);
        self.ops.add_product(x, layer.inputs, rows, seen);
        for (seen, t) in seen.chunks_exact_mut(b).zip(&self.t[first..]) {
            seen.iter_mut().for_each(|x| *x *= -t);
        }
        self.ops.add_causal_product(seen, layer.outputs, b, first, z);
    }

    /// The gradients of a whole mini-batch move the weights of one matrix.
    fn step(&self, layer: &mut LayerState<'_>, rows: usize, steps: &mut [f32]) {
        let b = self.t.len();
        let last = -self.t[b - 1];
        let steps = &mut steps[..rows * b];
        steps.copy_from_slice(layer.inputs);
        self.ops.scale(last, steps);
        self.ops.add_product(steps, layer.outputs, b, layer.w);
        let steps = &mut steps[..b];
        steps.fill(last);
        self.ops.add_product(steps, layer.outputs, b, layer.b);
    }
}
