//! The weights of a model, checked once, as both paths (candle and engine) read them.

use half::{bf16, f16};
use ternary_kernels::{AlignedBuf, SharedBytes, TernaryMatrix};

use crate::config::{ModelConfig, Norm, Projection};
use crate::{ModelError, float_matrix::FloatMatrix};

/// Where weights come from: a file, a test, a trainer.
///
/// The source speaks the model's own conventions: rotary embedding in half-rotation order (rows of q and k
/// un-permuted), separate projections, scales that multiply.
pub trait WeightSource {
    /// What the source's own methods fail with.
    type Error: From<ModelError>;

    /// Shape and formulas.
    fn config(&self) -> &ModelConfig;

    /// A ternary projection of layer `layer`, `[out, in]`.
    ///
    /// # Errors
    /// If the source has no such tensor or it is no ternary matrix.
    fn projection(&self, layer: usize, which: Projection) -> Result<TernaryMatrix, Self::Error>;

    /// The gain of a norm.
    ///
    /// # Errors
    /// If the source has no such tensor.
    fn norm(&self, which: Norm) -> Result<Vec<f32>, Self::Error>;

    /// The embedding, `[vocab, hidden]`.
    ///
    /// # Errors
    /// If the source has no such tensor.
    fn embedding(&self) -> Result<FloatMatrix, Self::Error>;

    /// The head, `[vocab, hidden]`; called only where the configuration says that it is not tied to the embedding.
    ///
    /// # Errors
    /// If the source has no such tensor.
    fn head(&self) -> Result<FloatMatrix, Self::Error>;
}

/// Weights of one layer.
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// Gain of the norm before q, k and v.
    pub input_norm: Vec<f32>,
    /// The seven projections in the order of [`Projection::ALL`].
    projections: [TernaryMatrix; 7],
    /// Gain of the norm before the output projection, if the model has sub-norms.
    pub attn_sub_norm: Option<Vec<f32>>,
    /// Gain of the norm before gate and up.
    pub post_attention_norm: Vec<f32>,
    /// Gain of the norm before the down projection, if the model has sub-norms.
    pub ffn_sub_norm: Option<Vec<f32>>,
}

impl LayerWeights {
    /// A projection.
    pub fn projection(&self, which: Projection) -> &TernaryMatrix {
        &self.projections[which as usize]
    }
}

/// All weights of a model, of checked shapes and finite values.
#[derive(Clone, Debug)]
pub struct ModelWeights {
    /// Shape and formulas.
    pub config: ModelConfig,
    /// Embedding, `[vocab, hidden]`.
    pub embedding: FloatMatrix,
    /// The layers.
    pub layers: Vec<LayerWeights>,
    /// Gain of the norm before the head.
    pub final_norm: Vec<f32>,
    /// Head, `[vocab, hidden]`; `None` where it is the embedding.
    pub head: Option<FloatMatrix>,
}

impl ModelWeights {
    /// Collects and checks everything that the configuration asks for.
    ///
    /// # Errors
    /// Those of the source; a shape that contradicts the configuration; a norm that is not finite.
    pub fn from_source<S: WeightSource>(source: &S) -> Result<Self, S::Error> {
        let config = source.config().clone();
        config.validate()?;
        let table = |name: &str, m: FloatMatrix| -> Result<FloatMatrix, S::Error> {
            let (expected, got) = (config.vocab_size * config.hidden_size, m.rows() * m.cols());
            if (m.rows(), m.cols()) != (config.vocab_size, config.hidden_size) {
                return Err(ModelError::TensorSize { tensor: name.into(), expected, got }.into());
            }
            Ok(m)
        };
        let embedding = table("embedding", source.embedding()?)?;
        let head = if config.tie_word_embeddings { None } else { Some(table("head", source.head()?)?) };
        let norm = |which: Norm| -> Result<Vec<f32>, S::Error> { checked_norm(&config, which, source.norm(which)?) };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for layer in 0..config.num_hidden_layers {
            let mut projections = Vec::with_capacity(7);
            for which in Projection::ALL {
                let w = source.projection(layer, which)?;
                let (expected, got) = (config.projection_shape(which), (w.rows(), w.cols()));
                if expected != got {
                    return Err(ModelError::ProjectionShape { layer, projection: which, expected, got }.into());
                }
                projections.push(w);
            }
            let sub = |n: Norm| config.sub_norms.then(|| norm(n)).transpose();
            layers.push(LayerWeights {
                input_norm: norm(Norm::Input(layer))?,
                projections: projections.try_into().expect("Projection::ALL has seven entries"),
                attn_sub_norm: sub(Norm::AttnSub(layer))?,
                post_attention_norm: norm(Norm::PostAttention(layer))?,
                ffn_sub_norm: sub(Norm::FfnSub(layer))?,
            });
        }
        let final_norm = norm(Norm::Final)?;
        Ok(Self { config, embedding, layers, final_norm, head })
    }

    /// The matrix that the logits are computed with.
    pub fn head_matrix(&self) -> &FloatMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

fn checked_norm<E: From<ModelError>>(config: &ModelConfig, which: Norm, gain: Vec<f32>) -> Result<Vec<f32>, E> {
    let tensor = || format!("{which:?} norm");
    let (expected, got) = (config.norm_len(which), gain.len());
    if expected != got {
        return Err(ModelError::TensorSize { tensor: tensor(), expected, got }.into());
    }
    match gain.iter().position(|v| !v.is_finite()) {
        None => Ok(gain),
        Some(index) => Err(ModelError::NotFinite { tensor: tensor(), index, value: gain[index] }.into()),
    }
}

/// Puts `values` into shared bytes, 64-byte aligned.
pub(crate) fn share<T: bytemuck::Pod + Send + Sync>(values: &[T]) -> SharedBytes {
    SharedBytes::new(AlignedBuf::from_slice(values))
}

/// Float types that a file stores values in.
pub trait StoredFloat: bytemuck::Pod + Send + Sync {}
impl StoredFloat for f32 {}
impl StoredFloat for f16 {}
impl StoredFloat for bf16 {}
