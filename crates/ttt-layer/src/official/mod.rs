//! The language model around the layer as its authors publish it, small and in full precision: to load their
//! checkpoints, and to compare with them.
//!
//! [`OfficialModel`] is made of candle layers and differentiable; [`Decoder`] reads token by token in constant memory.

mod config;
mod decoder;
mod model;

pub use config::OfficialConfig;
pub use decoder::{Decoder, DecoderState};
pub use model::{BlockTrace, OfficialModel};
