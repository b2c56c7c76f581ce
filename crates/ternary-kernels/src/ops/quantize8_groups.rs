//! Quantisation of activations to int8, one scale for each group of a token (absmax), for weights with a scale per
//! group.

use super::lanes::{LANES, Simd};
use super::norm::rms_norm_inv;
use super::quantize::{LEAST_ABSMAX, NOT_FINITE, Normed, Plain, Source, non_finite};
use crate::{Int8GroupRowMut, KernelError};

ops! {
    /// Quantises one token, `x` is `[k]` f32. For each group of the row: `s = 127 / max(max_i |x[i]|, 1e-5)`, `q[i] = round(x[i] * s)`,
    /// ties to even, and the step `1 / s`. Completes `row` with the codes, which lie in -127..=127, and the steps.
    ///
    /// # Errors
    /// [`KernelError::NonFiniteActivation`] if an activation is NaN or infinite; `row` is then unfinished.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn quantize_int8_groups(x: &[f32], row: Int8GroupRowMut<'_>) -> Result<(), KernelError> = quantize_plain;

    /// [`Ops::rms_norm`](crate::Ops::rms_norm) and [`Ops::quantize_int8_groups`](crate::Ops::quantize_int8_groups) of
    /// its result, fused, with the same bits and no buffer in between; `x` and `gain` are `[k]` f32.
    ///
    /// # Errors
    /// The errors of [`Ops::quantize_int8_groups`](crate::Ops::quantize_int8_groups), with the value after the norm.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm_quantize_int8_groups(
        x: &[f32],
        gain: &[f32],
        eps: f32,
        row: Int8GroupRowMut<'_>,
    ) -> Result<(), KernelError> = rms_norm_quantize;
}

#[inline(always)]
fn quantize_plain<S: Simd>(s: S, x: &[f32], row: Int8GroupRowMut<'_>) -> Result<(), KernelError> {
    quantize(s, Plain(x), row)
}

#[inline(always)]
fn rms_norm_quantize<S: Simd>(
    s: S,
    x: &[f32],
    gain: &[f32],
    eps: f32,
    row: Int8GroupRowMut<'_>,
) -> Result<(), KernelError> {
    assert_eq!(x.len(), gain.len(), "rms_norm_quantize_int8_groups: {} elements, {} gains", x.len(), gain.len());
    quantize(s, Normed { x, gain, inv: rms_norm_inv(s, x, eps) }, row)
}

#[inline(always)]
fn quantize<S: Simd>(s: S, x: impl Source, mut row: Int8GroupRowMut<'_>) -> Result<(), KernelError> {
    // Groups are multiples of 64 activations, so only the last one ends within a vector.
    let per_group = row.group_len() / LANES;
    let (codes, steps) = row.parts_mut();
    assert_eq!(x.len(), codes.len(), "{} activations for a row of {}", x.len(), codes.len());
    let (codes, codes_tail) = codes.as_chunks_mut::<LANES>();
    let (vectors, all) = (codes.len(), x.len().div_ceil(LANES));
    let mut sum = s.splat_i(0);
    for (g, step) in steps.iter_mut().enumerate() {
        let (first, last) = (g * per_group, all.min((g + 1) * per_group));
        // As in `quantize_int8`.
        let mut max = s.splat_i(0);
        for j in first..last {
            let v = if j < vectors { x.vector(s, j) } else { x.tail(s) };
            max = s.max_i(max, s.abs_bits(v));
        }
        let max = s.max_lane_i(max);
        if max >= NOT_FINITE {
            return Err(non_finite(s, x, vectors));
        }
        let scale = 127.0 / f32::from_bits(max as u32).max(LEAST_ABSMAX);
        *step = 1.0 / scale;
        let factor = s.splat(scale);
        for j in first..last {
            if let Some(codes) = codes.get_mut(j) {
                let q = s.to_i(s.mul(x.vector(s, j), factor));
                sum = s.add_i(sum, q);
                s.store_i8(q, codes);
            } else {
                let q = s.to_i(s.mul(x.tail(s), factor));
                sum = s.add_i(sum, q);
                let mut tail = [0; LANES];
                s.store_i8(q, &mut tail);
                codes_tail.copy_from_slice(&tail[..codes_tail.len()]);
            }
        }
    }
    row.finish(s.sum_i(sum));
    Ok(())
}
