//! The backward pass: output, recurrence, convolution's results, gates.

use std::ops::Range;

use ternary_kernels::ops::Strided;

use super::super::softplus;
use super::chunk::{CHUNK, Chunk, ChunkGradients};
use super::{DeltaInputs, DeltaTape, DeltaWorkspace, GatedDelta, Gradients};

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

    /// The recurrence of the value heads of `head` over a text, chunk by chunk from the last to the first; `states` are
    /// those before all chunks but the first.
    pub(super) fn head_backward(
        &self,
        head: usize,
        text: Range<usize>,
        tape: &DeltaTape,
        states: &[f32],
        work: &mut DeltaWorkspace,
    ) {
        let (c, ops, d, g) = (&self.config, self.ops, self.config.head_dim, self.config.group());
        let (n, size, channels, width) = (tape.found.len() / c.value_width(), g * d * d, c.channels(), c.value_width());
        work.d_state.fill(0.0);
        for chunk in (0..text.len().div_ceil(CHUNK)).rev() {
            let start = text.start + chunk * CHUNK;
            let r = CHUNK.min(text.end - start);
            let (kq, d_kq) = (&mut work.kq[..2 * r * d], &mut work.d_kq[..2 * r * d]);
            for t in 0..r {
                let row = &tape.convolved[(start + t) * channels..][..channels];
                self.view(head, row, &mut work.views);
                kq[t * d..(t + 1) * d].copy_from_slice(&work.views.k);
                kq[(r + t) * d..(r + t + 1) * d].copy_from_slice(&work.views.q);
                work.inverse[t] = work.views.inverse;
                for (i, v) in work.views.v.chunks_exact(d).enumerate() {
                    work.values[(i * CHUNK + t) * d..][..d].copy_from_slice(v);
                }
            }
            d_kq.fill(0.0);
            for (i, d_state) in work.d_state.chunks_exact_mut(d * d).enumerate() {
                let j = head * g + i;
                let at = j * n + start..j * n + start + r;
                for (t, d_out) in work.chunk.d_outputs(r, d).chunks_exact_mut(d).enumerate() {
                    d_out.copy_from_slice(&work.d_found[(start + t) * width + j * d..][..d]);
                }
                let tokens = Chunk {
                    kq,
                    v: &work.values[i * CHUNK * d..][..r * d],
                    decays: &tape.decays[at.clone()],
                    rates: &tape.rates[at.clone()],
                    first: chunk.checked_sub(1).map(|before| &states[before * size + i * d * d..][..d * d]),
                };
                let to = ChunkGradients {
                    kq: d_kq,
                    v: &mut work.d_values[i * CHUNK * d..][..r * d],
                    decays: &mut work.d_decays[at.clone()],
                    rates: &mut work.d_rates[at],
                };
                work.chunk.backward(ops, &tokens, d_state, to);
            }
            for t in 0..r {
                self.view_backward(head, (start + t, t, r), tape, work);
            }
        }
    }

    /// From the gradients of query, key and values of token `t` of a chunk of `r` to those of its row `at` of the
    /// convolution. Of a unit vector `y = u s / |u|` it is `du = s / |u| (dy - y (y . dy) / s^2)`.
    fn view_backward(
        &self,
        head: usize,
        (at, t, r): (usize, usize, usize),
        tape: &DeltaTape,
        work: &mut DeltaWorkspace,
    ) {
        let (ops, d, channels) = (self.ops, self.config.head_dim, self.config.channels());
        let scale = self.query_scale();
        let [of_q, of_k] = work.inverse[t];
        for (row, scale, inverse) in [(r + t, scale, of_q), (t, 1.0, of_k)] {
            let (y, dy) = (&work.kq[row * d..(row + 1) * d], &mut work.d_kq[row * d..(row + 1) * d]);
            ops.axpy(-ops.dot(y, dy) / (scale * scale), y, dy);
            ops.scale(scale * inverse, dy);
        }
        let x = &tape.convolved[at * channels..(at + 1) * channels];
        let dx = &mut work.d_convolved[at * channels..(at + 1) * channels];
        let mut silu_backward = |of: Range<usize>, dy: &[f32]| {
            let (x, dx) = (&x[of.clone()], &mut dx[of]);
            ops.silu_mul_gradient(x, &self.ones[..d], dy, dx, &mut work.row[..d]);
        };
        let [q, k, v] = self.config.head_channels(head);
        silu_backward(q, &work.d_kq[(r + t) * d..(r + t + 1) * d]);
        silu_backward(k, &work.d_kq[t * d..(t + 1) * d]);
        for i in 0..self.config.group() {
            silu_backward(v.start + i * d..v.start + (i + 1) * d, &work.d_values[(i * CHUNK + t) * d..][..d]);
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
            for ((pre, exp), d) in pre.iter().zip(&*exp).zip(&mut work.d_decays[at]) {
                // The logarithm of the decay is `p.decay softplus(pre)`.
                grads.decay[j] += *d * softplus(*pre, *exp);
                let sigmoid = if *pre >= 0.0 { 1.0 } else { *exp } / (1.0 + exp);
                *d *= p.decay[j] * sigmoid;
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
