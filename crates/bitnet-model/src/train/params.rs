//! Master weights in one flat buffer.

use std::ops::Range;

use super::TrainError;
use super::random::Random;
use crate::config::{DeltaTensor, ModelConfig, Norm, TttTensor};

/// One tensor of [`Params`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in a Hugging Face checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The range of its values.
    pub range: Range<usize>,
    /// Its role, which decides its initial values and its weight decay.
    pub role: Role,
}

/// Role of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// A ternary projection of this layer.
    Projection(usize),
    /// Embedding or head.
    Table,
    /// The gain of an RMSNorm.
    Norm,
    /// A full-precision tensor of a test-time-training layer.
    Ttt(TttTensor),
    /// A full-precision tensor of a layer of the gated delta rule; of [`DeltaTensor::Decay`] the logarithm, `A_log`.
    Delta(DeltaTensor),
}

/// The distribution of a parameter's initial values.
enum Start {
    Constant(f32),
    /// Normal, with this deviation.
    Normal(f64),
    /// Uniform between minus and plus this.
    Uniform(f64),
    /// The logarithm of a number from 1 to 16.
    LogFactor,
    /// Values whose sigmoid keeps a thing for 8 to 512 steps, in even steps of the logarithm from head to head.
    Keep,
    /// Values whose softplus is a time from a thousandth to a tenth, in even steps of its logarithm.
    Time,
}

impl Entry {
    /// Ternary projections and tables have deviation `std`; other parameters of a test-time-training layer begin as in
    /// the official code: inner matrices and learning rates with 0.02, convolutions within one over the root of their
    /// taps.
    fn start(&self, std: f64) -> Start {
        match self.role {
            Role::Projection(_) | Role::Table => Start::Normal(std),
            Role::Norm => Start::Constant(1.0),
            Role::Ttt(t) => match t {
                TttTensor::W1 | TttTensor::W2 | TttTensor::LrWeight => Start::Normal(0.02),
                TttTensor::NormWeight | TttTensor::PostNormWeight => Start::Constant(1.0),
                TttTensor::Decay => Start::Keep,
                TttTensor::ConvQWeight | TttTensor::ConvKWeight | TttTensor::PreConvWeight => {
                    Start::Uniform(1.0 / (self.shape.last().copied().unwrap_or(1) as f64).sqrt())
                }
                _ => Start::Constant(0.0),
            },
            // As in the layers of Gated DeltaNet.
            Role::Delta(t) => match t {
                DeltaTensor::Alpha | DeltaTensor::Beta => Start::Normal(0.02),
                DeltaTensor::Conv => Start::Uniform(1.0 / (self.shape.last().copied().unwrap_or(1) as f64).sqrt()),
                DeltaTensor::Decay => Start::LogFactor,
                DeltaTensor::DecayBias => Start::Time,
                DeltaTensor::Norm => Start::Constant(1.0),
            },
        }
    }
}

/// All parameters of a model, f32, one after the other.
///
/// Order: embedding; of each layer the projections in the order of [`Projection::ALL`](crate::Projection::ALL) (so
/// those that share an input are side by side), the full-precision tensors of a test-time-training layer in the order
/// of [`TttTensor::ALL`] or of a layer of the gated delta rule in that of [`DeltaTensor::ALL`], the norms; final norm; head, where it is not tied.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// The tensors.
    pub entries: Vec<Entry>,
    /// Their values.
    pub values: Vec<f32>,
}

/// The name of the embedding.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The name of the head.
pub(super) const HEAD: &str = "lm_head.weight";

impl Params {
    /// Tensors with these names and shapes, all zero.
    pub fn zeros(tensors: impl IntoIterator<Item = (String, Vec<usize>, Role)>) -> Self {
        let mut entries = Vec::new();
        let mut at = 0;
        for (name, shape, role) in tensors {
            let len: usize = shape.iter().product();
            entries.push(Entry { name, shape, range: at..at + len, role });
            at += len;
        }
        Self { entries, values: vec![0.0; at] }
    }

