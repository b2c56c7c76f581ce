//! The weights of a model, checked once, as both paths (candle and engine) read them.

use half::{bf16, f16};
use ternary_kernels::{AlignedBuf, SharedBytes, TernaryMatrix};

use crate::config::{ModelConfig, Norm, Projection, TttTensor};
use crate::{ModelError, float_matrix::FloatMatrix};

mod table;
mod ttt;

pub use table::Table;
pub use ttt::TttWeights;

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

    /// The bias of a projection, `[out]`; called only for those that [`ModelConfig::layer_biases`] names.
    ///
    /// # Errors
    /// If the source has no such tensor.
    fn bias(&self, layer: usize, which: Projection) -> Result<Vec<f32>, Self::Error> {
        let tensor = format!("{}.bias", self.config().projection_name(layer, which));
        Err(ModelError::TensorSize { tensor, expected: self.config().projection_shape(layer, which).0, got: 0 }.into())
    }

    /// A full-precision tensor of the test-time-training layer `layer`, row-major; called only for those that
    /// [`ModelConfig::layer_ttt_tensors`] names. A source whose models have attention in every layer need not have it.
    ///
    /// # Errors
    /// If the source has no such tensor.
    fn ttt_tensor(&self, layer: usize, which: TttTensor) -> Result<Vec<f32>, Self::Error> {
        let tensor = self.config().ttt_tensor_name(layer, which);
        Err(ModelError::TensorSize { tensor, expected: 1, got: 0 }.into())
    }

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
    /// Gain of the norm before the convolution of a test-time-training layer's block, where it has one.
    pub pre_conv_norm: Option<Vec<f32>>,
    /// Gain of the norm before the projections of the mixer.
    pub input_norm: Vec<f32>,
    /// In the order of [`Projection::ALL`].
    projections: [Option<TernaryMatrix>; Projection::ALL.len()],
    /// Gain of the norm before the output projection, if the model has sub-norms.
    pub attn_sub_norm: Option<Vec<f32>>,
    /// Gain of the norm before gate and up.
    pub post_attention_norm: Vec<f32>,
    /// Gain of the norm before the down projection, if the model has sub-norms.
    pub ffn_sub_norm: Option<Vec<f32>>,
    /// What a test-time-training layer learns in full precision; `None` where the mixer is attention.
    pub ttt: Option<Box<TttWeights>>,
}

impl LayerWeights {
    /// A projection.
    ///
    /// # Panics
    /// If the layer has none such; [`LayerWeights::projections`] has those that there are.
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

    /// The gain of one of the layer's norms, whatever number it carries; `None` where there is none.
    pub fn norm(&self, which: Norm) -> Option<&[f32]> {
        match which {
            Norm::PreConv(_) => self.pre_conv_norm.as_deref(),
            Norm::Input(_) => Some(&self.input_norm),
            Norm::AttnSub(_) => self.attn_sub_norm.as_deref(),
            Norm::PostAttention(_) => Some(&self.post_attention_norm),
            Norm::FfnSub(_) => self.ffn_sub_norm.as_deref(),
            Norm::HeadQ(_) | Norm::HeadK(_) | Norm::MixerOut(_) | Norm::FfnOut(_) | Norm::ProjectionIn(..) => None,
            Norm::Final => None,
        }
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
            let mut projections = [const { None }; Projection::ALL.len()];
            for which in config.layer_projections(layer) {
                let w = source.projection(layer, which)?;
                let (expected, got) = (config.projection_shape(layer, which), (w.rows(), w.cols()));
                if expected != got {
                    return Err(ModelError::ProjectionShape { layer, projection: which, expected, got }.into());
                }
                projections[which as usize] = Some(w);
            }
            let has: Vec<Norm> = config.layer_norms(layer).collect();
            let optional = |n: Norm| has.contains(&n).then(|| norm(n)).transpose();
            let ttt = match config.ttt_layer(layer) {
                Some(c) => Some(Box::new(TttWeights::collect(layer, c, |t| source.ttt_tensor(layer, t))?)),
                None => None,
            };
            layers.push(LayerWeights {
                pre_conv_norm: optional(Norm::PreConv(layer))?,
                input_norm: norm(Norm::Input(layer))?,
                projections,
                attn_sub_norm: optional(Norm::AttnSub(layer))?,
                post_attention_norm: norm(Norm::PostAttention(layer))?,
                ffn_sub_norm: optional(Norm::FfnSub(layer))?,
                ttt,
            });
        }
        let final_norm = norm(Norm::Final)?;
        Ok(Self { config, embedding, layers, final_norm, head })
    }

    /// The gain of a norm; `None` where there is none.
    pub fn norm(&self, which: Norm) -> Option<&[f32]> {
        match which.layer() {
            Some(l) => self.layers.get(l)?.norm(which),
            None => Some(&self.final_norm),
        }
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
