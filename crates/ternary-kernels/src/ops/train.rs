//! Gradients of norm, activation and cross entropy, and the optimizer's step, for training on the CPU.
//!
//! Most bodies are plain loops without sums, which the compiler vectorises for each instruction set; every operation in
//! them is rounded separately, so results are equal everywhere.

use super::exp::exp;
use super::lanes::{LANES, Simd, pad};
use super::norm::rms_norm_inv;

/// Constants of one AdamW step, see [`Ops::adamw`](crate::Ops::adamw).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay: parameters shrink by `lr * weight_decay`.
    pub weight_decay: f32,
    /// Factor of the gradient: clipping, and the mean over accumulated batches.
    pub gradient_scale: f32,
    /// `1 - beta1^t` of step `t`, counted from 1.
    pub correction1: f32,
    /// `1 - beta2^t`.
    pub correction2: f32,
}

ops! {
    /// Gradient of [`Ops::rms_norm`](crate::Ops::rms_norm): with `r = rms_norm_inv(x, eps)` and `g[i] = dy[i] * gain[i]`,
    /// `dx[i] += r g[i] - x[i] r^3 / k sum_j g[j] x[j]` and `dgain[i] += dy[i] x[i] r`; all `[k]` f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm_gradient(x: &[f32], gain: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], dgain: &mut [f32]) = add_rms_norm_gradient;

    /// Like [`Ops::rms_norm_gradient`](crate::Ops::rms_norm_gradient), but overwrites `dx`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm_gradient_into(x: &[f32], gain: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], dgain: &mut [f32]) = set_rms_norm_gradient;

    /// Gradient of [`Ops::relu2_mul`](crate::Ops::relu2_mul): `dgate[i] = 2 relu(gate[i]) up[i] d[i]`,
    /// `dup[i] = relu(gate[i])^2 d[i]`; all `[k]` f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn relu2_mul_gradient(gate: &[f32], up: &[f32], d: &[f32], dgate: &mut [f32], dup: &mut [f32]) = relu2_mul_gradient;

    /// Gradient of [`Ops::silu_mul`](crate::Ops::silu_mul): with `p = 1 / (1 + exp(-gate[i]))`,
    /// `dgate[i] = p (1 + gate[i] (1 - p)) up[i] d[i]` and `dup[i] = gate[i] p d[i]`; all `[k]` f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn silu_mul_gradient(gate: &[f32], up: &[f32], d: &[f32], dgate: &mut [f32], dup: &mut [f32]) = silu_mul_gradient;

    /// `out[i] = codes[i] * step`, both `[k]`: the values of int8 codes.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dequantize_int8(codes: &[i8], step: f32, out: &mut [f32]) = dequantize_int8;

    /// Cross entropy of one row of logits and its gradient: returns `-ln softmax(logits)[target]` and leaves
    /// `scale * (softmax(logits) - onehot(target))` in `logits`, `[vocab]` f32. Sums run over 16 lanes.
    ///
    /// # Panics
    /// If `target` is not in the row.
    pub fn cross_entropy_gradient(logits: &mut [f32], target: usize, scale: f32) -> f32 = cross_entropy_gradient;

    /// One step of AdamW on a piece of the parameters `p` with gradient `g`, all `[k]` f32:
    /// `g' = g * gradient_scale`, `m = beta1 m + (1 - beta1) g'`, `v = beta2 v + (1 - beta2) g'^2`,
    /// `p = p (1 - lr weight_decay) - lr / correction1 * m / (sqrt(v / correction2) + eps)`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn adamw(step: AdamWStep, g: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) = adamw;

    /// Trits of master weights with this absolute mean, and their values: `t[i] = round(w[i] * (1 / mean))`, ties to
    /// even, within -1..=1; `out[i] = t[i] * weight_scale(mean)`; all `[k]`. The bits of
    /// [`absmean_quantize`](crate::quantize::absmean_quantize).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn ternarize(w: &[f32], mean: f32, trits: &mut [i8], out: &mut [f32]) = ternarize;

    /// Like [`Ops::ternarize`](crate::Ops::ternarize) with a scale for each `group_len` weights: `t[i] = round(w[i] *
    /// (1 / d))`, ties to even, within -1..=1, and `out[i] = t[i] * d`; `w`, `trits` and `out` are `[groups *
    /// group_len]`, `scales` is `[groups]` f32. The bits of
    /// [`absmean_quantize_groups`](crate::quantize::absmean_quantize_groups).
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn ternarize_groups(w: &[f32], group_len: usize, scales: &[f32], trits: &mut [i8], out: &mut [f32]) = ternarize_groups;

    /// The values of the int16 codes of a row: `out[i] = code[i] * step`, `[k]` f32; `digits` is laid out like
    /// [`Int16Matrix::digits`](crate::Int16Matrix::digits), 16 upper and then 16 lower digits for every 16 columns.
    ///
    /// # Panics
    /// If there are too few digits.
    pub fn dequantize_int16(digits: &[i8], step: f32, out: &mut [f32]) = dequantize_int16;

    /// `x[r, c] = exp(x[r, c] - shift[c])`, `x` is `[rows, shift.len()]` f32.
    ///
    /// # Panics
    /// If the length of `x` is not a multiple of that of `shift`.
    pub fn exp_columns(shift: &[f32], x: &mut [f32]) = exp_columns;

    /// Column maxima: `out[c] = max(out[c], max_r x[r, c])`, `x` is `[rows, out.len()]` f32.
    ///
    /// # Panics
    /// If the length of `x` is not a multiple of that of `out`.
    pub fn max_columns(x: &[f32], out: &mut [f32]) = max_columns;

    /// Column sums: `out[c] += x[r, c]` for each row in turn, `x` is `[rows, out.len()]` f32.
    ///
    /// # Panics
    /// If the length of `x` is not a multiple of that of `out`.
    pub fn add_columns(x: &[f32], out: &mut [f32]) = add_columns;

    /// Gradient of a softmax along columns: `dp[r, c] = p[r, c] * (dp[r, c] - d[c])`, both `[rows, d.len()]` f32.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn softmax_gradient_columns(p: &[f32], d: &[f32], dp: &mut [f32]) = softmax_gradient_columns;
}

