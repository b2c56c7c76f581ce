//! From the metadata of a container to a `ModelConfig`, and everything else that decides how tensors are read.
#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

pub(crate) mod bit_ttt;
pub(crate) mod fold;
pub(crate) mod from_gguf;
pub(crate) mod from_hf;
pub(crate) mod inputs;
pub(crate) mod neutral;
pub(crate) mod rope;

use std::collections::HashSet;

use bitnet_model::config_json::JsonError;
use bitnet_model::{Architecture, ModelConfig};

use crate::LoadError;
use crate::loaded::{GenerationConfig, QkLayout};

/// Meaning of a stored `weight_scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScaleMeaning {
    /// The weight is `scale * trit` (`linear_class: autobitlinear`, and everything in GGUF files).
    Multiply,
    /// The weight is `trit / scale` (`linear_class: bitlinear`).
    Divide,
}

/// Treatment of a projection whose values are floats that are not ternary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DensePolicy {
    /// They are master weights: quantise them with absmean, as training did.
    Absmean,
    /// Refuse, with this reason.
    Refuse(&'static str),
}

/// How to read a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) config: ModelConfig,
    /// `general.architecture` or `model_type`.
    pub(crate) architecture: String,
    pub(crate) family: Architecture,
    pub(crate) name: Option<String>,
    pub(crate) scale: ScaleMeaning,
    pub(crate) dense: DensePolicy,
    pub(crate) qk: QkLayout,
    pub(crate) generation: GenerationConfig,
    pub(crate) notes: Vec<String>,
}

/// Facts about the configuration from the tensors of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct TensorFacts {
    /// Rows of the embedding, if there is one.
    pub(crate) embedding_rows: Option<u64>,
    /// Whether there is a head.
    pub(crate) has_head: bool,
    /// Whether any layer has a sub-norm.
    pub(crate) has_sub_norms: bool,
    /// Whether any projection has a separate scale.
    pub(crate) has_scales: bool,
    /// Whether any projection has a norm of its input.
    pub(crate) has_projection_norms: bool,
    /// Names of all tensors, if they are known.
    pub(crate) names: Option<HashSet<String>>,
    /// The first of the layers that predict further tokens, if any.
    pub(crate) nextn: Option<usize>,
    /// Lists of factors for the frequencies of the rotary embedding, if there are such tensors.
    pub(crate) rope: rope::Tensors,
}

/// A size from a file, as `usize`; the bounds of the configuration are checked by its `validate`.
pub(crate) fn to_usize(key: &str, value: u64) -> Result<usize, LoadError> {
    usize::try_from(value).map_err(|_| LoadError::KeyValue {
        key: key.to_owned(),
        value: value.to_string(),
        reason: "it does not fit this machine's address space".to_owned(),
    })
}

/// A token id from a file.
pub(crate) fn to_token(key: &str, value: u64) -> Result<u32, LoadError> {
    u32::try_from(value).map_err(|_| LoadError::KeyValue {
        key: key.to_owned(),
        value: value.to_string(),
        reason: "token ids have 32 bits".to_owned(),
    })
}

/// A number of a configuration as `f32`, the type of these fields in the model.
#[allow(clippy::cast_possible_truncation)] // Rounding is intended; `validate` rejects infinities.
pub(crate) fn to_f32(value: f64) -> f32 {
    value as f32
}

impl From<JsonError> for LoadError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Missing { key, needed_for } => LoadError::MissingKey { key, needed_for },
            JsonError::Type { key, expected, got } => LoadError::KeyType { key, expected, got },
            JsonError::Value { key, value, reason } => LoadError::KeyValue { key, value, reason },
            JsonError::Model(error) => error.into(),
            // A kind added later uses its own description.
            other => unsupported("config.json", &other, "see the documentation of this version"),
        }
    }
}

pub(crate) fn unsupported(key: &str, value: impl std::fmt::Display, reason: &str) -> LoadError {
    LoadError::KeyValue { key: key.to_owned(), value: value.to_string(), reason: reason.to_owned() }
}
