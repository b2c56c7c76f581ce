//! Full-precision parameters of a test-time-training layer.

use ttt_layer::{ConvParameters, TttConfig, TttParameters};

use crate::ModelError;
use crate::config::TttTensor;

/// The full-precision weights of a test-time-training layer: everything except its projections and its RMSNorms.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TttWeights {
    /// Shape and constants of the layer.
    pub config: TttConfig,
    /// Inner weights, learning rates, norms, convolutions of queries and keys.
    pub parameters: TttParameters,
    /// The causal convolution before the layer, if the block has one.
    pub pre_conv: Option<ConvParameters>,
}

impl TttWeights {
    /// The weights of layer `layer`, with this configuration; `tensor` returns the values of each tensor of such a
    /// layer.
    ///
    /// # Errors
    /// Errors of `tensor`; [`ModelError::TensorSize`], [`ModelError::NotFinite`].
    pub fn collect<E: From<ModelError>>(
        layer: usize,
        config: TttConfig,
        mut tensor: impl FnMut(TttTensor) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let mut get = |which: TttTensor| -> Result<Vec<f32>, E> {
            // A tensor that this layer does not have is left out.
            let Some(shape) = which.shape(&config) else { return Ok(Vec::new()) };
            let values = tensor(which)?;
            let (expected, got) = (shape.iter().product(), values.len());
            let tensor = || format!("layer {layer} {}", which.path());
            if expected != got {
                return Err(ModelError::TensorSize { tensor: tensor(), expected, got }.into());
            }
            match values.iter().position(|v| !v.is_finite()) {
                None => Ok(values),
                Some(index) => Err(ModelError::NotFinite { tensor: tensor(), index, value: values[index] }.into()),
            }
        };
        let mut inner = vec![get(TttTensor::W1)?, get(TttTensor::B1)?, get(TttTensor::W2)?, get(TttTensor::B2)?];
        inner.truncate(config.inner_shapes().len());
        let mut conv = |present: bool, weight, bias| -> Result<Option<ConvParameters>, E> {
            if !present {
                return Ok(None);
            }
            Ok(Some(ConvParameters { weight: get(weight)?, bias: get(bias)? }))
        };
        let q = conv(config.share_qk, TttTensor::ConvQWeight, TttTensor::ConvQBias)?;
        let k = conv(config.share_qk, TttTensor::ConvKWeight, TttTensor::ConvKBias)?;
        let pre_conv = conv(config.pre_conv, TttTensor::PreConvWeight, TttTensor::PreConvBias)?;
        let parameters = TttParameters {
            inner,
            lr_weight: get(TttTensor::LrWeight)?,
            lr_bias: get(TttTensor::LrBias)?,
            token_idx: get(TttTensor::TokenIdx)?,
            norm_weight: get(TttTensor::NormWeight)?,
            norm_bias: get(TttTensor::NormBias)?,
            post_norm_weight: get(TttTensor::PostNormWeight)?,
            post_norm_bias: get(TttTensor::PostNormBias)?,
            decay: get(TttTensor::Decay)?,
            convs: q.zip(k).map(|(q, k)| [q, k]),
        };
        Ok(Self { config, parameters, pre_conv })
    }

    /// The values of a tensor, row-major; `None` if the layer does not have it.
    pub fn tensor(&self, which: TttTensor) -> Option<&[f32]> {
        let p = &self.parameters;
        let inner = |i: usize| p.inner.get(i);
        let conv = |i: usize| p.convs.as_ref().and_then(|c| c.get(i));
        let values = match which {
            TttTensor::W1 => inner(0),
            TttTensor::B1 => inner(1),
            TttTensor::W2 => inner(2),
            TttTensor::B2 => inner(3),
            TttTensor::LrWeight => Some(&p.lr_weight),
            TttTensor::LrBias => Some(&p.lr_bias),
            TttTensor::TokenIdx => Some(&p.token_idx),
            TttTensor::NormWeight => Some(&p.norm_weight),
            TttTensor::NormBias => Some(&p.norm_bias),
            TttTensor::PostNormWeight => Some(&p.post_norm_weight),
            TttTensor::PostNormBias => Some(&p.post_norm_bias),
            TttTensor::ConvQWeight => conv(0).map(|c| &c.weight),
            TttTensor::ConvQBias => conv(0).map(|c| &c.bias),
            TttTensor::ConvKWeight => conv(1).map(|c| &c.weight),
            TttTensor::ConvKBias => conv(1).map(|c| &c.bias),
            TttTensor::Decay => Some(&p.decay).filter(|decay| !decay.is_empty()),
            TttTensor::PreConvWeight => self.pre_conv.as_ref().map(|c| &c.weight),
            TttTensor::PreConvBias => self.pre_conv.as_ref().map(|c| &c.bias),
        };
        values.map(Vec::as_slice)
    }

    /// All tensors that the layer has, with their shapes and values, in the order of [`TttTensor::ALL`].
    pub fn tensors(&self) -> impl Iterator<Item = (TttTensor, Vec<usize>, &[f32])> {
        TttTensor::ALL.into_iter().filter_map(|t| Some((t, t.shape(&self.config)?, self.tensor(t)?)))
    }
}
