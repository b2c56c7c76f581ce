//! Some tokens of one mini-batch in one head.

use ternary_kernels::Ops;

use super::state::LayerState;
use crate::config::{Kind, TttConfig};

/// Buffers of one thread, as large as a mini-batch of one head needs.
#[derive(Clone, Debug)]
pub(super) struct HeadScratch {
    /// Keys and behind them queries, `[2 r, d]`.
    pub(super) kq: Vec<f32>,
    /// Values less keys, `[r, d]`.
    pub(super) target: Vec<f32>,
    /// Learning rates, `[r]`.
    pub(super) lr: Vec<f32>,
    /// Outputs of the first matrix for keys and queries, `[2 r, cols]`.
    z1: Vec<f32>,
    /// Inputs of the second matrix, `[r, rows]`.
    x2: Vec<f32>,
    /// Outputs of the second matrix, `[r, d]`.
    z2: Vec<f32>,
    /// Products of inputs with the inputs of the mini-batch, `[r, b]`.
    seen: Vec<f32>,
    /// Inputs of the mini-batch times minus the last position weight, `[rows, b]`.
    steps: Vec<f32>,
}

impl HeadScratch {
    pub(super) fn new(config: &TttConfig) -> Self {
        let (d, b) = (config.head_dim, config.mini_batch_size);
        let (m, second) = match config.kind {
            Kind::Linear => (d, 0),
            Kind::Mlp => (config.inner_dim(), config.inner_dim()),
        };
        Self {
            kq: vec![0.0; 2 * b * d],
            target: vec![0.0; b * d],
            lr: vec![0.0; b],
            z1: vec![0.0; 2 * b * m],
            x2: vec![0.0; b * second],
            z2: vec![0.0; if second > 0 { b * d } else { 0 }],
            seen: vec![0.0; b * b],
            steps: vec![0.0; m.max(d) * b],
        }
    }
}

/// Constants of one head.
pub(super) struct Head<'a> {
    pub(super) ops: Ops,
    pub(super) kind: Kind,
    /// `[d]`
    pub(super) gain: &'a [f32],
    /// `[d]`
    pub(super) bias: &'a [f32],
    pub(super) eps: f32,
    /// Position weights, `[b]`.
    pub(super) t: &'a [f32],
}

impl Head<'_> {
    /// Reads the `r` tokens that lie in the scratch, as those from `first` on of the mini-batch; what the model makes of
    /// the queries, before the norm, is `r` rows of the returned slice.
    pub(super) fn run<'s>(
        &self,
        layers: &mut [LayerState<'_>; 2],
        first: usize,
        r: usize,
        s: &'s mut HeadScratch,
    ) -> (&'s [f32], &'s [f32]) {
        let (ops, d, b) = (self.ops, self.gain.len(), self.t.len());
        let [one, two] = layers;
        let m = one.b.len();
        let kq = &s.kq[..2 * r * d];
        let (keys, queries) = kq.split_at(r * d);
        let z1 = &mut s.z1[..2 * r * m];
        fill_rows(z1, one.b);
        ops.add_product(kq, one.w, d, z1);
        let (zk, zq) = z1.split_at_mut(r * m);
        store_inputs(keys, one.inputs, d, b, first);
        let gradient = |z: &[f32], i: usize, out: &mut [f32]| {
            let (z, target) = (&z[i * d..(i + 1) * d], &s.target[i * d..(i + 1) * d]);
            ops.layer_norm_l2_gradient(z, target, self.gain, self.bias, self.eps, s.lr[i], out);
        };
        match self.kind {
            Kind::Linear => {
                for i in 0..r {
                    gradient(zk, i, row_mut(one.outputs, d, first + i));
                }
            }
            Kind::Mlp => {
                let (x2, z2) = (&mut s.x2[..r * m], &mut s.z2[..r * d]);
                ops.gelu(zk, x2);
                store_inputs(x2, two.inputs, m, b, first);
                fill_rows(z2, two.b);
                ops.add_product(x2, two.w, m, z2);
                for i in 0..r {
                    gradient(z2, i, row_mut(two.outputs, d, first + i));
                    let back = row_mut(one.outputs, m, first + i);
                    ops.dots(two.w, &two.outputs[(first + i) * d..(first + i + 1) * d], back);
                    ops.gelu_derivative_mul_assign(&zk[i * m..(i + 1) * m], back);
                }
            }
        }
        self.correct(queries, one, d, first, r, &mut s.seen, zq);
        let out: &[f32] = match self.kind {
            Kind::Linear => zq,
            Kind::Mlp => {
                let (x2, z2) = (&mut s.x2[..r * m], &mut s.z2[..r * d]);
                ops.gelu(zq, x2);
                fill_rows(z2, two.b);
                ops.add_product(x2, two.w, m, z2);
                self.correct(x2, two, m, first, r, &mut s.seen, z2);
                z2
            }
        };
        if first + r == b {
            self.step(one, d, &mut s.steps);
            if self.kind == Kind::Mlp {
                self.step(two, m, &mut s.steps);
            }
        }
        (queries, out)
    }

    /// What the mini-batch has learnt so far changes in outputs `z` `[r, cols]` for inputs `x` `[r, rows]`:
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
        let (b, cols) = (self.t.len(), layer.b.len());
        let seen = &mut seen[..r * b];
        // The bias' input is 1. Columns of tokens that are not read yet hold what was there before; they are not used.
        seen.fill(1.0);
        self.ops.add_product(x, layer.inputs, rows, seen);
        for (i, (seen, z)) in seen.chunks_exact_mut(b).zip(z.chunks_exact_mut(cols)).enumerate() {
            let n = first + i;
            let seen = &mut seen[..=n];
            self.ops.scale(-self.t[n], seen);
            self.ops.add_product(seen, &layer.outputs[..(n + 1) * cols], n + 1, z);
        }
    }

    /// The mini-batch is complete: its gradients move the weights.
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

fn row_mut(data: &mut [f32], cols: usize, i: usize) -> &mut [f32] {
    &mut data[i * cols..(i + 1) * cols]
}

fn fill_rows(out: &mut [f32], row: &[f32]) {
    for out in out.chunks_exact_mut(row.len()) {
        out.copy_from_slice(row);
    }
}

/// Rows of `x` `[r, rows]` become columns `first..first + r` of `inputs` `[rows, b]`.
fn store_inputs(x: &[f32], inputs: &mut [f32], rows: usize, b: usize, first: usize) {
    for (i, x) in x.chunks_exact(rows).enumerate() {
        for (inputs, x) in inputs.chunks_exact_mut(b).zip(x) {
            inputs[first + i] = *x;
        }
    }
}
