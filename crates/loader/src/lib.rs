//! Reads and writes ternary checkpoints: GGUF files and Hugging Face folders.
#![deny(unsafe_code)]

pub mod chat;
#[cfg(feature = "hub")]
pub mod hub;
pub mod tokenizer;