#[inline(always)]
fn add_rms_norm_gradient<S: Simd>(
    s: S,
    x: &[f32],
    gain: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dgain: &mut [f32],
) {
    rms_norm_gradient::<S, true>(s, x, gain, eps, dy, dx, dgain);
}

#[inline(always)]
fn set_rms_norm_gradient<S: Simd>(
    s: S,
    x: &[f32],
    gain: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dgain: &mut [f32],
) {
    rms_norm_gradient::<S, false>(s, x, gain, eps, dy, dx, dgain);
}

#[inline(always)]
fn rms_norm_gradient<S: Simd, const ADD: bool>(
    s: S,
    x: &[f32],
    gain: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dgain: &mut [f32],
) {
    let k = x.len();
    assert!(gain.len() == k && dy.len() == k && dx.len() == k && dgain.len() == k, "rms_norm_gradient: lengths differ");
    let inv = rms_norm_inv(s, x, eps);
    let mut acc = s.splat(0.0);
    let ((xs, x_tail), (gains, gain_tail), (dys, dy_tail)) = (x.as_chunks(), gain.as_chunks(), dy.as_chunks());
    for ((x, gain), dy) in xs.iter().zip(gains).zip(dys) {
        acc = s.fma(s.mul(s.load(dy), s.load(gain)), s.load(x), acc);
    }
    let (x_last, gain_last, dy_last) = (pad(x_tail, 0.0), pad(gain_tail, 0.0), pad(dy_tail, 0.0));
    acc = s.fma(s.mul(s.load(&dy_last), s.load(&gain_last)), s.load(&x_last), acc);
    let along = inv * inv * inv / k.max(1) as f32 * s.sum(acc);
    for i in 0..k {
        let d = inv * (dy[i] * gain[i]) - x[i] * along;
        dx[i] = if ADD { dx[i] + d } else { d };
        dgain[i] += dy[i] * (x[i] * inv);
    }
}

