//! The quantisers of BitNet b1.58 and BitNet v2 and their straight-through gradient, in candle operations.
//!
//! Paper: arXiv:2504.18415, equations 1, 2, 5 and 6.

use candle_core::{D, DType, Result, Tensor};
use ternary_kernels::INT16_MAX;
use ternary_kernels::quantize::{MIN_ABS, SQRT_7};

/// Largest magnitude of an activation code.
pub const ACT_MAX: f64 = 127.0;

/// Lower limit of the absmax of a token and of the absmean of a weight matrix, so that zeros can be divided.
pub const MIN_MAGNITUDE: f64 = MIN_ABS as f64;

/// `1.5 * 2^23`: in `(v + this) - this` the first sum has no bits left for a fraction, so f32 addition itself rounds
/// `v`, half to even, for every `|v| <= 2^22`. candle's `round` rounds half away from zero, which would be another
/// model.
const ROUNDER: f64 = 12_582_912.0;

/// Rounds half to even; `v` is f32 with `|v| <= 2^22`. NaN stays NaN.
fn round_half_even(v: &Tensor) -> Result<Tensor> {
    debug_assert_eq!(v.dtype(), DType::F32);
    // Two operations on purpose: a fused `v + (M - M)` would do nothing.
    let shifted = (v + ROUNDER)?;
    shifted - ROUNDER
}

/// The straight-through estimator: the value of `q`, the gradient of `v`. Both have the same shape and dtype.
///
/// Usually written `v + (q - v).detach()`, which rounds twice and so returns *almost* `q`. This is
/// `q.detach() + (v - v.detach())`: the bracket is exactly 0 for finite `v`, so the value is `q` bit for bit. It is
/// needed because candle silently gives `round` no gradient.
///
/// # Errors
/// Errors of candle, for shapes or dtypes that differ.
pub fn straight_through(v: &Tensor, q: &Tensor) -> Result<Tensor> {
    if v.track_op() { q.detach() + (v - v.detach())? } else { Ok(q.detach()) }
}

/// Int8 codes of activations and their scales, one per token (row).
///
/// For `x` `[.., k]` of any float dtype returns `codes` `[.., k]` f32 holding integers in -127..=127 and `s` `[.., 1]`
/// f32: `s = 127 / max(max_j |x_j|, 1e-5)`, `codes = round_half_even(x * s)`; `codes / s` stands for `x`. The gradient
/// of `codes` is that of `x * s` with constant `s`.
///
/// ```
/// use bitnet_model::nn::activation_codes;
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[127f32, 0.5, 1.5, -0.5, 2.5]], &Device::Cpu)?;
/// let (codes, scale) = activation_codes(&x)?;
/// assert_eq!(codes.to_vec2::<f32>()?, [[127., 0., 2., 0., 2.]]); // halves go to the even neighbour
/// assert_eq!(scale.to_vec2::<f32>()?, [[1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// Errors of candle; a rank of 0.
pub fn activation_codes(x: &Tensor) -> Result<(Tensor, Tensor)> {
    absmax_codes(x, ACT_MAX)
}

fn absmax_codes(x: &Tensor, most: f64) -> Result<(Tensor, Tensor)> {
    let x = x.to_dtype(DType::F32)?;
    let absmax = x.detach().abs()?.max_keepdim(D::Minus1)?.maximum(MIN_MAGNITUDE)?;
    // A division, not `most` times a rounded reciprocal: the last bit of the scale can decide a code.
    let scale = (absmax.ones_like()? * most)?.div(&absmax)?;
    let scaled = x.broadcast_mul(&scale)?;
    // No clamp: |x| * s exceeds `most` only by rounding, and rounds back to it; and a clamp could hide a NaN.
    let codes = straight_through(&scaled, &round_half_even(&scaled.detach())?)?;
    Ok((codes, scale))
}

/// Int4 codes of activations and their scales, one per token (row).
///
/// For `x` `[.., k]` of any float dtype returns `codes` `[.., k]` f32 holding integers in -8..=7 and `s` `[.., 1]` f32:
/// `s = sqrt(7) / max(mean_j |x_j|, 1e-5)`, `codes = clamp(round_half_even(x * s), -8, 7)`; `codes / s` stands for `x`
/// unless it saturates. The mean is computed in f64 (in f32 on Metal, which has no f64). The gradient of `codes` is
/// that of `x * s` with constant `s`, even if a value is clamped.
///
/// # Errors
/// Errors of candle; a rank of 0.
pub fn activation_codes_int4(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let x = x.to_dtype(DType::F32)?;
    let wide = if x.device().is_metal() { DType::F32 } else { DType::F64 };
    let mean = x.detach().abs()?.to_dtype(wide)?.mean_keepdim(D::Minus1)?.to_dtype(DType::F32)?;
    let mean = mean.maximum(MIN_MAGNITUDE)?;
    let scale = (mean.ones_like()? * f64::from(SQRT_7))?.div(&mean)?;
    let scaled = x.broadcast_mul(&scale)?;
    // Clamped before rounding, which gives the same integers and keeps outliers within the rounder's range.
    let codes = round_half_even(&scaled.detach().clamp(-8f32, 7f32)?)?;
    Ok((straight_through(&scaled, &codes)?, scale))
}

