//! The backward pass of a worker: straight through both quantisers, both products with quantised operands.

use std::ops::Range;

use ternary_kernels::ops::{GemmScratch, Strided};

use super::forward::{Codes, Worker, activate, rotate, rows_of, sized};
use super::weights::Linear;
use super::{Shared, head_norms};
use crate::config::{Activation, ActivationBits};

/// Gradient of a norm, if there is one: added to `dx`, and to the gain's gradient.
pub(super) fn norm_backward(
    s: &Shared<'_>,
    x: &[f32],
    norm: &Option<Range<usize>>,
    k: usize,
    dy: &[f32],
    dx: &mut [f32],
    grads: &mut [f32],
) {
    let Some(place) = norm else { return s.ops.add_assign(dx, dy) };
    let (gain, dgain) = (s.param(place), &mut grads[place.clone()]);
    for ((x, dy), dx) in x.chunks_exact(k).zip(dy.chunks_exact(k)).zip(dx.chunks_exact_mut(k)) {
        s.ops.rms_norm_gradient(x, gain, s.config.rms_norm_eps, dy, dx, dgain);
    }
}

/// Like [`norm_backward`], but `dx` is written.
fn norm_backward_into(
    s: &Shared<'_>,
    x: &[f32],
    norm: &Option<Range<usize>>,
    dy: &[f32],
    dx: &mut [f32],
    grads: &mut [f32],
) {
    let Some(place) = norm else { return dx.copy_from_slice(dy) };
    let (gain, dgain) = (s.param(place), &mut grads[place.clone()]);
    let k = gain.len();
    for ((x, dy), dx) in x.chunks_exact(k).zip(dy.chunks_exact(k)).zip(dx.chunks_exact_mut(k)) {
        s.ops.rms_norm_gradient_into(x, gain, s.config.rms_norm_eps, dy, dx, dgain);
    }
}

/// Gradient of a product for `dy` `[n, out]`: adds `dy^T x` to `dw` and writes `dy (alpha T)` to `dx`, where the codes
/// represent `x`. A Hadamard transform before the product is its own backward pass.
#[expect(clippy::too_many_arguments, reason = "operands, gradients and two buffers")]
fn product_backward(
    s: &Shared<'_>,
    w: &Linear,
    codes: &Codes,
    dy: &[f32],
    dw: &mut [f32],
    dx: &mut Vec<f32>,
    wide: &mut Vec<f32>,
    gemm: &mut GemmScratch,
) {
    let (n, k, out) = (codes.n(), w.k, w.out);
    let x = sized(wide, n * k);
    match w.form.bits {
        ActivationBits::Eight | ActivationBits::Four => {
            let view = codes.int8.view();
            for ((t, x), scale) in x.chunks_exact_mut(k).enumerate().zip(codes.int8.scales()) {
                s.ops.dequantize_int8(&view.row(t).codes()[..k], 1.0 / scale, x);
            }
        }
        // Refused by `FusedLearner::new`.
        ActivationBits::EightByGroup => x.fill(f32::NAN),
        ActivationBits::Sixteen => {
            let view = codes.int16.view();
            for ((t, x), scale) in x.chunks_exact_mut(k).enumerate().zip(codes.int16.scales()) {
                s.ops.dequantize_int16(view.digits(t), 1.0 / scale, x);
            }
        }
    }
    let dy = Strided::rows(dy, out);
    s.ops.gemm_add(dy.t(), Strided::rows(x, k), [out, k, n], dw, gemm);
    let dx = sized(dx, n * k);
    s.ops.gemm(dy, Strided::rows(&w.wide, k), [n, k, out], dx, gemm);
    if let Some(block) = w.form.hadamard {
        // Rows are whole blocks, so all of them are one row of blocks.
        s.ops.hadamard(dx, block).expect("the configuration was checked");
    }
}

