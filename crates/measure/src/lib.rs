#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod samples;
mod turns;

pub use samples::Samples;
pub use turns::Turns;
