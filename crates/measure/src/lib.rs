//! Timing in turns, statistics and curves: all figures come from this crate.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(feature = "plot")]
pub mod plot;
mod samples;
mod turns;

pub use samples::Samples;
pub use turns::{Turns, order};