    /// The initial parameters of a model of this shape: matrices normal with deviation `std`, norms 1, the other
    /// parameters of a test-time-training layer as in the official code. Each tensor draws from its own stream, which
    /// is named after it.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn init(config: &ModelConfig, seed: u64, std: f64) -> Result<Self, TrainError> {
        config.validate()?;
        let mut params = Self::zeros(layout(config));
        for e in &params.entries {
            let values = &mut params.values[e.range.clone()];
            let mut random = Random::new(seed, &e.name);
            match e.start(std) {
                Start::Constant(c) => values.fill(c),
                Start::Normal(std) => values.iter_mut().for_each(|v| *v = (random.normal() * std) as f32),
                Start::Uniform(bound) => {
                    values.iter_mut().for_each(|v| *v = ((2.0 * random.unit() - 1.0) * bound) as f32);
                }
                Start::LogFactor => values.iter_mut().for_each(|v| *v = (1.0 + 15.0 * random.unit()).ln() as f32),
                Start::Keep => {
                    let last = (values.len() - 1).max(1) as f64;
                    for (i, v) in values.iter_mut().enumerate() {
                        *v = (8.0 * 64f64.powf(i as f64 / last) - 1.0).ln() as f32;
                    }
                }
                Start::Time => values.iter_mut().for_each(|v| {
                    let time = 1e-3 * 100f64.powf(random.unit());
                    *v = (time + (-(-time).exp_m1()).ln()) as f32;
                }),
            }
        }
        Ok(params)
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`TrainError::NoTensor`].
    pub fn entry(&self, name: &str) -> Result<&Entry, TrainError> {
        self.entries.iter().find(|e| e.name == name).ok_or_else(|| TrainError::NoTensor { tensor: name.to_owned() })
    }

    /// The values of the tensor called `name`.
    ///
    /// # Errors
    /// [`TrainError::NoTensor`].
    pub fn get(&self, name: &str) -> Result<&[f32], TrainError> {
        Ok(&self.values[self.entry(name)?.range.clone()])
    }

    /// The values of the tensor called `name`, for writing.
    ///
    /// # Errors
    /// [`TrainError::NoTensor`].
    pub fn get_mut(&mut self, name: &str) -> Result<&mut [f32], TrainError> {
        let range = self.entry(name)?.range.clone();
        Ok(&mut self.values[range])
    }
}

/// Names, shapes and roles of a model's parameters, in the order of [`Params`].
pub(super) fn layout(config: &ModelConfig) -> Vec<(String, Vec<usize>, Role)> {
    let table = vec![config.vocab_size, config.hidden_size];
    let mut all = vec![(EMBEDDING.to_owned(), table.clone(), Role::Table)];
    let norm = |n: Norm| (config.norm_name(n), vec![config.norm_len(n)], Role::Norm);
    for l in 0..config.num_hidden_layers {
        for p in config.layer_projections(l) {
            let (rows, cols) = config.projection_shape(l, p);
            all.push((format!("{}.weight", config.projection_name(l, p)), vec![rows, cols], Role::Projection(l)));
        }
        all.extend(config.layer_ttt_tensors(l).map(|(t, shape)| (config.ttt_tensor_name(l, t), shape, Role::Ttt(t))));
        all.extend(config.layer_delta_tensors(l).map(|(t, mut shape)| {
            if t == DeltaTensor::Conv {
                // As checkpoints have it.
                shape.insert(1, 1);
            }
            (config.delta_tensor_name(l, t), shape, Role::Delta(t))
        }));
        all.extend(config.layer_norms(l).map(norm));
    }
    all.push(norm(Norm::Final));
    if !config.tie_word_embeddings {
        all.push((HEAD.to_owned(), table, Role::Table));
    }
    all
}
