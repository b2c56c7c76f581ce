//! Weights generated from a seed: a model of any shape, for tests, examples and measurements.

use half::f16;
use ternary_kernels::{GroupScales, Scales, TernaryMatrix};

use crate::weights::{WeightSource, share};
use crate::{DeltaTensor, FloatMatrix, FloatType, ModelConfig, ModelError, Norm, Projection, Table, TttTensor};

/// A [`WeightSource`] whose trits are uniform over -1, 0, +1 and whose scales keep activations as large as in trained
/// models. The same seed gives the same model everywhere.
///
/// ```
/// use bitnet_model::{ModelConfig, ModelWeights, SyntheticWeights};
/// let config = ModelConfig::new(96, 64, 128, 2, 2, 1);
/// let weights = ModelWeights::from_source(&SyntheticWeights::new(config, 7)).unwrap();
/// assert_eq!(weights.layers.len(), 2);
/// ```
#[derive(Clone, Debug)]
pub struct SyntheticWeights {
    config: ModelConfig,
    seed: u64,
    /// Weights of a group with its own scale, in every matrix; `None` for one scale per matrix and tables of floats.
    group_len: Option<usize>,
}

impl SyntheticWeights {
    /// A model of this shape from this seed.
    pub fn new(config: ModelConfig, seed: u64) -> Self {
        Self { config, seed, group_len: None }
    }

    /// These trits with a scale for every `group_len` weights of a row, also in embedding and head, which are then
    /// ternary.
    ///
    /// ```
    /// use bitnet_model::{ActivationBits, ModelConfig, ModelWeights, SyntheticWeights};
    /// let config = ModelConfig::new(96, 64, 128, 2, 2, 1);
    /// let weights = ModelWeights::from_source(&SyntheticWeights::new(config, 7).with_groups(64)).unwrap();
    /// assert_eq!(weights.config.inputs.mixer.bits, ActivationBits::Sixteen);
    /// assert!(weights.embedding.as_ternary().is_some());
    /// ```
    #[must_use]
    pub fn with_groups(mut self, group_len: usize) -> Self {
        self.group_len = Some(group_len);
        self
    }

    /// The ternary matrix called `name`, `[rows, cols]`, whose scales are `scale` or close to it.
    fn matrix(&self, name: &str, rows: usize, cols: usize, scale: f32) -> Result<TernaryMatrix, ModelError> {
        let mut next = self.numbers(name);
        let trits: Vec<i8> = (0..rows * cols).map(|_| ((next() >> 32) % 3) as i8 - 1).collect();
        let scales = match self.group_len {
            None => Scales::Tensor(scale),
            Some(len) => {
                let mut next = self.numbers(&format!("{name}.scales"));
                // Between half and three halves of it.
                let mut one = || f16::from_f32(scale * (0.5 + (next() >> 56) as f32 / 256.0));
                let values = (0..rows * cols.div_ceil(len.max(1))).map(|_| one()).collect();
                Scales::Groups(GroupScales::new(len, rows, cols, values)?)
            }
        };
        Ok(TernaryMatrix::from_trits(rows, cols, &trits, scales)?)
    }

    /// A stream of random numbers for the tensor called `name`.
    fn numbers(&self, name: &str) -> impl FnMut() -> u64 + use<> {
        // FNV-1a of the name separates the streams of different tensors.
        let mut state =
            name.bytes().fold(0xCBF2_9CE4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
        state ^= self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        move || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }
    }

    /// Mean and deviation that keep a test-time-training layer active: inner models that differ from zero, learning
    /// rates of all sizes, gains near 1, convolutions that pass their own token.
    pub fn ttt_range(which: TttTensor) -> (f32, f32) {
        match which {
            TttTensor::W1 | TttTensor::W2 => (0.0, 0.1),
            TttTensor::B1 | TttTensor::B2 | TttTensor::NormBias | TttTensor::PostNormBias => (0.0, 0.05),
            TttTensor::LrWeight => (0.0, 0.05),
            TttTensor::LrBias => (0.0, 0.3),
            TttTensor::TokenIdx => (0.0, 0.02),
            TttTensor::NormWeight | TttTensor::PostNormWeight => (1.0, 0.1),
            TttTensor::Decay => (2.0, 1.0),
            TttTensor::ConvQWeight | TttTensor::ConvKWeight => (0.25, 0.4),
            TttTensor::PreConvWeight => (0.1, 0.2),
            TttTensor::ConvQBias | TttTensor::ConvKBias | TttTensor::PreConvBias => (0.0, 0.05),
        }
    }

