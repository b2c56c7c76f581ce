//! RMSNorm, differentiable.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::{Module, VarBuilder};

/// `y = g * cast(x / sqrt(mean(x^2) + eps))` over the last dimension: statistics in f32, the quotient cast to the dtype
/// of `x`, then multiplied by the gain `g` `[n]`. `x` and `y` are `[.., n]`.
///
/// candle_nn's `RmsNorm` calls a fused operation without a gradient; this one consists of operations that have one.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    gain: Tensor,
    eps: f32,
}

/// A norm whose gain `[n]` is called `weight` under `vb`; created there with ones if `vb` creates variables.
///
/// # Errors
/// Errors of candle: no such tensor, another shape.
pub fn rms_norm(n: usize, eps: f32, vb: VarBuilder) -> Result<RmsNorm> {
    Ok(RmsNorm::new(vb.get_with_hints(n, "weight", candle_nn::Init::Const(1.0))?, eps))
}

impl RmsNorm {
    /// A norm with gain `gain` `[n]`.
    pub fn new(gain: Tensor, eps: f32) -> Self {
        Self { gain, eps }
    }

    /// The gain, `[n]`.
    pub fn gain(&self) -> &Tensor {
        &self.gain
    }
}

impl Module for RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.to_dtype(DType::F32)?;
        let mean_square = wide.sqr()?.mean_keepdim(D::Minus1)?;
        let rms = (mean_square + f64::from(self.eps))?.sqrt()?;
        wide.broadcast_div(&rms)?.to_dtype(x.dtype())?.broadcast_mul(&self.gain)
    }
}
