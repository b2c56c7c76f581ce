//! Test-Time-Training layers: constant-size recurrent memory that learns while it reads.
//!
//! The memory of a TTT layer is the weights of a small model, one per head. Reading a token is one gradient step of
//! that model towards mapping the token's key to its value; the layer's output is the result of the updated model for
//! the token's query. So the state of a text has the same size after ten tokens and after a million.
//!
//! [`RowWise`] reads tokens, and computes gradients, on plain numbers; with the feature `candle`, `TttLayer` is the layer as candle
//! operations.
//!
//! [`GatedDelta`] is a sibling: its memory is a matrix per head, which reading a token corrects by the delta rule, after all of
//! it has faded a little.
//!
//! Paper: arXiv:2407.04620, "Learning to (Learn at Test Time): RNNs with Expressive Hidden States"; arXiv:2412.06464, "Gated
//! Delta Networks: Improving Mamba2 with Delta Rule".

#![forbid(unsafe_code)]

mod checksum;
mod config;
mod delta;
mod error;
#[cfg(feature = "candle")]
mod layer;
#[cfg(feature = "candle")]
pub mod official;
mod parameters;
mod rowwise;
mod saved;

pub use config::{Kind, Projection, RopePairs, TttConfig};
pub use delta::{
    DeltaConfig, DeltaInputs, DeltaParameters, DeltaScratch, DeltaState, DeltaTape, DeltaWorkspace, GatedDelta,
};
pub use error::{StateDamage, TttError};
#[cfg(feature = "candle")]
pub use layer::{CausalConv, FastWeights, Form, Projections, TttLayer, Views};
pub use parameters::{ConvParameters, TttParameters};
pub use rowwise::{ConvRows, InputGradients, Inputs, RowWise, Rows, Scratch, Tape, TttState, Workspace};

/// The example of the crate's page compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CratePage;
