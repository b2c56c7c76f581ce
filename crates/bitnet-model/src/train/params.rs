//! Master weights in one flat buffer.

use std::ops::Range;

use super::TrainError;
use super::random::Random;
use crate::ModelConfig;
use crate::config::{Norm, Projection};

/// One tensor of [`Params`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in a Hugging Face checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where its values lie.
    pub range: Range<usize>,
}

/// All parameters of a model, f32, one after the other.
///
/// Order: embedding; each layer's projections in the order of [`Projection::ALL`](crate::Projection::ALL) (so q, k and v lie
/// side by side, and so do gate and up), then its norms, then what a test-time-training layer learns in full precision; final
/// norm; head, where it is not tied.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// The tensors.
    pub entries: Vec<Entry>,
    /// Their values.
    pub values: Vec<f32>,
}

/// The name of a projection's master weights.
pub(super) fn projection_name(config: &ModelConfig, layer: usize, p: Projection) -> String {
    config.projection_name(layer, p) + ".weight"
}

/// The name of the embedding.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The name of the head.
pub(super) const HEAD: &str = "lm_head.weight";

impl Params {
    /// Tensors of these names and shapes, all zero.
    pub fn zeros(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> Self {
        let mut entries = Vec::new();
        let mut at = 0;
        for (name, shape) in tensors {
            let len: usize = shape.iter().product();
            entries.push(Entry { name, shape, range: at..at + len });
            at += len;
        }
        Self { entries, values: vec![0.0; at] }
    }

    /// The parameters of a model of this shape: matrices normal with deviation `std`, norms 1. Each tensor draws from a stream of
    /// its own, named after it.
    ///
    /// # Errors
    /// A configuration that cannot be.
    pub fn init(config: &ModelConfig, seed: u64, std: f64) -> Result<Self, TrainError> {
        config.validate()?;
        let mut params = Self::zeros(layout(config));
        for e in &params.entries {
            let values = &mut params.values[e.range.clone()];
            if e.shape.len() < 2 {
                values.fill(1.0);
            } else {
                let mut random = Random::new(seed, &e.name);
                values.iter_mut().for_each(|v| *v = (random.normal() * std) as f32);
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

    /// The values of the tensor called `name`, to be changed.
    ///
    /// # Errors
    /// [`TrainError::NoTensor`].
    pub fn get_mut(&mut self, name: &str) -> Result<&mut [f32], TrainError> {
        let range = self.entry(name)?.range.clone();
        Ok(&mut self.values[range])
    }
}

/// Names and shapes of a model's parameters, in the order of [`Params`].
pub(super) fn layout(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let table = vec![config.vocab_size, config.hidden_size];
    let mut all = vec![(EMBEDDING.to_owned(), table.clone())];
    for l in 0..config.num_hidden_layers {
        for p in config.layer_projections(l) {
            let (rows, cols) = config.projection_shape(l, p);
            all.push((projection_name(config, l, p), vec![rows, cols]));
        }
        all.extend(config.layer_norms(l).map(|n| (config.norm_name(n), vec![config.norm_len(n)])));
        all.extend(config.layer_ttt_tensors(l).map(|(t, shape)| (config.ttt_tensor_name(l, t), shape)));
    }
    all.push((config.norm_name(Norm::Final), vec![config.hidden_size]));
    if !config.tie_word_embeddings {
        all.push((HEAD.to_owned(), table));
    }
    all
}
