//! The parts around the computation of a block that all blocks share.

use crate::engine::linear::Linear;
use crate::{LayerWeights, ModelError, Projection};

/// A branch of the residual stream: the norm of its input, norm and projection of its result, and the norm of its
/// output.
#[derive(Debug)]
pub(in crate::engine) struct Branch {
    pub(in crate::engine) input_norm: Vec<f32>,
    /// Before the output projection.
    pub(in crate::engine) sub_norm: Option<Vec<f32>>,
    pub(in crate::engine) output: Linear,
    /// After the output projection.
    pub(in crate::engine) output_norm: Option<Vec<f32>>,
}

impl Branch {
    /// The branch of a layer's mixer; `linear` packs its projections.
    pub(in crate::engine) fn of_mixer(
        weights: &LayerWeights,
        linear: impl Fn(Projection) -> Result<Linear, ModelError>,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            input_norm: weights.input_norm.clone(),
            sub_norm: weights.attn_sub_norm.clone(),
            output: linear(Projection::O)?,
            output_norm: weights.mixer_out_norm.clone(),
        })
    }

    /// The branch of a layer's feed-forward block.
    pub(in crate::engine) fn of_feed_forward(
        weights: &LayerWeights,
        linear: impl Fn(Projection) -> Result<Linear, ModelError>,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            input_norm: weights.post_attention_norm.clone(),
            sub_norm: weights.ffn_sub_norm.clone(),
            output: linear(Projection::Down)?,
            output_norm: weights.ffn_out_norm.clone(),
        })
    }

    /// Gain of the norm before the output projection: that of the block, or that of the projection.
    pub(super) fn result_norm(&self) -> Option<&[f32]> {
        self.sub_norm.as_deref().or(self.output.norm.as_deref())
    }
}
