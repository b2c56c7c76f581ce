//! Quantisation of activations to int4, one scale per token (absmean).
//!
//! Paper: arXiv:2504.18415, equation 6. The step is `mean|x| / sqrt(7)`, so large values saturate: about 2.5 % of the
//! values of a Gaussian. A Hadamard transform before it makes activations with outliers nearly Gaussian.

use super::lanes::{LANES, Simd, pad};
use super::norm::rms_norm_inv;
use super::quantize::{NOT_FINITE, Normed, Plain, Source, non_finite};
use super::reduce::{TURNS, total};
use crate::quantize::{MIN_ABS, SQRT_7};
use crate::{Int4RowMut, KernelError};

ops! {
    /// Quantises one token, `x` is `[k]` f32: `s = sqrt(7) / max(mean_i |x[i]|, 1e-5)`,
    /// `q[i] = clamp(round(x[i] * s), -8, 7)`, ties to even; absolute values are added in the order of
    /// [`Ops::dot`](crate::Ops::dot). Completes `row` with the codes, their sum and `s`.
    ///
    /// # Errors
    /// [`KernelError::NonFiniteActivation`] if an activation is NaN or infinite, [`KernelError::ActivationsTooLarge`]
    /// if their sum is not finite; `row` is then unfinished.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn quantize_int4(x: &[f32], row: Int4RowMut<'_>) -> Result<(), KernelError> = quantize_plain;

    /// [`Ops::rms_norm`](crate::Ops::rms_norm) and [`Ops::quantize_int4`](crate::Ops::quantize_int4) of its result,
    /// fused, with the same bits and no buffer in between; `x` and `gain` are `[k]` f32.
    ///
    /// # Errors
    /// The errors of [`Ops::quantize_int4`](crate::Ops::quantize_int4), with the value after the norm.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm_quantize_int4(x: &[f32], gain: &[f32], eps: f32, row: Int4RowMut<'_>) -> Result<(), KernelError>
        = rms_norm_quantize;
}

#[inline(always)]
fn quantize_plain<S: Simd>(s: S, x: &[f32], row: Int4RowMut<'_>) -> Result<(), KernelError> {
    quantize(s, Plain(x), row)
}

#[inline(always)]
fn rms_norm_quantize<S: Simd>(s: S, x: &[f32], gain: &[f32], eps: f32, row: Int4RowMut<'_>) -> Result<(), KernelError> {
    assert_eq!(x.len(), gain.len(), "rms_norm_quantize_int4: {} elements, {} gains", x.len(), gain.len());
    quantize(s, Normed { x, gain, inv: rms_norm_inv(s, x, eps) }, row)
}

#[inline(always)]
fn quantize<S: Simd>(s: S, x: impl Source, mut row: Int4RowMut<'_>) -> Result<(), KernelError> {
    assert_eq!(x.len(), row.k(), "{} activations for a row of {}", x.len(), row.k());
    let vectors = x.len() / LANES;

    let mut sums = [s.splat(0.0); TURNS];
    let mut max = s.splat_i(0);
    let mut j = 0;
    while j <= vectors {
        // As in `dot_tile`, turns are constants once unrolled.
        for (turn, sum) in sums.iter_mut().enumerate() {
            if j + turn <= vectors {
                let v = vector(s, x, j + turn, vectors);
                max = s.max_i(max, s.abs_bits(v));
                *sum = s.add(*sum, s.max(s.sub(s.splat(0.0), v), v));
            }
        }
        j += TURNS;
    }
    if s.max_lane_i(max) >= NOT_FINITE {
        return Err(non_finite(s, x, vectors));
    }
    // Lengths are far below 2^24, so the count is exact.
    let mean = total(s, sums) / x.len().max(1) as f32;
    if !mean.is_finite() {
        return Err(too_large(s, x, vectors));
    }
    let scale = SQRT_7 / mean.max(MIN_ABS);

    let factor = s.splat(scale);
    let mut sum = s.splat_i(0);
    let mut halves = [[0; LANES]; 2];
    for group in 0..x.len().div_ceil(2 * LANES) {
        for (half, codes) in halves.iter_mut().enumerate() {
            let j = 2 * group + half;
            if j > vectors {
                *codes = [0; LANES];
                continue;
            }
            // Clamped before rounding, which gives the same codes and keeps any product in range.
            let v = s.mul(vector(s, x, j, vectors), factor);
            let q = s.to_i(s.min(s.max(v, s.splat(-8.0)), s.splat(7.0)));
            sum = s.add_i(sum, q);
            s.store_i8(q, codes);
        }
        row.write(group, &halves[0], &halves[1]);
    }
    row.finish(scale, s.sum_i(sum));
    Ok(())
}

/// Vector `j`; after the last whole one, the rest padded with zeros.
#[inline(always)]
fn vector<S: Simd>(s: S, x: impl Source, j: usize, vectors: usize) -> S::F {
    if j < vectors { x.vector(s, j) } else { x.tail(s) }
}

/// Returns the error that names the largest value.
#[inline(never)]
#[cold]
fn too_large<S: Simd>(s: S, x: impl Source, vectors: usize) -> KernelError {
    let (mut position, mut value) = (0, 0.0f32);
    let mut lanes = pad(&[], 0.0);
    for j in 0..=vectors {
        s.store(vector(s, x, j, vectors), &mut lanes);
        for (l, v) in lanes.iter().enumerate() {
            if v.abs() > value.abs() {
                (position, value) = (LANES * j + l, *v);
            }
        }
    }
    KernelError::ActivationsTooLarge { position, value }
}
