//! The weights of a model, checked once, for both paths (candle and engine).

use half::{bf16, f16};
use ternary_kernels::{AlignedBuf, Levels, ScalePlace, Scales, SharedBytes, TernaryMatrix};

use crate::ModelError;
use crate::config::{ActivationBits, DeltaTensor, ModelConfig, Norm, Projection, TttTensor};

mod delta;
mod layer;
mod table;
mod ttt;

pub use delta::DeltaWeights;
pub use layer::LayerWeights;
pub use table::Table;
pub use ttt::TttWeights;

/// A source of weights: a file, a test, a trainer.
///
/// The source follows the conventions of the model: rotary embedding in half-rotation order (rows of q and k
/// un-permuted), separate projections, value heads of the gated delta rule in groups (those that read key head 0
/// first), queries of gated attention before its gates, scales that multiply.
pub trait WeightSource {
    /// Error of the source's own methods.
    type Error: From<ModelError>;

    /// Shape and formulas.
    fn config(&self) -> &ModelConfig;

    /// A ternary projection of layer `layer`, `[out, in]`.
    ///
    /// # Errors
    /// If the source has no such tensor or it is not a ternary matrix.
    fn projection(&self, layer: usize, which: Projection) -> Result<TernaryMatrix, Self::Error>;

    /// The gain of a norm.
    ///
    /// # Errors
    /// If the source has no such tensor.
    fn norm(&self, which: Norm) -> Result<Vec<f32>, Self::Error>;

    /// The bias of a projection, `[out]`; called only for those that [`ModelConfig::layer_biases`] returns.
    ///
    /// # Errors
    /// If the source has no such tensor.
    fn bias(&self, layer: usize, which: Projection) -> Result<Vec<f32>, Self::Error> {
        let tensor = format!("{}.bias", self.config().projection_name(layer, which));
        Err(ModelError::TensorSize { tensor, expected: self.config().projection_shape(layer, which).0, got: 0 }.into())
    }

    /// A full-precision tensor of the test-time-training layer `layer`, row-major; called only for those that
    /// [`ModelConfig::layer_ttt_tensors`] returns. A source whose models have attention in every layer need not
    /// implement it.
    ///
    /// # Errors
    /// If the source has no such tensor.
    fn ttt_tensor(&self, layer: usize, which: TttTensor) -> Result<Vec<f32>, Self::Error> {
        let tensor = self.config().ttt_tensor_name(layer, which);
        Err(ModelError::TensorSize { tensor, expected: 1, got: 0 }.into())
    }

    /// A full-precision tensor of layer `layer` of the gated delta rule, row-major, with value heads in groups; called
    /// only for those that [`ModelConfig::layer_delta_tensors`] returns. A source whose models have no such layers need
    /// not implement it.
    ///
    /// # Errors
    /// If the source has no such tensor.
    fn delta_tensor(&self, layer: usize, which: DeltaTensor) -> Result<Vec<f32>, Self::Error> {
        let tensor = self.config().delta_tensor_name(layer, which);
        Err(ModelError::TensorSize { tensor, expected: 1, got: 0 }.into())
    }

    /// The embedding, `[vocab, hidden]`.
    ///
    /// # Errors
    /// If the source has no such tensor.
    fn embedding(&self) -> Result<Table, Self::Error>;

    /// The head, `[vocab, hidden]`; called only if, according to the configuration, there is one and it is not tied to
    /// the embedding.
    ///
    /// # Errors
    /// If the source has no such tensor.
    fn head(&self) -> Result<Table, Self::Error>;
}

/// All weights of a model, with checked shapes and finite values.
#[derive(Clone, Debug)]
pub struct ModelWeights {
    /// Shape and formulas.
    pub config: ModelConfig,
    /// Embedding, `[vocab, hidden]`.
    pub embedding: Table,
    /// The layers.
    pub layers: Vec<LayerWeights>,
    /// Gain of the norm before the head.
    pub final_norm: Vec<f32>,
    /// Head, `[vocab, hidden]`; `None` if it is the embedding, and in a model without a head.
    pub head: Option<Table>,
}

