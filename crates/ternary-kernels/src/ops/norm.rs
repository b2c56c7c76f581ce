//! RMSNorm.

use super::lanes::{Simd, pad};
use super::reduce::{TURNS, total};

ops! {
    /// `1 / sqrt(mean_i(x[i]^2) + eps)`, `x` is `[k]` f32: the factor of RMSNorm. The squares are summed like in
    /// [`Ops::dot`](crate::Ops::dot); mean, square root and division are each rounded once.
    pub fn rms_norm_inv(x: &[f32], eps: f32) -> f32 = rms_norm_inv;

    /// `out[i] = (x[i] * rms_norm_inv(x, eps)) * gain[i]`, all `[k]` f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) = rms_norm;

    /// [`Ops::rms_norm`](crate::Ops::rms_norm) of `x` in place, `[k]` f32, with the same bits.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm_in_place(x: &mut [f32], gain: &[f32], eps: f32) = rms_norm_in_place;
}

#[inline(always)]
pub(super) fn rms_norm_inv<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    let mut accs = [s.splat(0.0); TURNS];
    let (vectors, tail) = x.as_chunks();
    let (turns, last) = vectors.as_chunks::<TURNS>();
    for vectors in turns {
        for turn in 0..TURNS {
            let v = s.load(&vectors[turn]);
            accs[turn] = s.fma(v, v, accs[turn]);
        }
    }
    // As in `dot_tile`, turns are constants once unrolled.
    for (turn, acc) in accs.iter_mut().enumerate() {
        let v = match last.get(turn) {
            Some(v) => s.load(v),
            None if turn == last.len() => s.load(&pad(tail, 0.0)),
            None => continue,
        };
        *acc = s.fma(v, v, *acc);
    }
    // Lengths are far below 2^24, so the count is exact.
    let mean = total(s, accs) / x.len().max(1) as f32;
    1.0 / (mean + eps).sqrt()
}

/// One vector of the normalised row.
#[inline(always)]
pub(super) fn apply<S: Simd>(s: S, x: S::F, inv: S::F, gain: S::F) -> S::F {
    s.mul(s.mul(x, inv), gain)
}

#[inline(always)]
fn rms_norm<S: Simd>(s: S, x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    assert!(
        x.len() == gain.len() && x.len() == out.len(),
        "rms_norm: {} elements, {} gains, {} results",
        x.len(),
        gain.len(),
        out.len()
    );
    let inv = s.splat(rms_norm_inv(s, x, eps));
    let ((x, x_tail), (gain, gain_tail)) = (x.as_chunks(), gain.as_chunks());
    let (out, out_tail) = out.as_chunks_mut();
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        s.store(apply(s, s.load(x), inv, s.load(gain)), out);
    }
    if !out_tail.is_empty() {
        let mut last = [0.0; 16];
        s.store(apply(s, s.load(&pad(x_tail, 0.0)), inv, s.load(&pad(gain_tail, 0.0))), &mut last);
        out_tail.copy_from_slice(&last[..out_tail.len()]);
    }
}

#[inline(always)]
fn rms_norm_in_place<S: Simd>(s: S, x: &mut [f32], gain: &[f32], eps: f32) {
    assert!(x.len() == gain.len(), "rms_norm_in_place: {} elements, {} gains", x.len(), gain.len());
    let inv = s.splat(rms_norm_inv(s, x, eps));
    let ((x, x_tail), (gain, gain_tail)) = (x.as_chunks_mut(), gain.as_chunks());
    for (x, gain) in x.iter_mut().zip(gain) {
        s.store(apply(s, s.load(x), inv, s.load(gain)), x);
    }
    if !x_tail.is_empty() {
        let mut last = pad(x_tail, 0.0);
        s.store(apply(s, s.load(&last), inv, s.load(&pad(gain_tail, 0.0))), &mut last);
        x_tail.copy_from_slice(&last[..x_tail.len()]);
    }
}
