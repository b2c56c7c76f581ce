//! The backward pass: output, recurrence, convolution's results, gates.

use std::ops::Range;

use ternary_kernels::Ops;
use ternary_kernels::ops::{DeltaToken, Strided};

use super::super::softplus;
use super::{CHUNK, DeltaInputs, DeltaTape, DeltaWorkspace, GatedDelta, Gradients, Views};

/// Buffers of one token in the backward pass.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Gradients of query, key and values.
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    /// `[d]` each.
    product: Vec<f32>,
    difference: Vec<f32>,
    error: Vec<f32>,
    d_error: Vec<f32>,
}

/// A token in one value head.
#[derive(Clone, Copy)]
struct Token<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    decay: f32,
    rate: f32,
}

impl Step {
    /// Buffers for `g` value heads of `d` elements a key head.
    pub(super) fn new(g: usize, d: usize) -> Self {
        let zeros = |n: usize| vec![0.0; n];
        Self {
            dq: zeros(d),
            dk: zeros(d),
            dv: zeros(g * d),
            product: zeros(d),
            difference: zeros(d),
            error: zeros(d),
            d_error: zeros(d),
        }
    }

    /// One token in one value head: `before` and `after` are its states `[d, d]`, `d_out` the gradient of what the
    /// query found, `d_state` that of the state, which becomes that of the state before. Gradients of query and key are
    /// added, that of the value goes to `dv[at..]`; those of decay and rate are returned.
    fn back(
        &mut self,
        ops: Ops,
        [before, after]: [&[f32]; 2],
        t: Token<'_>,
        d_out: &[f32],
        d_state: &mut [f32],
        at: usize,
    ) -> [f32; 2] {
        let d = t.k.len();
        let Self { dq, dk, dv, product, difference, error, d_error } = self;
        ops.dots(after, d_out, product);
        ops.add_assign(dq, product);
        ops.add_product(t.q, d_out, 1, d_state);

        difference.fill(0.0);
        ops.add_product(t.k, before, d, difference);
        for ((difference, v), error) in difference.iter_mut().zip(t.v).zip(&mut *error) {
            *difference = v - t.decay * *difference;
            *error = t.rate * *difference;
        }
        ops.dots(d_state, error, product);
        ops.add_assign(dk, product);
        d_error.fill(0.0);
        ops.add_product(t.k, d_state, d, d_error);

        let d_rate = ops.dot(d_error, difference);
        ops.scale(t.rate, d_error);
        dv[at..at + d].copy_from_slice(d_error);
        ops.scale(-1.0, d_error);
        ops.dots(before, d_error, product);
        ops.axpy(t.decay, product, dk);
        ops.add_product(t.k, d_error, 1, d_state);

        let d_decay = ops.dot(d_state, before);
        ops.scale(t.decay, d_state);
        [d_decay, d_rate]
    }
}

impl GatedDelta {
    /// Norm and gate of the output.
    pub(super) fn outputs_backward(
        &self,
        inputs: &DeltaInputs<'_>,
        dout: &[f32],
        tape: &DeltaTape,
        projected: &mut [f32],
        d_norm: &mut [f32],
        work: &mut DeltaWorkspace,
    ) {
        let (c, ops, d) = (&self.config, self.ops, self.config.head_dim);
        let (width, channels) = (c.value_width(), c.channels());
        let norm = &self.parameters.norm;
        work.d_found.resize(dout.len(), 0.0);
        let rows = tape.found.chunks_exact(width).zip(dout.chunks_exact(width));
        let to = work.d_found.chunks_exact_mut(width).zip(projected.chunks_exact_mut(channels + width));
        for (t, ((found, dout), (d_found, projected))) in rows.zip(to).enumerate() {
            for j in 0..c.value_heads {
                let at = j * d..(j + 1) * d;
                let (normed, rest) = work.row.split_at_mut(d);
                let d_normed = &mut rest[..d];
                ops.rms_norm(&found[at.clone()], norm, c.norm_eps, normed);
                let (z, d_z) = (&inputs.z.row(t)[at.clone()], &mut projected[channels..][at.clone()]);
                ops.silu_mul_gradient(z, normed, &dout[at.clone()], d_z, d_normed);
                let d_found = &mut d_found[at.clone()];
                ops.rms_norm_gradient_into(&found[at], norm, c.norm_eps, d_normed, d_found, d_norm);
            }
        }
    }

