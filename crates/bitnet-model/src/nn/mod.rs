//! The model as candle layers: differentiable, on any device, and written to be read next to the formulas.
//!
//! [`BitLinear`] is a [`candle_nn::Module`] and fits into any candle model, for training and for inference.
//! [`CandleModel`] is the whole decoder: the reference for faster paths, and the model that a trainer trains.
//!
//! # Integers stay integers
//! A projection computes `y = (q T^T) * alpha / s` with codes `q` in -127..=127 and trits `T`. Both are held as f32,
//! and the product of f32 matrices with such integers is exact while every partial sum is below `2^24`, for any order
//! of summation; with `|q| <= 127` that holds up to [`MAX_EXACT_F32_COLS`] columns, beyond which the product runs in
//! f64. So the sums equal those of the integer kernels bit for bit, in training and in inference.

mod attention;
mod bit_linear;
mod export;
mod feed_forward;
mod h_bit_linear;
mod hadamard;
mod mixer;
mod model;
mod norm;
mod quantize;
mod rotary;
mod trace;

pub use attention::Attention;
pub use bit_linear::{BitLinear, MAX_EXACT_F32_COLS, bit_linear};
pub use feed_forward::FeedForward;
pub use h_bit_linear::{HBitLinear, h_bit_linear};
pub use hadamard::hadamard;
pub use mixer::{NormedLinear, TokenMixer, TttBlock};
pub use model::{CandleModel, DecoderLayer};
pub use norm::{RmsNorm, rms_norm};
pub use quantize::{
    ACT_MAX, MIN_MAGNITUDE, activation_codes, activation_codes_int4, activation_codes_int16, quantize_activations,
    quantize_weights, straight_through, weight_trits, weight_trits_in_groups,
};
pub use rotary::{Rotary, RotaryTables};
use trace::Trace;