#[inline(always)]
fn relu2_mul_gradient<S: Simd>(_: S, gate: &[f32], up: &[f32], d: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let k = gate.len();
    assert!(up.len() == k && d.len() == k && dgate.len() == k && dup.len() == k, "relu2_mul_gradient: lengths differ");
    for i in 0..k {
        let relu = if gate[i] > 0.0 { gate[i] } else { 0.0 };
        dgate[i] = 2.0 * relu * up[i] * d[i];
        dup[i] = relu * relu * d[i];
    }
}

#[inline(always)]
fn silu_mul_gradient<S: Simd>(s: S, gate: &[f32], up: &[f32], d: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let k = gate.len();
    assert!(up.len() == k && d.len() == k && dgate.len() == k && dup.len() == k, "silu_mul_gradient: lengths differ");
    // `dgate` holds exp(-gate) temporarily.
    let ((gates, gate_tail), (outs, out_tail)) = (gate.as_chunks::<LANES>(), dgate.as_chunks_mut::<LANES>());
    for (gate, out) in gates.iter().zip(outs) {
        s.store(exp(s, s.sub(s.splat(0.0), s.load(gate))), out);
    }
    let mut last = pad(gate_tail, 0.0);
    s.store(exp(s, s.sub(s.splat(0.0), s.load(&last))), &mut last);
    out_tail.copy_from_slice(&last[..out_tail.len()]);
    for i in 0..k {
        let p = 1.0 / (1.0 + dgate[i]);
        dgate[i] = p * (1.0 + gate[i] * (1.0 - p)) * up[i] * d[i];
        dup[i] = gate[i] * p * d[i];
    }
}

#[inline(always)]
fn dequantize_int8<S: Simd>(_: S, codes: &[i8], step: f32, out: &mut [f32]) {
    assert_eq!(codes.len(), out.len(), "dequantize_int8: lengths differ");
    for (out, code) in out.iter_mut().zip(codes) {
        *out = f32::from(*code) * step;
    }
}

#[inline(always)]
fn cross_entropy_gradient<S: Simd>(s: S, logits: &mut [f32], target: usize, scale: f32) -> f32 {
    let at_target = logits[target];
    let (whole, tail) = logits.as_chunks_mut::<LANES>();
    let mut last = pad(tail, f32::NEG_INFINITY);
    let mut max = s.load(&last);
    for v in whole.iter() {
        max = s.max(max, s.load(v));
    }
    let max = s.max_lane(max);
    let shift = s.splat(max);
    let mut sum = s.splat(0.0);
    for v in whole.iter_mut() {
        let e = exp(s, s.sub(s.load(v), shift));
        s.store(e, v);
        sum = s.add(sum, e);
    }
    let e = exp(s, s.sub(s.load(&last), shift));
    s.store(e, &mut last);
    // Lanes beyond the row hold exp of minus infinity, which is not exactly 0 here.
    last[tail.len()..].fill(0.0);
    let sum = s.sum(s.add(sum, s.load(&last)));
    tail.copy_from_slice(&last[..tail.len()]);
    let factor = scale / sum;
    for v in logits.iter_mut() {
        *v *= factor;
    }
    logits[target] -= scale;
    sum.ln() + (max - at_target)
}

#[inline(always)]
fn adamw<S: Simd>(_: S, step: AdamWStep, g: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let k = g.len();
    assert!(p.len() == k && m.len() == k && v.len() == k, "adamw: lengths differ");
    let keep = 1.0 - step.lr * step.weight_decay;
    let rate = step.lr / step.correction1;
    let root = step.correction2.sqrt();
    let (rest1, rest2) = (1.0 - step.beta1, 1.0 - step.beta2);
    for i in 0..k {
        let g = g[i] * step.gradient_scale;
        m[i] = step.beta1 * m[i] + rest1 * g;
        v[i] = step.beta2 * v[i] + rest2 * (g * g);
        p[i] = p[i] * keep - rate * (m[i] / (v[i].sqrt() / root + step.eps));
    }
}

#[inline(always)]
fn ternarize<S: Simd>(_: S, w: &[f32], mean: f32, trits: &mut [i8], out: &mut [f32]) {
    assert!(w.len() == trits.len() && w.len() == out.len(), "ternarize: lengths differ");
    ternarize_one(w, (1.0 / mean, crate::quantize::weight_scale(mean)), trits, out);
}

