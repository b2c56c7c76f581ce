//! Timing in turns, statistics and curves: the crate that all figures come from.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(feature = "plot")]
pub mod plot;
mod samples;
mod turns;

pub use samples::Samples;
pub use turns::{Turns, order};
