//! Rotary embedding whose position is that within the mini-batch.

use candle_core::{Device, Result, Tensor};
use ternary_kernels::RopeTable;

use crate::config::{RopePairs, TttConfig};

/// Cosines and sines of one mini-batch.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    pairs: RopePairs,
    /// `[b, d / 2]` f32
    cos: Tensor,
    /// `[b, d / 2]` f32
    sin: Tensor,
}

impl Rope {
    pub(crate) fn new(config: &TttConfig, device: &Device) -> Result<Self> {
        let (b, half) = (config.mini_batch_size, config.head_dim / 2);
        let table = RopeTable::new(b, config.head_dim, config.rope_theta);
        let rows = |row: &dyn Fn(usize) -> Vec<f32>| {
            Tensor::from_vec((0..b).flat_map(row).collect::<Vec<_>>(), (b, half), device)
        };
        Ok(Self {
            pairs: config.rope_pairs,
            cos: rows(&|p| table.cos(p).to_vec())?,
            sin: rows(&|p| table.sin(p).to_vec())?,
        })
    }

    /// Rotates `x` `[B, h, T, d]`, whose first token has position `start`.
    pub(crate) fn apply(&self, x: &Tensor, start: usize) -> Result<Tensor> {
        let (batch, heads, tokens, d) = x.dims4()?;
        let b = self.cos.dim(0)?;
        let positions: Vec<u32> = (start..start + tokens).map(|t| (t % b) as u32).collect();
        let positions = Tensor::from_vec(positions, tokens, x.device())?;
        let angles = |table: &Tensor| table.index_select(&positions, 0)?.to_dtype(x.dtype());
        let (mut cos, mut sin) = (angles(&self.cos)?, angles(&self.sin)?);
        // The dimension of the pair's two elements.
        let (shape, dim): (&[usize], usize) = match self.pairs {
            RopePairs::Neighbours => {
                (cos, sin) = (cos.unsqueeze(2)?, sin.unsqueeze(2)?);
                (&[batch, heads, tokens, d / 2, 2], 4)
            }
            RopePairs::Halves => {
                (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
                (&[batch, heads, tokens, 2, d / 2], 3)
            }
        };
        let x = x.reshape(shape)?;
        let (first, second) = (x.narrow(dim, 0, 1)?, x.narrow(dim, 1, 1)?);
        let turned = [
            (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?,
            (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?,
        ];
        Tensor::cat(&turned, dim)?.reshape((batch, heads, tokens, d))
    }
}