impl Worker {
    /// Adds the gradient of everything below the head, for the gradient of the final norm's result in `dx`.
    pub(super) fn backward(&mut self, s: &Shared<'_>, ids: &[u32], texts: &[usize]) {
        let c = s.config;
        let (hidden, ffn) = (c.hidden_size, c.intermediate_size);
        let heads = s.heads();
        let Self { tape, grads, h, dh, inner, dx, dx2, wide, gemm, attention, ttt, delta, .. } = self;
        let n = ids.len();
        let final_norm = Some(s.places.final_norm.clone());
        norm_backward_into(s, h, &final_norm, dx, sized(dh, n * hidden), grads);
        for ((tape, places), w) in tape.iter_mut().zip(&s.places.layers).zip(&s.prepared.layers).rev() {
            let group = |g: usize| places.groups[g].clone();

            // Feed-forward block.
            product_backward(s, &w.groups[3], &tape.x[3], dh, &mut grads[group(3)], dx, wide, gemm);
            activate(s, &tape.gu, sized(inner, n * ffn));
            norm_backward_into(s, inner, &places.norms[3], dx, sized(dx2, n * ffn), grads);
            let dgu = sized(dx, n * 2 * ffn);
            for ((gu, d), dgu) in
                tape.gu.chunks_exact(2 * ffn).zip(dx2.chunks_exact(ffn)).zip(dgu.chunks_exact_mut(2 * ffn))
            {
                let ((gate, up), (dgate, dup)) = (gu.split_at(ffn), dgu.split_at_mut(ffn));
                match c.hidden_act {
                    Activation::Relu2 => s.ops.relu2_mul_gradient(gate, up, d, dgate, dup),
                    Activation::Silu => s.ops.silu_mul_gradient(gate, up, d, dgate, dup),
                    // Refused by `FusedLearner::new`.
                    Activation::GeluTanh => dgate.fill(f32::NAN),
                }
            }
            product_backward(s, &w.groups[2], &tape.x[2], dgu, &mut grads[group(2)], dx2, wide, gemm);
            norm_backward(s, &tape.h_mid, &places.norms[2], hidden, dx2, dh, grads);

            // The mixer.
            let width = w.groups[1].k;
            product_backward(s, &w.groups[1], &tape.x[1], dh, &mut grads[group(1)], dx, wide, gemm);
            let datt = sized(dx2, n * width);
            norm_backward_into(s, &tape.att, &places.norms[1], dx, datt, grads);
            let stride = w.groups[0].out;
            let dqkv = sized(dx, n * stride);
            match (w.ttt.as_ref().zip(places.ttt.as_ref()), w.delta.as_ref().zip(places.delta.as_ref())) {
                (Some((layer, places)), _) => {
                    ttt.backward(layer, places, texts, [&tape.qkv, datt], dqkv, &mut tape.ttt, grads);
                }
                (None, Some((rule, place))) => {
                    delta.backward(rule, place, texts, [&tape.qkv, datt], dqkv, &tape.delta, grads);
                }
                (None, None) => {
                    for rows in rows_of(texts) {
                        let of = |len: usize| rows.start * len..rows.end * len;
                        let (qkv, att) = (&tape.qkv[of(stride)], &tape.att[of(width)]);
                        let (lse, dqkv) = (&tape.lse[of(heads.heads)], &mut dqkv[of(stride)]);
                        attention.backward(s.ops, heads, qkv, att, lse, &datt[of(width)], dqkv);
                    }
                    rotate(s, dqkv, texts, true);
                    if let Some(norms) = &places.head_norms {
                        head_norms::backward(s, norms, &tape.before_head_norms, dqkv, grads);
                    }
                }
            }
            product_backward(s, &w.groups[0], &tape.x[0], dqkv, &mut grads[group(0)], dx2, wide, gemm);
            if w.ttt.is_some() {
                // The learning rates read the norm's result as it is.
                s.ops.add_assign(dx2, ttt.d_input());
            }
            if w.delta.is_some() {
                s.ops.add_assign(dx2, delta.d_input());
            }
            norm_backward(s, &tape.h, &places.norms[0], hidden, dx2, dh, grads);
            if let (Some(layer), Some(places)) = (&w.ttt, &places.ttt) {
                ttt.pre_conv_backward(s, layer, places, texts, dh, &tape.ttt, grads);
            }
        }
        let table = &mut grads[s.places.embedding.clone()];
        for (id, dh) in ids.iter().zip(dh.chunks_exact(hidden)) {
            s.ops.add_assign(&mut table[*id as usize * hidden..][..hidden], dh);
        }
    }
}
