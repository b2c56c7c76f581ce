//! Full-precision parameters of a layer of the gated delta rule.

use ttt_layer::{DeltaConfig, DeltaParameters};

use crate::ModelError;
use crate::config::DeltaTensor;

/// The full-precision weights of a layer of the gated delta rule: everything except its projections and the norms of
/// the block.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeltaWeights {
    /// Shape and constants of the layer.
    pub config: DeltaConfig,
    /// Gates, convolution, norm.
    pub parameters: DeltaParameters,
}

impl DeltaWeights {
    /// The weights of layer `layer`, with this configuration; `tensor` returns the values of each tensor.
    ///
    /// # Errors
    /// Errors of `tensor`; [`ModelError::TensorSize`], [`ModelError::NotFinite`].
    pub fn collect<E: From<ModelError>>(
        layer: usize,
        config: DeltaConfig,
        mut tensor: impl FnMut(DeltaTensor) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let mut get = |which: DeltaTensor| -> Result<Vec<f32>, E> {
            let expected = which.shape(&config).iter().product();
            let name = || format!("layer {layer} {}", which.path());
            Ok(super::checked(expected, tensor(which)?, name)?)
        };
        let parameters = DeltaParameters {
            alpha: get(DeltaTensor::Alpha)?,
            beta: get(DeltaTensor::Beta)?,
            conv: get(DeltaTensor::Conv)?,
            decay: get(DeltaTensor::Decay)?,
            decay_bias: get(DeltaTensor::DecayBias)?,
            norm: get(DeltaTensor::Norm)?,
        };
        Ok(Self { config, parameters })
    }

    /// The values of a tensor, row-major.
    pub fn tensor(&self, which: DeltaTensor) -> &[f32] {
        let p = &self.parameters;
        match which {
            DeltaTensor::Alpha => &p.alpha,
            DeltaTensor::Beta => &p.beta,
            DeltaTensor::Conv => &p.conv,
            DeltaTensor::Decay => &p.decay,
            DeltaTensor::DecayBias => &p.decay_bias,
            DeltaTensor::Norm => &p.norm,
        }
    }

    /// All tensors, with their shapes and values, in the order of [`DeltaTensor::ALL`].
    pub fn tensors(&self) -> impl Iterator<Item = (DeltaTensor, Vec<usize>, &[f32])> {
        DeltaTensor::ALL.into_iter().map(|t| (t, t.shape(&self.config), self.tensor(t)))
    }
}
