//! Quantisation of activations to int8, one scale per token (absmax).
//!
//! Paper: arXiv:2402.17764, section 2; rounds half to even like the published checkpoints.

use super::lanes::{Simd, pad};
use super::norm::{apply, rms_norm_inv};
use crate::{Int8RowMut, KernelError};

/// The lower limit of the largest activation of a token, so that a row of zeros has a finite scale.
pub(super) const LEAST_ABSMAX: f32 = 1e-5;

/// Bits of infinity: values from here on are infinite or NaN.
pub(super) const NOT_FINITE: i32 = 0x7f80_0000;

ops! {
    /// Quantises one token, `x` is `[k]` f32: `s = 127 / max(max_i |x[i]|, 1e-5)`, `q[i] = round(x[i] * s)`, ties to
    /// even. Completes `row` with the codes, which lie in -127..=127, their sum and `s`.
    ///
    /// # Errors
    /// [`KernelError::NonFiniteActivation`] if an activation is NaN or infinite; `row` is then unfinished.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn quantize_int8(x: &[f32], row: Int8RowMut<'_>) -> Result<(), KernelError> = quantize_plain;

    /// [`Ops::rms_norm`](crate::Ops::rms_norm) and [`Ops::quantize_int8`](crate::Ops::quantize_int8) of its result,
    /// fused, with the same bits and no buffer in between; `x` and `gain` are `[k]` f32.
    ///
    /// # Errors
    /// The errors of [`Ops::quantize_int8`](crate::Ops::quantize_int8), with the value after the norm.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm_quantize(x: &[f32], gain: &[f32], eps: f32, row: Int8RowMut<'_>) -> Result<(), KernelError> = rms_norm_quantize;
}

/// The values to quantise: computed again in both passes over the row, which costs less than a buffer.
pub(super) trait Source: Copy {
    fn len(self) -> usize;
    /// The `j`-th whole vector.
    fn vector<S: Simd>(self, s: S, j: usize) -> S::F;
    /// The rest of the row, padded with zeros.
    fn tail<S: Simd>(self, s: S) -> S::F;
}

#[derive(Clone, Copy)]
pub(super) struct Plain<'a>(pub(super) &'a [f32]);

impl Source for Plain<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn vector<S: Simd>(self, s: S, j: usize) -> S::F {
        s.load(&self.0.as_chunks().0[j])
    }
    #[inline(always)]
    fn tail<S: Simd>(self, s: S) -> S::F {
        s.load(&pad(self.0.as_chunks::<16>().1, 0.0))
    }
}

#[derive(Clone, Copy)]
pub(super) struct Normed<'a> {
    pub(super) x: &'a [f32],
    pub(super) gain: &'a [f32],
    pub(super) inv: f32,
}

impl Source for Normed<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.x.len()
    }
    #[inline(always)]
    fn vector<S: Simd>(self, s: S, j: usize) -> S::F {
        apply(s, Plain(self.x).vector(s, j), s.splat(self.inv), Plain(self.gain).vector(s, j))
    }
    #[inline(always)]
    fn tail<S: Simd>(self, s: S) -> S::F {
        apply(s, Plain(self.x).tail(s), s.splat(self.inv), Plain(self.gain).tail(s))
    }
}

#[inline(always)]
fn quantize_plain<S: Simd>(s: S, x: &[f32], row: Int8RowMut<'_>) -> Result<(), KernelError> {
    quantize(s, Plain(x), row)
}

#[inline(always)]
fn rms_norm_quantize<S: Simd>(s: S, x: &[f32], gain: &[f32], eps: f32, row: Int8RowMut<'_>) -> Result<(), KernelError> {
    assert_eq!(x.len(), gain.len(), "rms_norm_quantize: {} elements, {} gains", x.len(), gain.len());
    quantize(s, Normed { x, gain, inv: rms_norm_inv(s, x, eps) }, row)
}

#[inline(always)]
fn quantize<S: Simd>(s: S, x: impl Source, mut row: Int8RowMut<'_>) -> Result<(), KernelError> {
    let codes = row.codes_mut();
    assert_eq!(x.len(), codes.len(), "{} activations for a row of {}", x.len(), codes.len());
    let (codes, codes_tail) = codes.as_chunks_mut();

    // Absolute values are compared as integers, which orders infinity and then NaN above all numbers: one comparison
    // finds both the maximum and non-finite values.
    let mut max = s.abs_bits(x.tail(s));
    for j in 0..codes.len() {
        max = s.max_i(max, s.abs_bits(x.vector(s, j)));
    }
    let max = s.max_lane_i(max);
    if max >= NOT_FINITE {
        return Err(non_finite(s, x, codes.len()));
    }
    let scale = 127.0 / f32::from_bits(max as u32).max(LEAST_ABSMAX);

    // No clamp: with u = 2^-24, |x| <= max gives |x * scale| <= 127 (1 + u)^2 < 127.5, which rounds to at most 127.
    let factor = s.splat(scale);
    let mut sum = s.splat_i(0);
    for (j, codes) in codes.iter_mut().enumerate() {
        let q = s.to_i(s.mul(x.vector(s, j), factor));
        sum = s.add_i(sum, q);
        s.store_i8(q, codes);
    }
    if !codes_tail.is_empty() {
        let q = s.to_i(s.mul(x.tail(s), factor));
        sum = s.add_i(sum, q);
        let mut last = [0; 16];
        s.store_i8(q, &mut last);
        codes_tail.copy_from_slice(&last[..codes_tail.len()]);
    }
    row.finish(scale, s.sum_i(sum));
    Ok(())
}

/// Returns the error for the first value that is not finite.
#[inline(never)]
#[cold]
pub(super) fn non_finite<S: Simd>(s: S, x: impl Source, vectors: usize) -> KernelError {
    let mut lanes = [0.0; 16];
    for j in 0..=vectors {
        s.store(if j < vectors { x.vector(s, j) } else { x.tail(s) }, &mut lanes);
        if let Some(l) = lanes.iter().position(|v| !v.is_finite()) {
            return KernelError::NonFiniteActivation { position: 16 * j + l, value: lanes[l] };
        }
    }
    unreachable!("the maximum of the absolute values is not finite, so one of them is not")
}
