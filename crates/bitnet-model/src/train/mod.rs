//! Training on this computer: parameters, optimizer, data, checkpoints, gradients. Feature `train`.
//!
//! - [`Params`] holds all master weights in one flat f32 buffer, in the names of a Hugging Face checkpoint.
//! - A [`Learner`] computes loss and gradient of a batch. [`FusedLearner`] does it on the CPU with the kernels that
//!   inference uses and gradients written by hand; `CandleLearner` (feature `candle`) through candle's autograd, for any candle
//!   model and any device. Both use the straight-through estimator: quantisers are the identity in the backward pass, and
//!   both products use quantised operands.
//! - [`Trainer`] runs the loop: [`AdamW`], or [`Muon`] for the projections, with a [`Schedule`]; [`Sampler`] over a
//!   [`TokenFile`]; checkpoints that continue bit for bit.
//!
//! [`extract`] trains extractors of intents and slots instead.
//!
//! Layers may be attention or test-time training, in any order: [`ModelConfig::mixers`](crate::ModelConfig::mixers).

mod batch;
#[cfg(feature = "candle")]
mod candle;
mod checkpoint;
mod clock;
mod config;
mod data;
mod documents;
mod error;
mod events;
mod examples;
mod export;
pub mod extract;
mod fused;
mod monitor;
mod muon;
mod optimizer;
mod params;
mod prepare;
mod random;
mod schedule;
mod shape;
mod trainer;

pub use batch::{Batch, GIVEN, Learner};
#[cfg(feature = "candle")]
pub use candle::{CandleLearner, CandleLoss};
pub use checkpoint::{Checkpoint, Progress};
pub use clock::Clock;
pub use config::TrainConfig;
pub use data::{Sampler, TokenFile, TokenWidth};
pub use error::TrainError;
pub use events::{Event, Finish};
pub use examples::{Example, for_each_example, holds_examples};
pub use export::{MasterWeights, write_master};
pub use fused::FusedLearner;
pub use monitor::LayerTrits;
pub use muon::{Muon, MuonOptions, OptimizerKind, UpdateScale};
pub use optimizer::{AdamW, AdamWOptions, DecayOn, gradient_norm};
pub use params::{Entry, Params, Role};
pub use prepare::{Prepared, Split, TextFormat, TokenWriter, for_each_document};
pub use random::Random;
pub use schedule::{Rates, Schedule, ScheduleKind};
pub use shape::{model_from_json, model_to_json};
pub use trainer::{Trainer, Validation};
