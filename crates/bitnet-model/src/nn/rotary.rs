//! Rotary position embedding in the half-rotation convention.

use candle_core::{D, DType, Device, Result, Tensor};

use crate::{ModelConfig, RopeScaling};

/// Rotary position embedding: at position `p`, the pair `(x_i, x_{i + d/2})` of a head of width `d` is rotated by the
/// angle `p * theta^(-2i/d)`.
#[derive(Clone, Debug)]
pub struct Rotary {
    frequencies: Vec<f64>,
}

/// Cosines and sines of a range of positions, each `[t, d/2]` f32.
#[derive(Clone, Debug)]
pub struct RotaryTables {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// For heads of width `head_dim` (even) and base `theta`.
    pub fn new(head_dim: usize, theta: f64) -> Self {
        let frequency = |i: usize| theta.powf(-((2 * i) as f64) / head_dim as f64);
        Self { frequencies: (0..head_dim / 2).map(frequency).collect() }
    }

    /// For the heads of a model, with the scaling of its configuration.
    pub fn of(config: &ModelConfig) -> Self {
        match config.rope_scaling {
            RopeScaling::None => Self::new(config.head_dim, config.rope_theta),
            _ => Self { frequencies: config.rope_frequencies().into_iter().map(f64::from).collect() },
        }
    }

    /// Tables for positions `start..start + len`. Angles are computed in f64 and rounded once, as cosine and sine.
    ///
    /// # Errors
    /// Any error of candle.
    pub fn tables(&self, start: usize, len: usize, device: &Device) -> Result<RotaryTables> {
        let half = self.frequencies.len();
        let angles = || (start..start + len).flat_map(|p| self.frequencies.iter().map(move |f| p as f64 * f));
        let table = |f: fn(f64) -> f64| {
            Tensor::from_vec(angles().map(|a| f(a) as f32).collect::<Vec<f32>>(), (len, half), device)
        };
        Ok(RotaryTables { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }
}

impl RotaryTables {
    /// Rotates `x` `[b, heads, t, d]`, whose `t` positions are those of the tables: `y_i = x_i cos - x_{i+d/2} sin`,
    /// `y_{i+d/2} = x_{i+d/2} cos + x_i sin`. Computed in f32, returned in the dtype of `x`.
    ///
    /// # Errors
    /// Errors of candle, for shapes that do not fit the tables.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let half = x.dim(D::Minus1)? / 2;
        let wide = x.to_dtype(DType::F32)?;
        let (a, b) = (wide.narrow(D::Minus1, 0, half)?, wide.narrow(D::Minus1, half, half)?);
        let (cos, sin) = (&self.cos, &self.sin);
        let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
        let second = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
        Tensor::cat(&[first, second], D::Minus1)?.to_dtype(x.dtype())
    }
}
