//! A candle model as a source of weights: the engine runs what was trained.

use candle_core::{DType, Tensor};
use ternary_kernels::TernaryMatrix;

use super::{CandleModel, DecoderLayer, TokenMixer};
use crate::config::{ModelConfig, Norm, Projection, TttTensor};
use crate::{FloatMatrix, ModelError, Table, WeightSource};

pub(super) fn floats(x: &Tensor) -> Result<Vec<f32>, ModelError> {
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
        let linear = match (which, &l.mixer) {
            (Projection::Gate, _) => Some(&l.feed_forward.gate_proj),
            (Projection::Up, _) => Some(&l.feed_forward.up_proj),
            (Projection::Down, _) => Some(&l.feed_forward.down_proj),
            (_, TokenMixer::Ttt(ttt)) => ttt.projection(which),
            (Projection::Q, TokenMixer::Attention(a)) => Some(&a.q_proj),
            (Projection::K, TokenMixer::Attention(a)) => Some(&a.k_proj),
            (Projection::V, TokenMixer::Attention(a)) => Some(&a.v_proj),
            (Projection::O, TokenMixer::Attention(a)) => Some(&a.o_proj),
            (Projection::OutGate | Projection::Qkv, TokenMixer::Attention(_)) => None,
        };
        let missing = || ModelError::TensorSize {
            tensor: format!("{}, which this layer does not have", self.config.projection_name(layer, which)),
            expected: 1,
            got: 0,
        };
        linear.ok_or_else(missing)?.to_ternary()
    }

    fn norm(&self, which: Norm) -> Result<Vec<f32>, ModelError> {
        let norm = match which {
            Norm::PreConv(l) => {
                self.layer("pre-convolution norm", l)?.mixer.as_ttt().and_then(|t| t.pre_conv.as_ref()).map(|(n, _)| n)
            }
            Norm::Input(l) => Some(&self.layer("input norm", l)?.input_norm),
            Norm::AttnSub(l) => match &self.layer("attention sub-norm", l)?.mixer {
                TokenMixer::Attention(a) => a.sub_norm.as_ref(),
                TokenMixer::Ttt(t) => t.sub_norm(),
            },
            Norm::PostAttention(l) => Some(&self.layer("post-attention norm", l)?.post_attention_norm),
            Norm::FfnSub(l) => self.layer("feed-forward sub-norm", l)?.feed_forward.sub_norm.as_ref(),
            Norm::Final => Some(&self.final_norm),
            Norm::HeadQ(l) | Norm::HeadK(l) => {
                let attention = self.layer("norm of heads", l)?.mixer.as_attention();
                let norms = attention.and_then(|a| a.head_norms.as_ref());
                norms.map(|[q, k]| if which == Norm::HeadQ(l) { q } else { k })
            }
            Norm::MixerOut(_) | Norm::FfnOut(_) | Norm::ProjectionIn(..) => None,
        };
        let norm = norm.ok_or_else(|| ModelError::TensorSize {
            tensor: format!("{which:?} norm, which this model does not have"),
            expected: self.config.norm_len(which),
            got: 0,
        })?;
        floats(norm.gain())
    }

    fn ttt_tensor(&self, layer: usize, which: TttTensor) -> Result<Vec<f32>, ModelError> {
        let found = self.layer(which.path(), layer)?.mixer.as_ttt().map(|t| t.weights()).transpose()?;
        let values = found.as_ref().and_then(|w| w.tensor(which));
        let tensor = || format!("{}, which this layer does not have", self.config.ttt_tensor_name(layer, which));
        values.map(<[f32]>::to_vec).ok_or_else(|| ModelError::TensorSize { tensor: tensor(), expected: 1, got: 0 })
    }

    fn embedding(&self) -> Result<Table, ModelError> {
        self.matrix(&self.embedding).map(Table::Float)
    }

    fn head(&self) -> Result<Table, ModelError> {
        self.matrix(self.head.as_ref().unwrap_or(&self.embedding)).map(Table::Float)
    }
}