#[inline(always)]
fn ternarize_one(w: &[f32], (factor, scale): (f32, f32), trits: &mut [i8], out: &mut [f32]) {
    // 1.5 * 2^23: adding it rounds to an integer, half to even.
    const ROUNDER: f32 = 12_582_912.0;
    for i in 0..w.len() {
        let t = (w[i] * factor).clamp(-1.0, 1.0) + ROUNDER - ROUNDER;
        out[i] = t * scale;
        trits[i] = t as i8;
    }
}

#[inline(always)]
fn ternarize_groups<S: Simd>(_: S, w: &[f32], group_len: usize, scales: &[f32], trits: &mut [i8], out: &mut [f32]) {
    let k = scales.len() * group_len;
    assert!(group_len > 0 && w.len() == k && trits.len() == k && out.len() == k, "ternarize_groups: lengths differ");
    let outputs = trits.chunks_exact_mut(group_len).zip(out.chunks_exact_mut(group_len));
    for ((w, &d), (trits, out)) in w.chunks_exact(group_len).zip(scales).zip(outputs) {
        ternarize_one(w, (1.0 / d, d), trits, out);
    }
}

#[inline(always)]
fn dequantize_int16<S: Simd>(_: S, digits: &[i8], step: f32, out: &mut [f32]) {
    assert!(digits.len() >= 2 * out.len().next_multiple_of(LANES), "dequantize_int16: {} digits", digits.len());
    for (out, digits) in out.chunks_mut(LANES).zip(digits.chunks_exact(2 * LANES)) {
        let (hi, lo) = digits.split_at(LANES);
        for (i, out) in out.iter_mut().enumerate() {
            *out = (256.0 * f32::from(hi[i]) + f32::from(lo[i])) * step;
        }
    }
}

#[inline(always)]
fn exp_columns<S: Simd>(s: S, shift: &[f32], x: &mut [f32]) {
    let n = shift.len();
    assert!(n > 0 && x.len().is_multiple_of(n), "exp_columns: {} elements in {n} columns", x.len());
    let (shifts, shift_tail) = shift.as_chunks::<LANES>();
    let shift_last = pad(shift_tail, 0.0);
    for row in x.chunks_exact_mut(n) {
        let (whole, tail) = row.as_chunks_mut::<LANES>();
        for (x, shift) in whole.iter_mut().zip(shifts) {
            s.store(exp(s, s.sub(s.load(x), s.load(shift))), x);
        }
        if !tail.is_empty() {
            let mut last = pad(tail, 0.0);
            s.store(exp(s, s.sub(s.load(&last), s.load(&shift_last))), &mut last);
            tail.copy_from_slice(&last[..tail.len()]);
        }
    }
}

#[inline(always)]
fn max_columns<S: Simd>(_: S, x: &[f32], out: &mut [f32]) {
    let n = out.len();
    assert!(n > 0 && x.len().is_multiple_of(n), "max_columns: {} elements in {n} columns", x.len());
    for row in x.chunks_exact(n) {
        for (out, v) in out.iter_mut().zip(row) {
            *out = if *v > *out { *v } else { *out };
        }
    }
}

#[inline(always)]
fn add_columns<S: Simd>(_: S, x: &[f32], out: &mut [f32]) {
    let n = out.len();
    assert!(n > 0 && x.len().is_multiple_of(n), "add_columns: {} elements in {n} columns", x.len());
    for row in x.chunks_exact(n) {
        for (out, v) in out.iter_mut().zip(row) {
            *out += *v;
        }
    }
}

#[inline(always)]
fn softmax_gradient_columns<S: Simd>(_: S, p: &[f32], d: &[f32], dp: &mut [f32]) {
    let n = d.len();
    assert!(n > 0 && p.len() == dp.len() && p.len().is_multiple_of(n), "softmax_gradient_columns: lengths do not fit");
    for (p, dp) in p.chunks_exact(n).zip(dp.chunks_exact_mut(n)) {
        for i in 0..n {
            dp[i] = p[i] * (dp[i] - d[i]);
        }
    }
}