    /// The recurrence of the value heads of `head` over a text, from the last token to the first.
    pub(super) fn head_backward(
        &self,
        head: usize,
        window: Range<usize>,
        tape: &DeltaTape,
        states: &[f32],
        work: &mut DeltaWorkspace,
    ) {
        let (c, ops, d, g) = (&self.config, self.ops, self.config.head_dim, self.config.group());
        let (n, size, channels, width) = (tape.found.len() / c.value_width(), g * d * d, c.channels(), c.value_width());
        work.d_state.fill(0.0);
        for (chunk, first) in states.chunks_exact(size).enumerate().rev() {
            let start = window.start + chunk * CHUNK;
            let tokens = CHUNK.min(window.end - start);
            work.states[..size].copy_from_slice(first);
            for t in 0..tokens {
                let views = &mut work.chunk[t];
                self.view(head, &tape.convolved[(start + t) * channels..][..channels], views);
                let (before, after) = work.states[t * size..(t + 2) * size].split_at_mut(size);
                after.copy_from_slice(before);
                for (i, a) in after.chunks_exact_mut(d * d).enumerate() {
                    let at = (head * g + i) * n + start + t;
                    let (decay, beta) = (tape.decays[at], tape.rates[at]);
                    let v = &views.v[i * d..(i + 1) * d];
                    ops.delta_rule(a, DeltaToken { k: &views.k, q: &views.q, v, decay, beta }, &mut work.row[..d]);
                }
            }
            for t in (0..tokens).rev() {
                let views = &work.chunk[t];
                work.step.dq.fill(0.0);
                work.step.dk.fill(0.0);
                for (i, d_state) in work.d_state.chunks_exact_mut(d * d).enumerate() {
                    let j = head * g + i;
                    let at = j * n + start + t;
                    let token = Token {
                        q: &views.q,
                        k: &views.k,
                        v: &views.v[i * d..(i + 1) * d],
                        decay: tape.decays[at],
                        rate: tape.rates[at],
                    };
                    let pair = [t, t + 1].map(|t| &work.states[t * size + i * d * d..][..d * d]);
                    let d_out = &work.d_found[(start + t) * width + j * d..][..d];
                    let [d_decay, d_rate] = work.step.back(ops, pair, token, d_out, d_state, i * d);
                    (work.d_decays[at], work.d_rates[at]) = (d_decay, d_rate);
                }
                let row = (start + t) * channels..(start + t + 1) * channels;
                let d_row = &mut work.d_convolved[row.clone()];
                self.view_backward(head, &tape.convolved[row], views, &mut work.step, d_row, &mut work.row);
            }
        }
    }

    /// From the gradients of query, key and values to those of the row of the convolution. Of a unit vector
    /// `y = u s / |u|` it is `du = s / |u| (dy - y (y . dy) / s^2)`.
    fn view_backward(
        &self,
        head: usize,
        convolved: &[f32],
        views: &Views,
        step: &mut Step,
        d_convolved: &mut [f32],
        row: &mut [f32],
    ) {
        let ops = self.ops;
        let scale = self.query_scale();
        for (y, dy, scale, inverse) in
            [(&views.q, &mut step.dq, scale, views.inverse[0]), (&views.k, &mut step.dk, 1.0, views.inverse[1])]
        {
            ops.axpy(-ops.dot(y, dy) / (scale * scale), y, dy);
            ops.scale(scale * inverse, dy);
        }
        for (channels, dy) in self.config.head_channels(head).into_iter().zip([&step.dq, &step.dk, &step.dv]) {
            let len = channels.len();
            let (x, dx) = (&convolved[channels.clone()], &mut d_convolved[channels]);
            ops.silu_mul_gradient(x, &self.ones[..len], dy, dx, &mut row[..len]);
        }
    }

    /// Decays and rates: gradients of their weights, and what the layer's input gets from them.
    pub(super) fn gates_backward(
        &self,
        x: &[f32],
        tape: &DeltaTape,
        dx: &mut [f32],
        grads: &mut Gradients<'_>,
        work: &mut DeltaWorkspace,
    ) {
        let (c, p, ops, hidden) = (&self.config, &self.parameters, self.ops, self.config.hidden_size);
        let n = x.len() / hidden;
        work.pre.resize(n, 0.0);
        work.exp.resize(2 * n, 0.0);
        for j in 0..c.value_heads {
            let at = j * n..(j + 1) * n;
            for (d, rate) in work.d_rates[at.clone()].iter_mut().zip(&tape.rates[at.clone()]) {
                *d *= rate * (1.0 - rate);
            }
            let pre = &mut work.pre;
            ops.dots(x, &p.alpha[j * hidden..(j + 1) * hidden], pre);
            let (minus, exp) = work.exp.split_at_mut(n);
            for (pre, minus) in pre.iter_mut().zip(&mut *minus) {
                *pre += p.decay_bias[j];
                *minus = -pre.abs();
            }
            ops.exp(minus, &mut exp[..n]);
            let decays = tape.decays[at.clone()].iter().zip(&mut work.d_decays[at]);
            for ((pre, exp), (decay, d)) in pre.iter().zip(&*exp).zip(decays) {
                // The exponent is `p.decay softplus(pre)`.
                let d_exponent = *d * decay;
                grads.decay[j] += d_exponent * softplus(*pre, *exp);
                let sigmoid = if *pre >= 0.0 { 1.0 } else { *exp } / (1.0 + exp);
                *d = d_exponent * p.decay[j] * sigmoid;
                grads.decay_bias[j] += *d;
            }
        }
        let heads = c.value_heads;
        let inputs = Strided::rows(x, hidden);
        for (d, weights, to) in
            [(&work.d_decays, &p.alpha, &mut *grads.alpha), (&work.d_rates, &p.beta, &mut *grads.beta)]
        {
            let d = Strided::rows(d, n);
            ops.gemm_add(d, inputs, [heads, hidden, n], to, &mut work.gemm);
            ops.gemm_add(d.t(), Strided::rows(weights, hidden), [n, hidden, heads], dx, &mut work.gemm);
        }
    }
}
