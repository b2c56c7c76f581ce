//! The weights of one layer.

use ternary_kernels::TernaryMatrix;

use super::{DeltaWeights, TttWeights, WeightSource, checked};
use crate::ModelError;
use crate::config::{ModelConfig, Norm, Projection};

/// An optional value for each projection, in the order of [`Projection::ALL`].
type PerProjection<T> = [Option<T>; Projection::ALL.len()];

/// Weights of one layer.
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// Gain of the norm before the convolution of a test-time-training layer's block, if it has one.
    pub pre_conv_norm: Option<Vec<f32>>,
    /// Gain of the norm before the projections of the mixer.
    pub input_norm: Vec<f32>,
    projections: PerProjection<TernaryMatrix>,
    /// Gains of the norms of single projections' inputs.
    projection_norms: PerProjection<Vec<f32>>,
    biases: PerProjection<Vec<f32>>,
    /// Gain of the norm of each head of q, `[head_dim]`, if the model has such norms.
    pub head_q_norm: Option<Vec<f32>>,
    /// Gain of the norm of each head of k, `[head_dim]`, if the model has such norms.
    pub head_k_norm: Option<Vec<f32>>,
    /// Gain of the norm before the output projection, if the model has sub-norms.
    pub attn_sub_norm: Option<Vec<f32>>,
    /// Gain of the norm of the mixer's output, if the model has such norms.
    pub mixer_out_norm: Option<Vec<f32>>,
    /// Gain of the norm before gate and up.
    pub post_attention_norm: Vec<f32>,
    /// Gain of the norm before the down projection, if the model has sub-norms.
    pub ffn_sub_norm: Option<Vec<f32>>,
    /// Gain of the norm of the feed-forward block's output, if the model has such norms.
    pub ffn_out_norm: Option<Vec<f32>>,
    /// Full-precision parameters of a test-time-training layer; `None` with another mixer.
    pub ttt: Option<Box<TttWeights>>,
    /// Full-precision parameters of a layer of the gated delta rule; `None` with another mixer.
    pub delta: Option<Box<DeltaWeights>>,
}

impl LayerWeights {
    /// Collects and checks the weights that layer `layer` has according to `config`.
    pub(super) fn from_source<S: WeightSource>(
        source: &S,
        config: &ModelConfig,
        layer: usize,
    ) -> Result<Self, S::Error> {
        let norm = |which: Norm| -> Result<Vec<f32>, S::Error> {
            Ok(checked(config.norm_len(which), source.norm(which)?, || format!("{which:?} norm"))?)
        };
        let has: Vec<Norm> = config.layer_norms(layer).collect();
        let optional = |n: Norm| has.contains(&n).then(|| norm(n)).transpose();
        let mut projections = [const { None }; Projection::ALL.len()];
        let mut projection_norms = [const { None }; Projection::ALL.len()];
        let mut biases = [const { None }; Projection::ALL.len()];
        for which in config.layer_projections(layer) {
            let w = source.projection(layer, which)?;
            let (expected, got) = (config.projection_shape(layer, which), (w.rows(), w.cols()));
            if expected != got {
                return Err(ModelError::ProjectionShape { layer, projection: which, expected, got }.into());
            }
            projections[which as usize] = Some(w);
            projection_norms[which as usize] = optional(Norm::ProjectionIn(layer, which))?;
        }
        for (which, len) in config.layer_biases(layer) {
            let name = || format!("layer {layer} {} bias", which.name());
            biases[which as usize] = Some(checked(len, source.bias(layer, which)?, name)?);
        }
        let ttt = match config.ttt_layer(layer) {
            Some(c) => Some(Box::new(TttWeights::collect(layer, c, |t| source.ttt_tensor(layer, t))?)),
            None => None,
        };
        let delta = match config.delta_layer(layer) {
            Some(c) => Some(Box::new(DeltaWeights::collect(layer, c, |t| source.delta_tensor(layer, t))?)),
            None => None,
        };
        Ok(Self {
            pre_conv_norm: optional(Norm::PreConv(layer))?,
            input_norm: norm(Norm::Input(layer))?,
            projections,
            projection_norms,
            biases,
            head_q_norm: optional(Norm::HeadQ(layer))?,
            head_k_norm: optional(Norm::HeadK(layer))?,
            attn_sub_norm: optional(Norm::AttnSub(layer))?,
            mixer_out_norm: optional(Norm::MixerOut(layer))?,
            post_attention_norm: norm(Norm::PostAttention(layer))?,
            ffn_sub_norm: optional(Norm::FfnSub(layer))?,
            ffn_out_norm: optional(Norm::FfnOut(layer))?,
            ttt,
            delta,
        })
    }

    /// A projection.
    ///
    /// # Panics
    /// If the layer does not have it; [`LayerWeights::projections`] returns those that it has.
    pub fn projection(&self, which: Projection) -> &TernaryMatrix {
        match &self.projections[which as usize] {
            Some(w) => w,
            None => panic!("the layer has no {}", which.name()),
        }
    }

    /// All projections of the layer, in the order of [`Projection::ALL`].
    pub fn projections(&self) -> impl Iterator<Item = (Projection, &TernaryMatrix)> {
        Projection::ALL.into_iter().zip(&self.projections).filter_map(|(p, w)| Some((p, w.as_ref()?)))
    }

    /// The bias of a projection, `[out]`; `None` if it has none.
    pub fn bias(&self, which: Projection) -> Option<&[f32]> {
        self.biases[which as usize].as_deref()
    }

    /// The gain of one of the layer's norms, for any layer number in `which`; `None` if there is no such norm.
    pub fn norm(&self, which: Norm) -> Option<&[f32]> {
        match which {
            Norm::PreConv(_) => self.pre_conv_norm.as_deref(),
            Norm::Input(_) => Some(&self.input_norm),
            Norm::AttnSub(_) => self.attn_sub_norm.as_deref(),
            Norm::PostAttention(_) => Some(&self.post_attention_norm),
            Norm::FfnSub(_) => self.ffn_sub_norm.as_deref(),
            Norm::HeadQ(_) => self.head_q_norm.as_deref(),
            Norm::HeadK(_) => self.head_k_norm.as_deref(),
            Norm::MixerOut(_) => self.mixer_out_norm.as_deref(),
            Norm::FfnOut(_) => self.ffn_out_norm.as_deref(),
            Norm::ProjectionIn(_, p) => self.projection_norms[p as usize].as_deref(),
            Norm::Final => None,
        }
    }
}
