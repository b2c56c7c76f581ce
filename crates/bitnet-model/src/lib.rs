//! BitNet b1.58 models: configuration, weights, and inference on the CPU.
//!
//! - [`ModelConfig`] says what shape a model has, [`WeightSource`] where its weights come from, [`ModelWeights`] holds
//!   them, checked.
//! - The engine computes: ternary weights times int8 activations, exact in i32, on every thread of a team.
//!
//! Files, tokenizers and the hub are the business of the crate `loader`; the crate `bitnet` puts all of it together.

#![forbid(unsafe_code)]

mod config;
mod error;
mod float_matrix;
mod quants;
mod weights;

pub use config::{Activation, ModelConfig, Norm, Projection};
pub use error::ModelError;
pub use float_matrix::{FloatMatrix, FloatRows, FloatType};
pub use weights::{LayerWeights, ModelWeights, StoredFloat, WeightSource};
