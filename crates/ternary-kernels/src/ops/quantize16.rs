//! Quantisation of activations to int16 in two digits, one scale per token (absmax), for weights with a scale per
//! group.

use super::lanes::{LANES, Simd};
use super::norm::rms_norm_inv;
use super::quantize::{LEAST_ABSMAX, NOT_FINITE, Normed, Plain, Source, non_finite};
use crate::INT16_MAX;
use crate::{Int16RowMut, KernelError};

ops! {
    /// Quantises one token, `x` is `[k]` f32: `s = 32639 / max(max_i |x[i]|, 1e-5)`, `q[i] = round(x[i] * s)`, ties to
    /// even. Completes `row` with the codes, which lie in -32639..=32639, their sums and `s`.
    ///
    /// # Errors
    /// [`KernelError::NonFiniteActivation`] if an activation is NaN or infinite; `row` is then unfinished.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn quantize_int16(x: &[f32], row: Int16RowMut<'_>) -> Result<(), KernelError> = quantize_plain;

    /// [`Ops::rms_norm`](crate::Ops::rms_norm) and [`Ops::quantize_int16`](crate::Ops::quantize_int16) of its result,
    /// fused, with the same bits and no buffer in between; `x` and `gain` are `[k]` f32.
    ///
    /// # Errors
    /// The errors of [`Ops::quantize_int16`](crate::Ops::quantize_int16), with the value after the norm.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm_quantize_int16(x: &[f32], gain: &[f32], eps: f32, row: Int16RowMut<'_>) -> Result<(), KernelError>
        = rms_norm_quantize;
}

#[inline(always)]
fn quantize_plain<S: Simd>(s: S, x: &[f32], row: Int16RowMut<'_>) -> Result<(), KernelError> {
    quantize(s, Plain(x), row)
}

#[inline(always)]
fn rms_norm_quantize<S: Simd>(
    s: S,
    x: &[f32],
    gain: &[f32],
    eps: f32,
    row: Int16RowMut<'_>,
) -> Result<(), KernelError> {
    assert_eq!(x.len(), gain.len(), "rms_norm_quantize_int16: {} elements, {} gains", x.len(), gain.len());
    quantize(s, Normed { x, gain, inv: rms_norm_inv(s, x, eps) }, row)
}

#[inline(always)]
fn quantize<S: Simd>(s: S, x: impl Source, mut row: Int16RowMut<'_>) -> Result<(), KernelError> {
    assert_eq!(x.len(), row.k(), "{} activations for a row of {}", x.len(), row.k());
    let vectors = x.len() / LANES;

    // As in `quantize_int8`.
    let mut max = s.abs_bits(x.tail(s));
    for j in 0..vectors {
        max = s.max_i(max, s.abs_bits(x.vector(s, j)));
    }
    let max = s.max_lane_i(max);
    if max >= NOT_FINITE {
        return Err(non_finite(s, x, vectors));
    }
    let scale = f32::from(INT16_MAX) / f32::from_bits(max as u32).max(LEAST_ABSMAX);

    // No clamp: with u = 2^-24, |x| <= max gives |x * scale| <= 32639 (1 + u)^2 < 32639.5, which rounds to at most
    // 32639.
    let factor = s.splat(scale);
    for j in 0..x.len().div_ceil(LANES) {
        let v = if j < vectors { x.vector(s, j) } else { x.tail(s) };
        write(s, j, s.to_i(s.mul(v, factor)), &mut row);
    }
    row.finish(scale);
    Ok(())
}

/// Writes 16 codes as digits.
#[inline(always)]
fn write<S: Simd>(s: S, j: usize, q: S::I, row: &mut Int16RowMut<'_>) {
    // The upper digit is `floor((q + 128) / 256)`, which is `(q + 0.25) / 256` rounded to nearest: both are exact in
    // f32, and no sum is half way between two digits, where rounding would choose the even one.
    let upper = s.to_i(s.mul(s.add(s.to_f(q), s.splat(0.25)), s.splat(1.0 / 256.0)));
    let (mut hi, mut lo) = ([0; LANES], [0; LANES]);
    s.store_i8(upper, &mut hi);
    // The low byte as an i8 is `q - 256 * hi`.
    s.store_i8(q, &mut lo);
    row.write(j, &hi, &lo, s.sum_i(q));
}
