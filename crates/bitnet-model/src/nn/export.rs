//! A candle model as a source of weights: what was trained becomes what the engine runs.

use candle_core::{DType, Tensor};
use ternary_kernels::TernaryMatrix;

use super::{CandleModel, DecoderLayer};
use crate::config::{ModelConfig, Norm, Projection};
use crate::{FloatMatrix, ModelError, WeightSource};

fn floats(x: &Tensor) -> Result<Vec<f32>, ModelError> {
    Ok(x.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

impl CandleModel {
    fn layer(&self, tensor: &str, layer: usize) -> Result<&DecoderLayer, ModelError> {
        let expected = self.layers.len();
        self.layers.get(layer).ok_or_else(|| ModelError::TensorSize {
            tensor: format!("{tensor} of layer {layer}, layers"),
            expected,
            got: layer,
        })
    }

    fn matrix(&self, table: &Tensor) -> Result<FloatMatrix, ModelError> {
        FloatMatrix::from_f32(self.config.vocab_size, self.config.hidden_size, &floats(table)?)
    }
}

impl WeightSource for CandleModel {
    type Error = ModelError;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn projection(&self, layer: usize, which: Projection) -> Result<TernaryMatrix, ModelError> {
        let l = self.layer(which.name(), layer)?;
        let linear = match which {
            Projection::Q => &l.attention.q_proj,
            Projection::K => &l.attention.k_proj,
            Projection::V => &l.attention.v_proj,
            Projection::O => &l.attention.o_proj,
            Projection::Gate => &l.feed_forward.gate_proj,
            Projection::Up => &l.feed_forward.up_proj,
            Projection::Down => &l.feed_forward.down_proj,
        };
        linear.to_ternary()
    }

    fn norm(&self, which: Norm) -> Result<Vec<f32>, ModelError> {
        let norm = match which {
            Norm::Input(l) => Some(&self.layer("input norm", l)?.input_norm),
            Norm::AttnSub(l) => self.layer("attention sub-norm", l)?.attention.sub_norm.as_ref(),
            Norm::PostAttention(l) => Some(&self.layer("post-attention norm", l)?.post_attention_norm),
            Norm::FfnSub(l) => self.layer("feed-forward sub-norm", l)?.feed_forward.sub_norm.as_ref(),
            Norm::Final => Some(&self.final_norm),
        };
        let norm = norm.ok_or_else(|| ModelError::TensorSize {
            tensor: format!("{which:?} norm, which this model does not have"),
            expected: self.config.norm_len(which),
            got: 0,
        })?;
        floats(norm.gain())
    }

    fn embedding(&self) -> Result<FloatMatrix, ModelError> {
        self.matrix(&self.embedding)
    }

    fn head(&self) -> Result<FloatMatrix, ModelError> {
        self.matrix(self.head.as_ref().unwrap_or(&self.embedding))
    }
}
