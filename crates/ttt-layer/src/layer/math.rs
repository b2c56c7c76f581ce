//! The formulas of the inner loop as candle operations, each of which has a gradient.

use candle_core::{D, Result, Tensor};

/// `x` without its mean and over its deviation, and that deviation `sqrt(var + eps)` `[.., 1]`; the variance is the
/// biased one.
fn standardise(x: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let std = (centred.sqr()?.mean_keepdim(D::Minus1)? + f64::from(eps))?.sqrt()?;
    Ok((centred.broadcast_div(&std)?, std))
}

/// `gain * (x - mean) / sqrt(var + eps) + bias` over the last dimension.
pub(crate) fn layer_norm(x: &Tensor, gain: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    standardise(x, eps)?.0.broadcast_mul(gain)?.broadcast_add(bias)
}

/// The gradient of `|LN(z) - target|^2 / 2` with respect to `z`, all `[.., d]`:
/// `(e - mean(e) - x mean(e x)) / std` with `x` the standardised `z` and `e = (LN(z) - target) * gain`.
pub(crate) fn norm_l2_gradient(z: &Tensor, target: &Tensor, gain: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let (x, std) = standardise(z, eps)?;
    let y = x.broadcast_mul(gain)?.broadcast_add(bias)?;
    let e = (y - target)?.broadcast_mul(gain)?;
    let along = (&e * &x)?.mean_keepdim(D::Minus1)?;
    let centred = e.broadcast_sub(&e.mean_keepdim(D::Minus1)?)?;
    (centred - x.broadcast_mul(&along)?)?.broadcast_div(&std)
}

/// sqrt(2 / pi)
const A: f64 = 0.797_884_560_802_865_4;
/// 0.044715 sqrt(2 / pi)
const AB: f64 = A * 0.044_715;

/// The tanh form of gelu, `x (1 + s) / 2` with `s = tanh(sqrt(2 / pi) (x + 0.044715 x^3))`. candle's own has the same
/// values, but its gradient uses constants of six digits.
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    let s = (x * x.sqr()?.affine(AB, A)?)?.tanh()?;
    x * s.affine(0.5, 0.5)?
}

/// The derivative of [`gelu`]: with `u` the argument of its tanh, `(1 + s) / 2 + x (1 - s^2) u' / 2`.
pub(crate) fn gelu_derivative(x: &Tensor) -> Result<Tensor> {
    let square = x.sqr()?;
    let s = (x * square.affine(AB, A)?)?.tanh()?;
    let slope = square.affine(3.0 * AB, A)?;
    let bend = ((x * s.sqr()?.affine(-0.5, 0.5)?)? * slope)?;
    bend + s.affine(0.5, 0.5)?
}

/// Lower triangle of ones, `[n, n]` in the dtype of `like`, diagonal included.
pub(crate) fn lower_triangle(n: usize, like: &Tensor) -> Result<Tensor> {
    let ones: Vec<f32> = (0..n * n).map(|i| if i % n <= i / n { 1.0 } else { 0.0 }).collect();
    Tensor::from_vec(ones, (n, n), like.device())?.to_dtype(like.dtype())
}
