//! The parameters of a candle layer as plain numbers.

use candle_core::{DType, Tensor};
use candle_nn::Module;

use super::TttLayer;
use crate::{ConvParameters, TttError, TttParameters};

/// The elements of a tensor as f32.
pub(crate) fn floats(x: &Tensor) -> Result<Vec<f32>, TttError> {
    Ok(x.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

impl<L: Module> TttLayer<L> {
    /// The parameters as plain numbers, for [`RowWise`](crate::RowWise) and for files.
    ///
    /// # Errors
    /// Any error of candle.
    pub fn parameters(&self) -> Result<TttParameters, TttError> {
        let conv = |c: &crate::CausalConv| -> Result<ConvParameters, TttError> {
            Ok(ConvParameters { weight: floats(c.weight())?, bias: floats(c.bias())? })
        };
        let convs = match &self.convs {
            Some([q, k]) => Some([conv(q)?, conv(k)?]),
            None => None,
        };
        Ok(TttParameters {
            inner: self.first.iter().map(floats).collect::<Result<_, _>>()?,
            lr_weight: floats(&self.lr_weight)?,
            lr_bias: floats(&self.lr_bias)?,
            token_idx: floats(&self.inner.nu)?,
            norm_weight: floats(&self.inner.gain)?,
            norm_bias: floats(&self.inner.bias)?,
            post_norm_weight: floats(&self.post_norm.0)?,
            post_norm_bias: floats(&self.post_norm.1)?,
            decay: self.inner.decay.as_ref().map(floats).transpose()?.unwrap_or_default(),
            convs,
        })
    }
}
