//! BitNet b1.58 models: configuration, weights, and inference on the CPU.
//!
//! - [`ModelConfig`] describes the shape of a model, [`WeightSource`] provides its weights, [`ModelWeights`] holds
//!   them, checked.
//! - [`Engine`] computes: ternary weights times int8 activations, exact in i32, on every thread of a team.
//!   [`Sequence`] is one text with its state: fed, continued token by token, rewound, forked, saved.
//!
//! The crate `loader` is for files, tokenizers and the hub; the crate `bitnet` combines all of them.

#![forbid(unsafe_code)]

mod blocks;
mod config;
pub mod embedding;
pub mod encoder;
mod engine;
mod error;
pub mod files;
mod float_matrix;
pub mod perplexity;
pub mod scoring;
pub mod sequence;
mod synthetic;
mod weights;

pub use blocks::BlockType;
#[cfg(feature = "json")]
pub use config::json as config_json;
pub use config::{
    Activation, ActivationBits, Architecture, DeltaOptions, DeltaTensor, Fold, Formulas, InputForm, InputForms, Mixer,
    ModelConfig, Norm, Pooling, Presence, Projection, RopeScaling, TttOptions, TttTensor,
};
pub use engine::{
    Candidate, Engine, EngineOptions, HeadMode, HeadRequest, KvType, LogitsWanted, PackedMatrix, Packer, Prediction,
    ProjectionGroup, SequenceState, StepInput, StepOutput,
};
pub use error::ModelError;
pub use float_matrix::{FloatMatrix, FloatRows, FloatType};
pub use sequence::{Sequence, Snapshots};
pub use synthetic::SyntheticWeights;
pub use ttt_layer::{DeltaConfig, DeltaState, RopePairs, StateDamage, TttConfig};
pub use weights::{DeltaWeights, LayerWeights, ModelWeights, StoredFloat, Table, TttWeights, WeightSource};

#[cfg(feature = "candle")]
pub mod nn;
pub mod sampling;
#[cfg(feature = "train")]
pub mod train;

/// Compiles the example on the crate's page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CratePage;