/// Int16 codes of activations and their scales, one per token (row), for weights with a scale per group.
///
/// For `x` `[.., k]` of any float dtype returns `codes` `[.., k]` f32 holding integers in -32639..=32639 and `s` `[..,
/// 1]` f32: `s = 32639 / max(max_j |x_j|, 1e-5)`, `codes = round_half_even(x * s)`; `codes / s` stands for `x`. The
/// bits are those of [`ternary_kernels::Ops::quantize_int16`]. The gradient of `codes` is that of `x * s` with constant
/// `s`.
///
/// # Errors
/// Errors of candle; a rank of 0.
pub fn activation_codes_int16(x: &Tensor) -> Result<(Tensor, Tensor)> {
    absmax_codes(x, f64::from(INT16_MAX))
}

/// Activations as the model uses them after int8 quantisation: `codes / s` of [`activation_codes`], in the shape and
/// dtype of `x`, with the gradient of the identity.
///
/// # Errors
/// The errors of [`activation_codes`].
pub fn quantize_activations(x: &Tensor) -> Result<Tensor> {
    let (codes, scale) = activation_codes(x)?;
    codes.broadcast_div(&scale)?.to_dtype(x.dtype())
}

/// Trits of a master weight and their scale.
///
/// For `w` `[out, in]` of any float dtype returns `trits` `[out, in]` f32 in {-1, 0, 1} and `alpha` `[]` f32: with
/// `s = 1 / max(mean |w|, 1e-5)`, `trits = clamp(round_half_even(w * s), -1, 1)` and `alpha = 1 / s`; `alpha * trits`
/// stands for `w`. The bits are those of [`ternary_kernels::quantize::absmean_quantize`]. The mean is computed in f64
/// (in f32 on Metal, which has no f64), so it does not depend on the order of summation. The gradient of `trits` is
/// that of `w * s` with constant `s`, even if a value is clamped.
///
/// # Errors
/// Any error of candle.
pub fn weight_trits(w: &Tensor) -> Result<(Tensor, Tensor)> {
    let w = w.to_dtype(DType::F32)?;
    let wide = if w.device().is_metal() { DType::F32 } else { DType::F64 };
    let mean = w.detach().abs()?.to_dtype(wide)?.mean_all()?;
    let factor = mean.to_dtype(DType::F32)?.maximum(MIN_MAGNITUDE)?.recip()?;
    let scaled = w.broadcast_mul(&factor)?;
    // Clamped before rounding, which gives the same integers and keeps outliers within the rounder's range.
    let trits = round_half_even(&scaled.detach().clamp(-1f32, 1f32)?)?;
    Ok((straight_through(&scaled, &trits)?, factor.recip()?))
}

/// Trits of a master weight with a scale for each `len` weights of a row.
///
/// For `w` `[out, in]` of any float dtype returns `trits` `[out, in]` f32 in {-1, 0, 1} and scales `[out, in / len]`
/// f32, each the mean `max(mean |w|, 1e-5)` of a group, rounded to f16:
/// `trits = clamp(round_half_even(w * (1 / d)), -1, 1)`. The bits are those of
/// [`ternary_kernels::quantize::absmean_quantize_groups`], except that the scale of a group of zeros is kept. The
/// gradient of `trits` is that of `w * (1 / d)` with constant `d`, even if a value is clamped.
///
/// # Errors
/// Rows that are not whole groups; errors of candle.
pub fn weight_trits_in_groups(w: &Tensor, len: usize) -> Result<(Tensor, Tensor)> {
    let w = w.to_dtype(DType::F32)?;
    let (rows, cols) = w.dims2()?;
    if len == 0 || !cols.is_multiple_of(len) {
        candle_core::bail!("rows of {cols} weights are not whole groups of {len}");
    }
    let groups = w.reshape((rows, cols / len, len))?;
    let wide = if w.device().is_metal() { DType::F32 } else { DType::F64 };
    let mean = groups.detach().abs()?.to_dtype(wide)?.mean_keepdim(D::Minus1)?;
    let scale = mean.to_dtype(DType::F32)?.maximum(MIN_MAGNITUDE)?.to_dtype(DType::F16)?.to_dtype(DType::F32)?;
    let scaled = groups.broadcast_mul(&scale.recip()?)?;
    let trits = round_half_even(&scaled.detach().clamp(-1f32, 1f32)?)?;
    Ok((straight_through(&scaled, &trits)?.reshape((rows, cols))?, scale.squeeze(2)?))
}

/// A master weight as the model uses it: `alpha * trits` of [`weight_trits`], in the shape and dtype of `w`, with the
/// gradient of the identity.
///
/// # Errors
/// The errors of [`weight_trits`].
pub fn quantize_weights(w: &Tensor) -> Result<Tensor> {
    let (trits, alpha) = weight_trits(w)?;
    trits.broadcast_mul(&alpha)?.to_dtype(w.dtype())
}
