//! BitNet b1.58 models.

mod config;
mod error;
mod float_matrix;
mod quants;
mod weights;

pub use config::{Activation, ModelConfig, Norm, Projection};
pub use error::ModelError;
pub use float_matrix::{FloatMatrix, FloatRows, FloatType};
pub use weights::{LayerWeights, ModelWeights, StoredFloat, WeightSource};

pub mod nn;
pub mod sampling;
