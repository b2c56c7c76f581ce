//! Depthwise causal convolution.

use candle_core::{Result, Tensor};
use candle_nn::{Init, Module, VarBuilder};

/// `y[t, c] = bias[c] + sum_j weight[c, j] x[t - k + 1 + j, c]`, with zeros before the first token, for each
/// channel separately, without an activation. `x` and `y` are `[B, T, C]`.
#[derive(Clone, Debug)]
pub struct CausalConv {
    /// `[C, 1, k]`
    weight: Tensor,
    /// `[C]`
    bias: Tensor,
}

impl CausalConv {
    /// The convolution whose `weight` `[C, 1, k]` and `bias` `[C]` are under `vb`, or are created there.
    ///
    /// # Errors
    /// Errors of candle: no such tensor, another shape.
    pub fn new(channels: usize, kernel: usize, vb: VarBuilder) -> Result<Self> {
        let bound = 1.0 / (kernel as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        Ok(Self {
            weight: vb.get_with_hints((channels, 1, kernel), "weight", init)?,
            bias: vb.get_with_hints(channels, "bias", init)?,
        })
    }

    /// `[C, 1, k]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `[C]`.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }
}

impl Module for CausalConv {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (channels, _, kernel) = self.weight.dims3()?;
        let tokens = x.dim(1)?;
        let padded = x.pad_with_zeros(1, kernel - 1, 0)?;
        let mut y = self.bias.reshape((1, 1, channels))?.broadcast_as(x.shape())?;
        for j in 0..kernel {
            let tap = self.weight.narrow(2, j, 1)?.reshape((1, 1, channels))?;
            y = (y + padded.narrow(1, j, tokens)?.broadcast_mul(&tap)?)?;
        }
        Ok(y)
    }
}
