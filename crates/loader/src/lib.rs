//! Reads and writes ternary checkpoints: GGUF files and Hugging Face folders.
#![deny(unsafe_code)]

mod error;
pub mod gguf;
pub mod mmap;
pub mod safetensors;

pub use error::LoadError;