impl ModelWeights {
    /// Collects and checks everything that the configuration requires.
    ///
    /// # Errors
    /// The errors of the source; a shape that contradicts the configuration; a norm that is not finite.
    pub fn from_source<S: WeightSource>(source: &S) -> Result<Self, S::Error> {
        let mut config = source.config().clone();
        config.validate()?;
        let table = |name: &str, m: Table| -> Result<Table, S::Error> {
            let (expected, got) = (config.vocab_size * config.hidden_size, m.rows() * m.cols());
            if (m.rows(), m.cols()) != (config.vocab_size, config.hidden_size) {
                return Err(ModelError::TensorSize { tensor: name.into(), expected, got }.into());
            }
            Ok(m)
        };
        let embedding = table("embedding", source.embedding()?)?;
        let own_head = !(config.tie_word_embeddings || config.headless);
        let head = if own_head { Some(table("head", source.head()?)?) } else { None };
        let layers = (0..config.num_hidden_layers).map(|l| LayerWeights::from_source(source, &config, l));
        let layers = layers.collect::<Result<Vec<_>, S::Error>>()?;
        // Models whose weights have a scale per group were trained with inputs of 16 bits, which no file states.
        let has_groups = |l: &LayerWeights| l.projections().any(|(_, w)| in_groups(w));
        if layers.iter().any(has_groups) && config.inputs.all().iter().all(|f| f.bits == ActivationBits::Eight) {
            config.inputs = config.inputs.with_bits(ActivationBits::Sixteen);
        }
        // The weights are ternary now, whatever they were before.
        config.weight_group = None;
        let final_norm = checked(config.norm_len(Norm::Final), source.norm(Norm::Final)?, || "Final norm".to_owned())?;
        Ok(Self { config, embedding, layers, final_norm, head })
    }

    /// The gain of a norm; `None` if there is no such norm.
    pub fn norm(&self, which: Norm) -> Option<&[f32]> {
        match which.layer() {
            Some(l) => self.layers.get(l)?.norm(which),
            None => Some(&self.final_norm),
        }
    }

    /// The matrix of the logits; `None` in a model without a head.
    pub fn head_table(&self) -> Option<&Table> {
        (!self.config.headless).then(|| self.head.as_ref().unwrap_or(&self.embedding))
    }
}

/// Whether `w` belongs to a model with a scale per group of weights, even if a row is no longer than one: a file of
/// blocks with different scales was not made from a matrix with one scale, and weights of +2 exist only in such files.
fn in_groups(w: &TernaryMatrix) -> bool {
    if w.levels() == Levels::Four {
        return true;
    }
    match w.scales() {
        Scales::Tensor(_) => false,
        Scales::Rows(_) => matches!(w.format().info().scale, ScalePlace::Block(_)),
        Scales::Groups(_) => true,
    }
}

/// Returns `values` if there are `expected` of them and all are finite.
fn checked(expected: usize, values: Vec<f32>, tensor: impl Fn() -> String) -> Result<Vec<f32>, ModelError> {
    let got = values.len();
    if expected != got {
        return Err(ModelError::TensorSize { tensor: tensor(), expected, got });
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(values),
        Some(index) => Err(ModelError::NotFinite { tensor: tensor(), index, value: values[index] }),
    }
}

/// Copies `values` to shared bytes, 64-byte aligned.
pub(crate) fn share<T: bytemuck::Pod + Send + Sync>(values: &[T]) -> SharedBytes {
    SharedBytes::new(AlignedBuf::from_slice(values))
}

/// Float types in which a file stores values.
pub trait StoredFloat: bytemuck::Pod + Send + Sync {}
impl StoredFloat for f32 {}
impl StoredFloat for f16 {}
impl StoredFloat for bf16 {}

#[cfg(test)]
mod tests {
    use ternary_kernels::FileFormat;

    use super::*;

    /// Rows of one block each, with equal or different scales: the former may be a BitNet model, the latter cannot.
    #[test]
    fn blocks_with_scales_of_their_own_are_groups() {
        let matrix = |scales: [f32; 2]| {
            let blocks = scales.map(|s| [&[0x55; 64][..], &f16::from_f32(s).to_le_bytes()].concat());
            TernaryMatrix::from_bytes(FileFormat::Tq2_0, 2, 256, blocks.concat().into(), None).unwrap()
        };
        assert!(in_groups(&matrix([0.5, 0.25])) && !in_groups(&matrix([0.5, 0.5])));
        let rows = TernaryMatrix::from_trits(2, 1, &[1, 1], Scales::Rows([0.5, 0.25].into())).unwrap();
        assert!(!in_groups(&rows));
    }
}