    /// Distributions for a layer of the gated delta rule: states that fade within some ten to some hundred tokens,
    /// rates around a half, convolutions that pass their own token.
    pub fn delta_range(which: DeltaTensor) -> (f32, f32) {
        match which {
            DeltaTensor::Alpha | DeltaTensor::Beta => (0.0, 0.05),
            DeltaTensor::Conv => (0.25, 0.4),
            DeltaTensor::Decay => (-0.1, 0.03),
            DeltaTensor::DecayBias => (-1.0, 0.5),
            DeltaTensor::Norm => (1.0, 0.1),
        }
    }

    fn table(&self, name: &str) -> Result<Table, ModelError> {
        let c = &self.config;
        if self.group_len.is_some() {
            return self.matrix(name, c.vocab_size, c.hidden_size, 0.1).map(Table::Ternary);
        }
        let mut next = self.numbers(name);
        // Uniform in +-1/8: rows of length about sqrt(hidden) / 14.
        let values: Vec<f16> = (0..c.vocab_size * c.hidden_size)
            .map(|_| f16::from_f32(((next() >> 56) as f32 - 127.5) / 1024.0))
            .collect();
        FloatMatrix::new(FloatType::F16, c.vocab_size, c.hidden_size, share(&values)).map(Table::Float)
    }
}

impl WeightSource for SyntheticWeights {
    type Error = ModelError;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn projection(&self, layer: usize, which: Projection) -> Result<TernaryMatrix, ModelError> {
        let (rows, cols) = self.config.projection_shape(layer, which);
        // A sum of `cols` products of a unit normal with a uniform trit has variance 2/3 cols: this brings it back to
        // 1.
        let scale = (1.5 / cols as f32).sqrt();
        self.matrix(&format!("{layer}.{}", which.name()), rows, cols, scale)
    }

    fn norm(&self, which: Norm) -> Result<Vec<f32>, ModelError> {
        let mut next = self.numbers(&format!("{which:?}"));
        Ok((0..self.config.norm_len(which)).map(|_| 1.0 + ((next() >> 60) as f32 - 8.0) / 64.0).collect())
    }

    fn bias(&self, layer: usize, which: Projection) -> Result<Vec<f32>, ModelError> {
        let mut next = self.numbers(&format!("{layer}.{}.bias", which.name()));
        let len = self.config.projection_shape(layer, which).0;
        Ok((0..len).map(|_| ((next() >> 60) as f32 - 7.5) / 16.0).collect())
    }

    fn ttt_tensor(&self, layer: usize, which: TttTensor) -> Result<Vec<f32>, ModelError> {
        let shape = self.config.ttt_layer(layer).and_then(|c| which.shape(&c)).unwrap_or_default();
        let (mean, deviation) = Self::ttt_range(which);
        let mut next = self.numbers(&format!("{layer}.{}", which.path()));
        let value = |h: u64| mean + deviation * ((h >> 40) as f32 / (1 << 23) as f32 - 1.0) * 3f32.sqrt();
        Ok((0..shape.iter().product()).map(|_| value(next())).collect())
    }

    fn delta_tensor(&self, layer: usize, which: DeltaTensor) -> Result<Vec<f32>, ModelError> {
        let shape = self.config.delta_layer(layer).map(|c| which.shape(&c)).unwrap_or_default();
        let (mean, deviation) = Self::delta_range(which);
        let mut next = self.numbers(&format!("{layer}.{}", which.path()));
        let value = |h: u64| mean + deviation * ((h >> 40) as f32 / (1 << 23) as f32 - 1.0) * 3f32.sqrt();
        Ok((0..shape.iter().product()).map(|_| value(next())).collect())
    }

    fn embedding(&self) -> Result<Table, ModelError> {
        self.table("embedding")
    }

    fn head(&self) -> Result<Table, ModelError> {
        self.table("head")
    }
}
