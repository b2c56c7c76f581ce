#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod code;
mod info;
mod join;
mod request;

pub use code::code;
pub use info::{Facts, Info};
pub use join::{Joined, join};
pub use request::{GenerateRequest, Prompt, SchemaError, Turn};
